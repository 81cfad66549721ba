"""Commands that take the flags of ``fathom fit`` beside their own."""

from __future__ import annotations

import re
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence

from experiments.cli.messages import FIT_FLAGS, did_you_mean
from experiments.cli.underscores import with_underscores

_LESS_USED = ("c", "best_checkpoint", "last_checkpoint", "tf32", "print_config")


def with_fit_flags(parser: ArgumentParser, args: Sequence[str]) -> tuple[Namespace, list[str]]:
    """What ``parser`` makes of its own flags, and the words that are for ``fathom fit``.

    Raises:
        ArgumentError: for a flag that is neither's, with the nearest of both.
    """
    own = vars(parser.parse_known_args([])[0])
    options, rest = parser.parse_known_args([with_underscores(word, own) for word in args])
    known = [f"--{name}" for name in (*FIT_FLAGS, *own)]
    for word in rest:
        flag = re.match(r"--?([a-zA-Z]\w*)", word)  # and no negative number
        if flag and flag[1] not in (*FIT_FLAGS, *_LESS_USED):
            raise ArgumentError(None, f"there is no flag {word}{did_you_mean(flag[0], known)}")
    return options, rest
