"""``fathom fit|validate|test|predict``: one LightningCLI.

Precedence of settings, lowest to highest: defaults, ``_base.yaml``, the experiment's YAML, the checkpoint's description
of its model, explicit flags.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO

from callbacks import BestCheckpoint, LastCheckpoint, PredictionWriter, Reseeding, RunSummary, StopOnNonFinite
from callbacks.run.map_writers import DetectionWriter, MaskWriter
from callbacks.run.progress_lines import EpochBar, ProgressLines
from callbacks.run.signals import leaving_at_once
from callbacks.run.time_limit import TimeLimit
from experiments.cli import TRAINER_COMMANDS
from experiments.cli.arguments import (
    CKPT_PATH_EXAMPLE,
    checkpoint_path,
    flag_is_given,
    in_order_of_precedence,
    naming_the_checkpoint,
)
from experiments.cli.check_settings import check_groups, check_length, check_ranges, check_seed, check_values
from experiments.cli.contract import accepted_facts, check_given_facts, check_network, link_facts
from experiments.cli.initial_weights import STARTS_FROM, normalise_as_weights
from experiments.cli.messages import one_sentence
from experiments.cli.paths import resolve_paths
from experiments.cli.short_names import PARSER_MODE
from experiments.cli.signatures import imported_class
from experiments.cli.typed import typed_command
from experiments.errors import UsageError
from experiments.internals import RecordFacts
from experiments.runs.check_trainer import check_callbacks, check_monitors, check_strategy
from experiments.runs.configuration import SaveConfig
from experiments.runs.directory import RUN_DIRECTORY, checked_name, experiment_name, new_run_directory, run_config
from experiments.runs.lock import run_lock
from experiments.runs.metrics_csv import MetricsCSV
from experiments.runs.wandb_environment import wandb_environment
from experiments.runs.wandb_logger import DispensableWandbLogger, WandbOptions, wandb_logger
from experiments.runs.wandb_record import WandbRecord
from experiments.tf32 import allow_tf32
from lit_models import Detector, Segmenter
from lit_models.checkpoints import AtomicCheckpointIO

BASE_CONFIG = Path(__file__).parents[1] / "_base.yaml"
NAME_HELP = "name of the experiment, in whose folder the run lies (default: that of the last configuration file)"
TF32_HELP = "let a GPU round float32 to TF32 where autocast leaves it float32; faster, and not for proofs"


class FathomCLI(LightningCLI):
    """Every run gets a directory of its own, and the model the facts about the data that its constructor takes.

    Args:
        args: words of the command line, the command first.
        run_directory: directory of a run to resume, which the caller has locked and whose configuration is in ``args``
            (default: a new one).
    """

    def __init__(self, args: list[str], run_directory: Path | None = None) -> None:
        self._run_directory = run_directory
        self._root_is_given = flag_is_given(args, "--trainer.default_root_dir")
        checkpoint = checkpoint_path(args)
        with (
            ExitStack() as self._until_done,
            naming_the_checkpoint(checkpoint, lambda: getattr(self, "datamodule", None)),
            leaving_at_once(self._how_to_go_on),
        ):
            super().__init__(
                model_class=L.LightningModule,
                subclass_mode_model=True,
                datamodule_class=L.LightningDataModule,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                parser_kwargs={
                    "prog": "fathom",
                    "parser_mode": PARSER_MODE,
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    **{
                        command: {
                            "default_config_files": [str(BASE_CONFIG)],
                            "description": description[0].upper() + description[1:] + ".",
                            "usage": f"fathom {command} --config EXPERIMENT.yaml [options]",
                            "exit_on_error": False,
                            "allow_abbrev": False,
                        }
                        for command, description in TRAINER_COMMANDS.items()
                    },
                },
                args=args if run_directory else in_order_of_precedence(args),
            )

    def _how_to_go_on(self) -> str:
        trainer = getattr(self, "trainer", None)
        if trainer is None or self.subcommand != "fit":
            return ""
        begun = (Path(trainer.default_root_dir) / "config.yaml").is_file()
        return f"; to go on: fathom resume {trainer.default_root_dir}" if begun else ""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        command = self.config.subcommand
        config = self.config[command]
        check_groups(config)
        check_seed(config.seed_everything)
        check_values(config)
        check_ranges(config.trainer, command)
        if command == "fit":
            check_length(config.trainer)
        flags = {setting.replace(".init_args", ""): config[setting] for setting in accepted_facts(config)}
        self._given_facts = {flag: value for flag, value in flags.items() if flag_is_given(args, f"--{flag}")}
        if config.name is not None:
            checked_name(config.name)
        if command != "fit" and not config.ckpt_path and not any(map(config.get, STARTS_FROM)):
            raise UsageError(f"fathom {command} needs {CKPT_PATH_EXAMPLE}: this network has random weights without")
        chosen = config.trainer.callbacks or []
        check_callbacks(
            imported_class(callback.class_path) for callback in (chosen if isinstance(chosen, list) else [chosen])
        )
        resolve_paths(config)
        if not config.ckpt_path:
            normalise_as_weights(config)
        for name, value in wandb_environment().items():
            if not flag_is_given(args, f"--wandb.{name}"):
                config.wandb[name] = value

    def _parse_ckpt_path(self) -> None:
        """Lightning would put the checkpoint's settings over explicit flags; they are in the arguments already."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help=NAME_HELP)
        parser.add_argument("--tf32", type=bool, default=False, help=TF32_HELP)
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        link_facts(parser)

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        record = RecordFacts(self, "model", set(accepted_facts(self.config[self.subcommand])))
        self.parser.add_instantiator(record, L.LightningModule, subclasses=True)
        self.parser.add_instantiator(self._logger, Logger, subclasses=True)

    def _logger(self, kind: type[Logger], *args: Any, **kwargs: Any) -> Logger:
        if kwargs.get("save_dir") == RUN_DIRECTORY:
            kwargs["save_dir"] = str(self._directory)
        return kind(*args, **kwargs)

    def before_instantiate_classes(self) -> None:
        """Set how float32 is computed; leave out weights to start from, where a checkpoint brings others."""
        config = self.config[self.subcommand]
        allow_tf32(config.tf32)
        if config.ckpt_path:
            for setting, none in STARTS_FROM.items():
                if config.get(setting):
                    config[setting] = none

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:  # what constructors and jsonargparse raise for arguments
            raise UsageError(one_sentence(str(error))) from error
        check_given_facts(self._given_facts, self.datamodule)
        check_network(self.model, self.datamodule, trains=self.subcommand == "fit")
        if self.subcommand == "fit":
            check_monitors(self.model, self.trainer.callbacks)  # type: ignore[attr-defined]

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self.config[self.subcommand]
        run_directory = self._directory
        callbacks: list[L.Callback] = [Reseeding(), RunSummary(typed_command()), StopOnNonFinite()]
        chosen = self._get(self.config_init, "trainer")
        if chosen.max_time is not None:
            callbacks.append(TimeLimit(chosen.max_time))
        if self.subcommand == "fit":
            callbacks.append(ProgressLines(self._experiment(config)))
        if not any(isinstance(callback, ProgressBar) for callback in _listed(chosen.callbacks)):
            kwargs["enable_progress_bar"] = config.trainer.enable_progress_bar is not False and sys.stdout.isatty()
            if kwargs["enable_progress_bar"]:
                callbacks.append(EpochBar(refresh_rate=10))
        if self.subcommand == "predict":
            writers = {Detector: DetectionWriter, Segmenter: MaskWriter}
            kinds = [writer for task, writer in writers.items() if isinstance(self.model, task)]
            callbacks.append(kinds[0]() if kinds else PredictionWriter())
        self.trainer_defaults["callbacks"] = callbacks
        loggers = self._loggers(run_directory, config)
        callbacks += [
            WandbRecord(logger, config.as_dict(), config.wandb.artifacts)
            for logger in loggers
            if isinstance(logger, DispensableWandbLogger)
        ]
        trainer = super().instantiate_trainer(
            default_root_dir=run_directory,
            logger=loggers,
            plugins=self._plugins(),
            max_time=None,  # see TimeLimit
            **kwargs,
        )
        check_strategy(trainer)
        # What is saved is the state between two steps, and the others may draw random numbers; told is what they did.
        trainer.callbacks.sort(  # type: ignore[attr-defined]
            key=lambda callback: isinstance(callback, ProgressLines) - isinstance(callback, LastCheckpoint | Reseeding)
        )
        return trainer

    @cached_property
    def _directory(self) -> Path:
        """Within the run whose checkpoint is evaluated, unless the user names another root; otherwise a new run."""
        if self._run_directory is not None:
            return self._run_directory
        command = str(self.subcommand)
        config = self.config[command]
        if command != "fit" and config.ckpt_path and not self._root_is_given:
            evaluated = run_config(Path(config.ckpt_path))
            if evaluated is not None:
                return new_run_directory(evaluated.parent, command)
        root = Path(config.trainer.default_root_dir or "runs")
        return new_run_directory(root, self._experiment(config))

    def _experiment(self, config: Any) -> str:
        return config.name or experiment_name(config.config or [])

    def before_fit(self) -> None:
        """Keep other processes out of the run directory."""
        if self._run_directory is None and not self.config.fit.trainer.fast_dev_run:
            self._until_done.enter_context(run_lock(Path(self.trainer.default_root_dir)))

    def _plugins(self) -> list[Any]:
        """The user's plugins, and one that writes a checkpoint whole or not at all."""
        plugins = _listed(self._get(self.config_init, "trainer").plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        return plugins

    def _loggers(self, run_directory: Path, config: Any) -> list[Logger]:
        """CSV always, Weights & Biases unless it is disabled, and what the user names in ``trainer.logger``."""
        loggers: list[Logger | None] = [MetricsCSV(run_directory)]
        chosen = self._get(self.config_init, "trainer").logger
        command = str(self.subcommand)
        if chosen is not False and not config.trainer.fast_dev_run and command != "predict":
            options = WandbOptions(**config.wandb.as_dict())
            wandb = wandb_logger(run_directory, options, self._experiment(config), command)
            if wandb is not None:
                self._until_done.push(wandb.end)
            loggers.append(wandb)
        if chosen not in (None, True, False):
            loggers.extend(_listed(chosen))
        return [logger for logger in loggers if logger is not None]


def _listed(chosen: Any) -> list[Any]:
    """A setting of the trainer that takes one, several or none."""
    if chosen is None:
        return []
    return list(chosen) if isinstance(chosen, list) else [chosen]
