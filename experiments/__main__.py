"""``fathom``: the commands, and errors as one sentence."""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from argparse import ArgumentError
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from typing import Any, get_origin, get_type_hints

from experiments.errors import is_for_people, one_sentence, os_sentence

# Module and purpose. The module's attribute of the command's name is a function, or several by name, whose arguments
# are the flags; it is imported when called, so that each command starts fast.
TOOLS = {
    "quickstart": ("experiments.quickstart", "train, merge and test VanillaNet on digits, and print what came of it"),
    "convert": ("experiments.convert", "turn official VanillaNet weights into a checkpoint, or back"),
    "shard": ("experiments.shard", "write a folder of photos as shards that can be streamed from object storage"),
    "lesion": ("experiments.unravel.commands", "delete blocks of a trained network, and count its errors"),
    "reorder": ("experiments.unravel.commands", "exchange blocks of a trained network, and count its errors"),
    "paths": ("experiments.unravel.paths", "weigh the paths of a residual network by their length"),
    "ensemble": ("experiments.unravel.ensemble", "compare stochastic depth's rule at test time with real averages"),
    "responses": ("experiments.unravel.responses", "measure how strongly each layer of a network responds"),
    "inception": ("experiments.inception", "count what an Inception module costs, naive and with bottlenecks"),
    "compare": ("experiments.compare", "plot what several runs logged, side by side, from their metrics.csv"),
    "drill": ("experiments.drill", "kill a run at random, resume it, and compare it with one that never stopped"),
    "bench": ("experiments.bench", "measure what is claimed of speed, side by side with what others offer"),
}

# The same, but the function gets the words as they are: their flags are those of fit.
LIKE_FIT = {
    "resume": ("experiments.resume", "go on with a run where it was killed, interrupted or preempted"),
    "explain": ("experiments.explain", "print what a fit would do: batch, learning rate, decay, cost; train nothing"),
    "ladder": ("experiments.ladder", "train the bag of tricks, one trick added at a time, and plot what each brought"),
}

HARMLESS_WARNINGS = (
    "Checkpoint directory .* exists and is not empty",  # that of a run which is resumed
    ".*LeafSpec",
    "The dirpath has changed",  # every run has its own
    "Precision bf16-mixed is not supported by the model summary",
)


def main(args: list[str] | None = None) -> int:
    """Run ``fathom`` with ``args`` and return its exit code: 0, 1 for a failure, 2 for a wrong command line."""
    args = sys.argv[1:] if args is None else args
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print(overview())
        return 0
    os.umask(os.umask(0o077) | 0o002)  # whatever the shell allows, nobody else writes into a run
    for harmless in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=harmless)
    try:
        return run(command, args)
    except ArgumentError as error:
        sentence = one_sentence(str(error), flags(command)) if command in TOOLS else one_sentence(str(error))
        return _fail(sentence, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except OSError as error:
        return _fail(one_sentence(os_sentence(error)), 1)
    except Exception as error:
        # jsonargparse wraps what a constructor raises, and says where it was.
        if not (is_for_people(error) or (isinstance(error, ValueError) and is_for_people(error.__cause__))):
            raise
        return _fail(one_sentence(str(error)), 1)


def run(command: str, args: list[str]) -> int:
    """Import what ``command`` needs, and call it."""
    if command in TOOLS:
        from jsonargparse import auto_cli

        module, _ = TOOLS[command]
        tool = getattr(import_module(module), command)
        auto_cli(tool, args=gathered(tool, args[1:]), prog=f"fathom {command}", exit_on_error=False, allow_abbrev=False)
        return 0
    if command in LIKE_FIT:
        module, _ = LIKE_FIT[command]
        getattr(import_module(module), command)(args[1:])
        return 0

    from experiments.cli import COMMANDS, FathomCLI

    if command in COMMANDS:
        FathomCLI(args)
        return 0
    known = [*COMMANDS, *LIKE_FIT, *TOOLS]
    nearest = get_close_matches(command, known, 1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
    return _fail(f"there is no command {command!r}: {hint}", 2)


def gathered(tool: Any, args: list[str]) -> list[str]:
    """``args`` with the words before the first flag as one, where the first argument of ``tool`` is a list.

    jsonargparse takes a list as a single word in brackets; people write its items one after the other.
    """
    first = next(iter(get_type_hints(tool).values()), None) if callable(tool) else None
    words = list(takewhile(lambda word: not word.startswith("-"), args))
    if get_origin(first) is not list or not words:
        return args
    return [json.dumps(words), *args[len(words) :]]


def flags(command: str) -> list[str]:
    """Of one of ``TOOLS``; where it is several functions, those of all."""
    tool = getattr(import_module(TOOLS[command][0]), command)
    functions = [tool] if callable(tool) else tool.values()
    return list(dict.fromkeys(name for function in functions for name in inspect.signature(function).parameters))


def overview() -> str:
    """The commands, a line each."""
    from experiments.cli import COMMANDS

    commands = COMMANDS | {name: description for name, (_, description) in (LIKE_FIT | TOOLS).items()}
    lines = [f"  fathom {name:12} {description}" for name, description in commands.items()]
    return "\n".join(
        [
            "Measure, train and take apart the depth of convolutional networks.",
            "",
            *lines,
            "",
            "fathom COMMAND --help lists the options of a command.",
        ]
    )


def _fail(sentence: str, exit_code: int) -> int:
    print(f"fathom: {sentence}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
