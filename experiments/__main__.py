"""``fathom``: the commands, and errors as one sentence."""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
from argparse import ArgumentError
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from experiments import __version__
from experiments.cli import TRAINER_COMMANDS
from experiments.cli.quiet import quiet_lightning, quiet_warnings
from experiments.cli.typed import typed
from experiments.cli.underscores import with_underscores
from experiments.output import dispensable_output


def main(args: list[str] | None = None) -> int:
    """Run ``fathom`` with ``args`` and return its exit code: 0, 1 for a failure, 2 for a wrong command line."""
    args = sys.argv[1:] if args is None else args
    with dispensable_output() as output, typed(args):
        code = _main(args)
        output.flush()
        if output.error is None or isinstance(output.error, BrokenPipeError):  # whoever read it has read enough
            return code
        reason = f"standard output: {output.error.strerror}"
        if args and args[0] in (*TRAINER_COMMANDS, "resume"):  # what matters is in the run directory
            print(f"{reason}: what was printed is lost", file=sys.stderr)
            return code
        return code or _fail(reason, 1)


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0
    if args[0] == "--version":
        print(f"fathom {__version__}")
        return 0
    os.umask(os.umask(0o077) | 0o002)  # whatever the shell allows, nobody else writes into a run
    try:
        current = os.getcwd()
    except FileNotFoundError:
        return _fail(f"the current folder {os.environ.get('PWD', '')} is gone: change to another one", 1)
    if current not in sys.path:
        sys.path.append(current)  # last, so that a folder there never hides a package of ours
    quiet_warnings()
    quiet_lightning()
    try:
        from experiments.cli.consent import take_imports
        from experiments.cli.paths import expand_home

        words = take_imports([expand_home(word) for word in args])
        if any("pretrained:" in word for word in words):
            from experiments.cli.pretrained import with_pretrained

            words = [with_pretrained(word) for word in words]
        command, *rest = words
        return run(command, rest)
    except (KeyboardInterrupt, SystemExit) as left:
        # A Trainer that is not a fit's of ours, as in a benchmark, turns Ctrl-C into an exit without a word.
        if isinstance(left, SystemExit) and not isinstance(left.__context__, KeyboardInterrupt):
            raise
        return _fail("interrupted", 130)
    except Exception as error:
        from experiments.cli.messages import is_for_people, one_sentence, os_sentence

        if isinstance(error, ArgumentError):
            known = flags(*args[:2]) if _is_tool(args[0], args[1:]) else None
            return _fail(one_sentence(str(error), known) if known else one_sentence(str(error)), 2)
        if isinstance(error, OSError):
            return _fail(one_sentence(os_sentence(error)), 1)
        if isinstance(error, RuntimeError) and "by peer" in str(error):  # "Connection closed by peer", "reset by peer"
            return _fail("another rank has ended, without which this one can't go on: its own error says why", 1)
        # jsonargparse wraps what a constructor raises, and says where it was.
        if not (is_for_people(error) or (isinstance(error, ValueError) and is_for_people(error.__cause__))):
            raise
        return _fail(one_sentence(str(error)), 1)


def run(command: str, args: list[str]) -> int:
    """Import what ``command`` needs, and call it."""
    if command in TRAINER_COMMANDS and not _is_tool(command, args):
        if {"-h", "--help"} & set(args):
            from experiments.cli.help import print_help

            print_help(command)
            return 0
        from experiments.cli.command_line import FathomCLI

        FathomCLI([command, *("--help" if word == "--help.all" else word for word in args)])
        return 0
    if command in tools():
        tool = tool_named(command)
        word = args[0] if args else ""
        if isinstance(tool, dict) and word not in tool and not word.startswith("-"):
            return _fail(f"fathom {command} needs one of {', '.join(tool)}{f', not {word}' * bool(word)}", 2)
        if _takes_words(tool):
            tool(args)
            return 0
        from jsonargparse import auto_cli

        auto_cli(tool, args=tool_words(tool, args), prog=f"fathom {command}", exit_on_error=False, allow_abbrev=False)
        return 0
    from experiments.cli.messages import did_you_mean

    return _fail(f"there is no command {command!r}{did_you_mean(command, [*TRAINER_COMMANDS, *tools()])}", 2)


