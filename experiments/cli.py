"""``fathom fit|validate|test|predict``: one LightningCLI.

Settings come from, each over the one before: defaults, ``_base.yaml``, the experiment's YAML, the checkpoint's
description of its model, explicit flags.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import PredictionWriter, RunSummary
from experiments.errors import one_sentence
from experiments.run_directory import experiment_name, new_run_directory, run_config
from experiments.timm_shorthand import PARSER_MODE
from experiments.wandb_logger import wandb_logger
from lit_models.checkpoints import CheckpointError, check_classes, read_checkpoint

BASE_CONFIG = Path(__file__).parent / "_base.yaml"
COMMANDS = {
    "fit": "train a network, with validation",
    "validate": "evaluate a checkpoint on the validation images",
    "test": "evaluate a checkpoint, merged or not, on the test images",
    "predict": "write the classes a checkpoint sees in the test images",
}


class FathomCLI(LightningCLI):
    """Every run gets a directory of its own, and the model learns from the data module what it is trained on."""

    def __init__(self, args: list[str]) -> None:
        with naming_the_checkpoint(args):
            super().__init__(
                model_class=L.LightningModule,
                subclass_mode_model=True,
                datamodule_class=L.LightningDataModule,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                save_config_callback=SaveConfig,
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
                        for command, description in COMMANDS.items()
                    },
                },
                args=in_order_of_precedence(args),
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Lightning would put the checkpoint's settings over explicit flags; they are in the arguments already."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Two of them: Lightning's save_last follows the best one, and is not written when that is not.
        parser.add_lightning_class_args(ModelCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")
        parser.add_function_arguments(wandb_logger, "wandb", skip={"run_directory"})
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        model = "model.init_args"
        for fact in ("num_classes", "image_size", "mean", "std"):
            parser.link_arguments(f"data.{fact}", f"{model}.{fact}", apply_on="instantiate")
        for fact in ("num_classes", "in_channels"):
            parser.link_arguments(f"data.{fact}", f"{model}.net.init_args.{fact}", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:  # what constructors and jsonargparse raise for arguments
            raise MisconfigurationException(one_sentence(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self.config[self.subcommand]
        run_directory = new_run_directory(
            Path(config.trainer.default_root_dir or "runs"), experiment_name(config.config or [])
        )
        callbacks: list[L.Callback] = [RunSummary()]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(RichProgressBar(refresh_rate=10))  # each refresh waits for the device
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter())
        self.trainer_defaults["callbacks"] = callbacks
        return super().instantiate_trainer(
            default_root_dir=run_directory, logger=self._loggers(run_directory, config), **kwargs
        )

    def _loggers(self, run_directory: Path, config: Any) -> list[Logger]:
        """CSV always, Weights & Biases unless it is disabled, and what the user names in ``trainer.logger``."""
        loggers: list[Logger | None] = [CSVLogger(run_directory, name="", version="")]
        chosen = self._get(self.config_init, "trainer").logger
        if chosen is not False and not config.trainer.fast_dev_run:
            loggers.append(wandb_logger(run_directory, **config.wandb.as_dict()))
        if chosen not in (None, True, False):
            loggers.extend(chosen if isinstance(chosen, list) else [chosen])
        return [logger for logger in loggers if logger is not None]


class SaveConfig(SaveConfigCallback):
    """The resolved configuration, in the run directory and in Weights & Biases."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        config = self.config.as_dict()
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams({name: config[name] for name in ("seed_everything", "model", "data", "trainer")})


@contextmanager
def naming_the_checkpoint(args: list[str]) -> Iterator[None]:
    """Turns torch's list of every weight that does not fit into a sentence that names the checkpoint."""
    try:
        yield
    except RuntimeError as error:
        _, *mismatches = str(error).splitlines()
        if "loading state_dict" not in str(error) or not mismatches:
            raise
        raise CheckpointError(
            f"{checkpoint_path(args)} is of another network than the configuration: {mismatches[0].strip()}"
            + (f" (and {len(mismatches) - 1} more)" if len(mismatches) > 1 else "")
        ) from error


def checkpoint_path(args: list[str]) -> str | None:
    """The value of ``--ckpt_path``, the last one where there are several."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path")
    return parser.parse_known_args(args)[0].ckpt_path


def in_order_of_precedence(args: list[str]) -> list[str]:
    """Config files first, then the model of ``--ckpt_path``, then the flags; later ones win.

    Without a config file, that of the run the checkpoint lies in is taken.

    Raises:
        CheckpointError, FileNotFoundError: for a checkpoint that is none.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    given, flags = parser.parse_known_args(args[1:])
    configs, checkpoint = given.config, checkpoint_path(args)
    if checkpoint and checkpoint not in ("null", "last", "best", "hpc", "registry"):
        if not configs and (config := run_config(Path(checkpoint))):
            configs.append(str(config))
        configs.append(json.dumps(model_config(checkpoint)))
    if not configs and not {flag.partition("=")[0] for flag in flags} & {"-h", "--help", "--model", "--print_config"}:
        raise MisconfigurationException(f"fathom {args[0]} needs --config, such as experiments/vanillanet_digits.yaml")
    return [*args[:1], *(word for config in configs for word in ("--config", config)), *flags]


def model_config(checkpoint_path: str) -> dict[str, Any]:
    """The ``model`` part of a configuration, as a checkpoint has it."""
    hparams = read_checkpoint(checkpoint_path).get("hyper_parameters", {})
    check_classes(checkpoint_path, hparams)
    arguments = {name: value for name, value in hparams.items() if not name.startswith("_")}
    if not arguments:
        return {}
    return {"model": {"class_path": hparams.get("_class_path", "lit_models.ImageClassifier"), "init_args": arguments}}
