"""What libraries print that tells nobody anything about the run."""

from __future__ import annotations

import logging
import re
import warnings

HARMLESS_WARNINGS = (
    "Checkpoint directory .* exists and is not empty",  # that of a run which is resumed
    ".*LeafSpec",
    "The dirpath has changed",  # every run has its own
    "Precision bf16-mixed is not supported by the model summary",
    "You passed `Trainer.accelerator='cpu', precision='16-mixed'",  # the line on the precision says what is used
)
NOISE = re.compile(
    r"(GPU|TPU|HPU) available|\S* ?Tip: |Using (bfloat16|16bit) |Seed set to|`Trainer.fit` stopped: `max_(epochs|steps)"
    r"|LOCAL_RANK: |Loading `train_dataloader` to|`Trainer\(limit_|You are using a CUDA device"
)
"""What Lightning logs and the lines of a run say, or nobody asked for."""
LOGGERS = (
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.utilities.rank_zero",
)


def quiet_warnings() -> None:
    """Leave the harmless ones out."""
    for harmless in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=harmless)


def quiet_lightning() -> None:
    """Leave out of Lightning's log what is noise; what Fathom says through it stays."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if _tells_something not in logger.filters:
            logger.addFilter(_tells_something)


def _tells_something(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not NOISE.match(record.getMessage())