def tools() -> dict[str, str]:
    """Every module of ``experiments.commands`` with the first line of its docstring, without importing it."""
    found = {}
    for path in sorted((Path(__file__).parent / "commands").glob("[!_]*.py")):
        description = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        found[path.stem] = description.partition("\n")[0].rstrip(".")
    return found


def _is_tool(command: str, args: list[str]) -> bool:
    """Whether a module of ``experiments.commands`` is meant: ``predict RUN``, not ``predict --ckpt_path RUN``."""
    return command in tools() and (command not in TRAINER_COMMANDS or bool(args and not args[0].startswith("-")))


def tool_named(command: str) -> Any:
    """The function of that name, or a dictionary of several, one for each subcommand."""
    return getattr(import_module(f"experiments.commands.{command}"), command)


def _takes_words(tool: Any) -> bool:
    """Whether ``tool`` parses the words itself, as the commands with the flags of ``fit`` do."""
    return callable(tool) and list(inspect.signature(tool).parameters) == ["args"]


def tool_words(tool: Any, args: list[str]) -> list[str]:
    """``args`` as jsonargparse takes them: classes by their import path, and the items of a list as one word.

    jsonargparse takes a list as a single word in brackets; people write its items one after the other.
    """
    if any(word.partition("=")[0] == "--data" for word in args):
        from experiments.cli.short_names import with_full_names

        args = with_full_names(args)
    hints = get_type_hints(tool) if callable(tool) else {}
    args = [with_underscores(word, hints) for word in args]
    lists = [name for name, kind in hints.items() if any(get_origin(part) is list for part in (kind, *get_args(kind)))]
    if callable(tool) and "wandb" in inspect.signature(tool).parameters:
        from experiments.runs.wandb_environment import wandb_environment

        given = {word.partition("=")[0] for word in args}
        for name, value in wandb_environment().items():
            if f"--wandb.{name}" not in given:
                args = [*args, f"--wandb.{name}={value if isinstance(value, str) else json.dumps(value)}"]
    words = _values(args)
    if words and lists and lists[0] == next(iter(hints)):
        args = [json.dumps(words), *args[len(words) :]]
    for flag in (f"--{name}" for name in lists):
        # --images=FOLDER as --images FOLDER; a list in brackets stays one word
        args = [part for word in args for part in (word.split("=", 1) if word.startswith(f"{flag}=") else [word])]
        if flag in args:
            start = args.index(flag) + 1
            values = _values(args[start:])
            args = [*args[:start], json.dumps(values), *args[start + len(values) :]]
    return args


def _values(args: list[str]) -> list[str]:
    """The words before the next flag."""
    return list(takewhile(lambda word: not word.startswith("-"), args))


def flags(command: str, subcommand: str = "") -> list[str]:
    """The flags of a command with typed arguments; without a ``subcommand`` over all of those."""
    tool = tool_named(command)
    if _takes_words(tool):
        return []
    functions = [tool] if callable(tool) else [tool[subcommand]] if subcommand in tool else tool.values()
    return list(dict.fromkeys(name for function in functions for name in inspect.signature(function).parameters))


def overview() -> str:
    """The commands, a line each."""
    described = TRAINER_COMMANDS | tools()
    lines = [f"  fathom {name:12} {text[0].lower()}{text[1:]}" for name, text in described.items()]
    return "\n".join(
        [
            "Measure, train and take apart the depth of convolutional networks.",
            "",
            *lines,
            "",
            "fathom COMMAND --help lists the options of a command. Every command takes --import PACKAGE, for networks,",
            "data sets and callbacks of your own; the package may lie in the current folder.",
        ]
    )


def _fail(sentence: str, exit_code: int) -> int:
    print(f"fathom: {sentence}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
