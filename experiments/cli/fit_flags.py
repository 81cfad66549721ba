"""Commands that take the flags of ``fathom fit`` beside their own."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence

from experiments.cli.messages import FIT_FLAGS, did_you_mean

_LESS_USED = ("c", "best_checkpoint", "last_checkpoint", "tf32", "print_config")


def with_fit_flags(parser: ArgumentParser, args: Sequence[str]) -> tuple[Namespace, list[str]]:
    """What ``parser`` makes of its own flags, and the words that are for ``fathom fit``.

    Raises:
        ArgumentError: for a flag that is neither's, with the nearest of both.
    """
    options, rest = parser.parse_known_args(args)
    for word in rest:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and name.partition(".")[0].removesuffix("+") not in (*FIT_FLAGS, *_LESS_USED):
            raise ArgumentError(None, f"there is no flag {word}{did_you_mean(name, [*vars(options), *FIT_FLAGS])}")
    return options, rest
