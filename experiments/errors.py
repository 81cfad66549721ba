"""Errors for people: one sentence, without a traceback."""

from __future__ import annotations

import re

# Lines in which jsonargparse explains its type system, not what is wrong.
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value|Subclass types"
)


def one_sentence(message: str) -> str:
    """A message of several lines as one, without those that only describe types."""
    lines = [line.strip().removeprefix("- ").strip() for line in message.splitlines()]
    kept = [line for line in lines if line and not _NOISE.search(line)]
    return " ".join(kept).strip()


def is_for_people(error: Exception) -> bool:
    """Whether ``error`` is about what the user gave; anything else is a defect, which a traceback serves better."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from callbacks import MergeError, NonFiniteError
    from lit_models import CheckpointError

    return isinstance(error, MisconfigurationException | CheckpointError | MergeError | NonFiniteError | OSError)
