"""Print a script that completes commands, flags and recipes in a shell."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout, suppress
from functools import cache
from typing import Literal

SCRIPT = """\
# Completion for fathom, as of its release {version}. It starts no Python.
_fathom() {{
    local word="$2" before="$3" known="" command
    read -r _ command _ <<< "$COMP_LINE"
    [ "$before" = "=" ] && before="${{COMP_WORDS[COMP_CWORD-2]}}"
    [ "$word" = "=" ] && word=""
    case "$before" in
{values}
    esac
    if [ -z "$known" ] && [ "$COMP_CWORD" -eq 1 ]; then
        known="{commands}"
    elif [ -z "$known" ]; then
        case "$command" in
{flags}
        esac
    fi
    COMPREPLY=( $(compgen -W "$known" -- "$word") )
}}
complete -o default -F _fathom fathom
"""
FOR_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
FLAG = re.compile(r"(?<![\w`-])--[a-z]\w*(?:\.[a-z]\w*)*\+?")


def completion(shell: Literal["bash", "zsh"]) -> None:
    """Print a script that completes commands, their flags, recipes and the names of classes.

    It holds what this release knows, and so it answers at once; after an update it is printed anew. For bash:
    fathom completion bash > ~/.local/share/bash-completion/completions/fathom. For zsh: write it into a file that
    ~/.zshrc sources.

    Args:
        shell: the shell that will source the script.
    """
    from experiments import __version__
    from experiments.__main__ import tools
    from experiments.cli import TRAINER_COMMANDS

    commands = [*TRAINER_COMMANDS, *(name for name in tools() if name not in TRAINER_COMMANDS)]
    words = {command: words_after(command) for command in commands}
    script = SCRIPT.format(
        version=__version__,
        values="\n".join(f'        {flag}) known="{" ".join(names)}" ;;' for flag, names in values_of_flags().items()),
        commands=" ".join(commands),
        flags="\n".join(f'            {command}) known="{" ".join(known)}" ;;' for command, known in words.items()),
    )
    print(FOR_ZSH * (shell == "zsh") + script, end="")


def values_of_flags() -> dict[str, list[str]]:
    """The flags whose values have names of ours, and these."""
    import callbacks
    import datamodules
    import lit_models
    from experiments.cli.help import public_classes
    from experiments.cli.recipes import recipes

    return {
        "--config|-c": list(recipes()),
        "--data": public_classes(datamodules, "data"),
        "--model": public_classes(lit_models, "model"),
        "--model.net": public_classes(lit_models, "net"),
        "--trainer.callbacks+": public_classes(callbacks, "callbacks"),
    }


@cache
def words_after(command: str) -> list[str]:
    """What may follow ``command``: its subcommands, and the flags that its help lists."""
    from experiments.__main__ import run, tool_named, tools
    from experiments.cli import TRAINER_COMMANDS

    subcommands, helps = [], []
    if command in TRAINER_COMMANDS:
        helps += [["--help"], ["--help.all"]]
    if command in tools():
        tool = tool_named(command)
        subcommands = [] if callable(tool) else list(tool)
        helps += [[name, "--help"] for name in subcommands] or [["RUN"] * (command in TRAINER_COMMANDS) + ["--help"]]
    printed = io.StringIO()
    for words in helps:
        with redirect_stdout(printed), suppress(SystemExit):
            run(command, words)
    text = printed.getvalue()
    inherited = words_after("fit") if re.search(r"(options|flags are those) of\s+fathom\s+fit", text) else []
    return list(dict.fromkeys([*subcommands, *FLAG.findall(text), "--import", *inherited]))
