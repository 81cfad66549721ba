"""The script that completes command lines, in a real shell."""

import shutil
import subprocess

import pytest

from experiments.__main__ import main, tools

SOME = ("bench", "completion", "explain", "lesion", "predict", "recipes", "report", "resume")
TRY = """\
source {script}
complete -p fathom > /dev/null || exit 3
complete_words() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"
    _fathom fathom "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
    echo "${{COMPREPLY[@]}}"
}}
"""


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """What a shell offers for each of several lines, as fast as one that starts no program can."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash on this machine")
    script = tmp_path_factory.mktemp("completion") / "fathom"
    with pytest.MonkeyPatch.context() as patch, open(script, "w") as file:
        some = {name: text for name, text in tools().items() if name in SOME}  # as help of all takes its time
        patch.setattr("experiments.__main__.tools", lambda: some)
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0

    def complete(*lines):
        tried = TRY.format(script=script) + "\n".join(f"complete_words {line}" for line in lines)
        options = {"capture_output": True, "text": True, "timeout": 10, "check": True}
        done = subprocess.run([bash, "--norc", "-c", tried], env={"PATH": "/nowhere"}, **options)
        assert done.stderr == ""
        return [line.split() for line in done.stdout.splitlines()]

    return complete


def test_it_knows_commands_flags_recipes_and_classes(completed):
    lines = ["fathom re", "fathom fit --da", "fathom fit --trainer.acc", "fathom fit --config vanillanet_d"]
    lines += ["fathom fit --config = vanillanet_d", "fathom test --data C", "fathom fit --model.net Va"]
    lines += ["fathom lesion RUN --re", "fathom bench st", "fathom explain --cur", "fathom explain --trainer.max_e"]
    lines += ["fathom predict RUN --wor", "fathom nothing --x"]
    commands, data, trainer, recipe, after_equals, classes, nets, lesion, bench, *others = completed(*lines)
    assert {"report", "resume", "recipes"} <= set(commands)
    assert {"--data", "--data.batch_size", "--data.num_workers"} <= set(data)
    assert {"--trainer.accelerator", "--trainer.accumulate_grad_batches"} <= set(trainer)
    assert recipe == after_equals == ["vanillanet_digits"]
    assert {"CIFAR10", "COCODetection"} <= set(classes)
    assert nets == ["VanillaNet"]
    assert lesion == ["--reestimate_batches"]
    assert set(bench) == {"step", "stochastic-depth"}
    assert others == [["--curve"], ["--trainer.max_epochs"], ["--worst"], []]


def test_another_shell_is_one_sentence(fathom):
    code, sentence = fathom("completion", "fish")
    assert code == 2
    assert "bash" in sentence
