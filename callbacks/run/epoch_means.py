"""Means over an epoch that is not over: Lightning forgets them when a fit is resumed in the middle of one."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torchmetrics import Metric

from callbacks.run.internals import SUMS, go_on_logging, logged_results, set_update_count
from lit_models.schema import SchemaError


def epoch_means(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
    """What has been logged in this epoch and is not yet reset, in tensors and primitives; of this rank alone."""
    return {
        "logged": [_entry(result) for result in logged_results(trainer).values() if not result.has_reset],
        "metrics": {
            name: {"updates": metric.update_count, "state": metric.metric_state}
            for name, metric in pl_module.named_modules()
            if isinstance(metric, Metric) and metric.update_called
        },
        "callback_metrics": dict(trainer.callback_metrics),
    }


def restore_epoch_means(trainer: L.Trainer, pl_module: L.LightningModule, means: dict[str, Any]) -> None:
    """Go on from there. The module is on its device, and nothing has been logged since."""
    modules = dict(pl_module.named_modules())
    for name, saved in means["metrics"].items():
        metric: Any = modules[name]
        if saved["state"].keys() != metric.metric_state.keys():
            raise SchemaError(f"run.epoch_means has {', '.join(saved['state'])} of the metric {name}")
        for state, tensors in saved["state"].items():
            setattr(metric, state, _moved(tensors, metric.device))
        set_update_count(metric, saved["updates"])

    logged = logged_results(trainer)
    for saved in means["logged"]:
        arguments, attribute = saved["arguments"], saved["arguments"]["metric_attribute"]
        value: Any = torch.tensor(0.0) if attribute is None else modules.get(attribute)
        if value is None:
            continue  # a metric that the module does not own, and whose state is not known
        # Logged once as its owner does it, for the entry to exist; then its sums are put right.
        logged.log(**arguments, value=value, batch_size=0, sync_dist_fn=trainer.strategy.reduce)
        for name, tensor in saved["sums"].items():
            setattr(logged[f"{arguments['fx']}.{arguments['name']}"], name, tensor)
    go_on_logging(trainer, means["callback_metrics"])


def _entry(result: Any) -> dict[str, Any]:
    meta = result.meta
    same = ("name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")
    return {
        "arguments": {
            **{name: getattr(meta, name) for name in (*same, "metric_attribute")},
            "fx": meta.fx,
            "reduce_fx": meta.reduce_fx.__name__,
            "sync_dist": meta.sync.should,
            "rank_zero_only": meta.sync.rank_zero_only,
        },
        "sums": {
            name: getattr(result, name) for name in SUMS if result.is_tensor and getattr(result, name, None) is not None
        },
    }


def _moved(state: Any, device: torch.device) -> Any:
    return [tensor.to(device) for tensor in state] if isinstance(state, list) else state.to(device)
