"""What Weights & Biases gets beside the metrics: configuration, tables, checkpoints and an alert."""

from __future__ import annotations

from operator import methodcaller
from pathlib import Path
from typing import Any

import lightning as L

from callbacks import BestCheckpoint, NonFiniteError
from callbacks.run.run_summary import read_summary
from experiments.runs.directory import run_config
from experiments.runs.evaluation import Evaluation
from experiments.runs.wandb_logger import DispensableWandbLogger, run_id
from lit_models import ImageClassifier

FACTS = ("parameters", "macs", "devices", "hardware", "tf32", "cudnn_benchmark", "data_fingerprint", "commit", "dirty")
"""What the summary of a run has that its configuration has not."""
SECTIONS = ("seed_everything", "name", "model", "data", "trainer")
MOST_CLASSES = 100
"""In a confusion matrix, whose table has a row for every two of them."""


class WandbRecord(L.Callback):
    """Logs the configuration as it was resolved, and, when a run ends, what came of it.

    A classifier has a confusion matrix, its accuracy by class, and a table of the first and of the worst images of its
    last validation or of its test. A fit has its checkpoints as versions of one artifact, of which each has an alias.

    Args:
        logger: of the run.
        config: of the command.
        artifacts: log the checkpoints.
    """

    def __init__(self, logger: DispensableWandbLogger, config: dict[str, Any], artifacts: bool) -> None:
        self._logger = logger
        self._config = config
        self._artifacts = artifacts
        self._evaluations: dict[str, Evaluation] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        config = {name: self._config[name] for name in SECTIONS if self._config.get(name) is not None}
        model = config["model"]
        # With the facts about the data, which the arguments as written have not; without what starts with weights only.
        hparams = {name: value for name, value in pl_module.hparams.items() if not name.startswith("_")}
        if hparams:
            given = {name: model["init_args"][name] for name in ("weights",) if name in model.get("init_args", {})}
            config["model"] = {"class_path": model["class_path"], "init_args": hparams | given}
        # What is used, not what was asked for.
        config["precision"] = trainer.precision
        config["trainer"] = config["trainer"] | {"precision": trainer.precision}
        if checkpoint := self._config.get("ckpt_path"):
            config["checkpoint"] = str(checkpoint)
            if (trained := run_config(Path(checkpoint))) is not None:
                config["trained_by"] = run_id(trained.parent)
        self._logger.log_config(config)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log_facts(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin("val", pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin("test", pl_module)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._add("val", outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._add("test", outputs, batch)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._gather("val", trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._gather("test", trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NonFiniteError):
            self._logger.attempt(lambda run: run.alert("The training diverged", str(exception), level="ERROR"))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        self._log_facts(trainer)
        for part, evaluation in self._evaluations.items():
            self._log_evaluation(part, evaluation, trainer, pl_module)
        summary = read_summary(trainer)
        if best := summary.get("best"):
            self._logger.attempt(lambda run: run.summary.update({"best": best}))
        if merge := summary.get("merge"):
            self._log_merge(merge)
        if probs := (summary.get("stochastic_depth") or {}).get("survival_probs"):
            self._log_table("stochastic_depth/blocks", ["block", "p_l"], list(map(list, enumerate(probs, start=1))))
        if stage == "fit" and self._artifacts:
            self._log_checkpoints(trainer, summary)

    def _log_facts(self, trainer: L.Trainer) -> None:
        summary = read_summary(trainer)
        self._logger.log_config({name: summary[name] for name in FACTS if summary.get(name) is not None})

    def _begin(self, part: str, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, ImageClassifier):
            self._evaluations[part] = Evaluation(pl_module.num_classes, pl_module.device)

    def _add(self, part: str, outputs: Any, batch: Any) -> None:
        if part in self._evaluations and outputs is not None:
            images, targets = batch
            self._evaluations[part].update(images, targets, outputs)

    def _gather(self, part: str, trainer: L.Trainer) -> None:
        """Over all devices; of the images, those of the first one are shown."""
        if part in self._evaluations:
            evaluation = self._evaluations[part]
            evaluation.matrix = trainer.strategy.reduce(evaluation.matrix, reduce_op="sum")

    def _log_evaluation(self, part: str, evaluation: Evaluation, trainer: L.Trainer, pl_module: Any) -> None:
        import wandb

        hparams = pl_module.hparams
        names = list(hparams.get("class_names") or map(str, range(pl_module.num_classes)))
        mean, std = hparams.get("mean") or (0.0,), hparams.get("std") or (1.0,)
        by_class = wandb.Table(["class", "images", "accuracy"], evaluation.by_class(names))
        rows = [[wandb.Image(image.squeeze()), *rest] for image, *rest in evaluation.shown(names, mean, std)]
        logged = {
            f"{part}/accuracy_by_class": wandb.plot.bar(by_class, "class", "accuracy", title=f"{part}: accuracy"),
            f"{part}/images": wandb.Table(["image", "shown as", "truth", "top 5", "loss"], rows),
        }
        if len(names) <= MOST_CLASSES:
            columns: list[Any] = ["Actual", "Predicted", "nPredictions"]
            logged[f"{part}/confusion_matrix"] = wandb.plot_table(
                "wandb/confusion_matrix/v1",
                wandb.Table(columns, evaluation.confusion(names)),
                {name: name for name in columns},
                {"title": f"{part}: classes"},
            )
        self._logger.attempt(lambda run: run.log(logged | {"trainer/global_step": trainer.global_step}))

    def _log_merge(self, merge: dict[str, Any]) -> None:
        """As text: a dashboard rounds a difference of 1e-7 to 0."""
        rows = [[name, f"{value:.3g}" if isinstance(value, float) else str(value)] for name, value in merge.items()]
        self._log_table("merge/report", ["quantity", "value"], rows)

    def _log_table(self, name: str, columns: list[Any], rows: list[list[Any]]) -> None:
        import wandb

        self._logger.attempt(lambda run: run.log({name: wandb.Table(columns, rows)}))

    def _log_checkpoints(self, trainer: L.Trainer, summary: dict[str, Any]) -> None:
        import wandb

        directory = Path(trainer.default_root_dir)
        chosen = [c for c in trainer.callbacks if isinstance(c, BestCheckpoint)]  # type: ignore[attr-defined]
        monitor = str(chosen[0].monitor) if chosen else ""
        last: dict[str, Any] = {monitor: summary["metrics"].get(monitor)} if monitor else {}
        best: dict[str, Any] = {monitor: summary["best"]["value"]} if "best" in summary else {}
        files: dict[str, tuple[Path | None, dict[str, Any]]] = {
            "best": (Path(chosen[0].best_model_path) if chosen and chosen[0].best_model_path else None, best),
            "last": (directory / "checkpoints" / "last.ckpt", last),
            # It computes what the last one does.
            "merged": (directory / "merged.ckpt", last),
        }
        for alias, (path, metadata) in files.items():
            if path is not None and path.is_file():
                artifact = wandb.Artifact(f"model-{self._logger.version}", "model", metadata=metadata)
                artifact.add_file(str(path), policy="immutable", skip_cache=True)  # it is not copied
                self._logger.attempt(methodcaller("log_artifact", artifact, aliases=[alias]))
