"""YAML of configurations: it ends, each key stands once, and what is wrong is told with its line."""

import time

import pytest
import yaml

from experiments.cli.short_names import load
from experiments.runs.safe_yaml import read_yaml

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 1500))
# the text, the line and what is said
BAD = {
    "billion laughs": (LAUGHS, 5, "more than 20000 values"),
    "a chain of aliases": (CHAIN, 49, "nested in more than 50 levels"),
    "itself": ("a:\n  b: &b [*b]\n", 2, r"\*b stands within what it names"),
    "itself as a dict": ("a: &a\n  b: *a\n", 2, r"\*a stands within what it names"),
    "brackets": ("a:\n" + "[" * 150_000, 2, "nested in more than 50 levels"),
    "braces": ("{a: " * 30_000, 1, "nested in more than 50 levels"),
    "indents": ("\n".join(" " * i + "a:" for i in range(600)), 50, "nested in more than 50 levels"),
    "dashes": ("- " * 90_000, 1, "nested in more than 50 levels"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", 3, "a is already set in line 1"),
    "a key twice within": ("a:\n  b: 1\n  c: {d: 1, d: 2}\n", 3, "d is already set in line 3"),
    "a number that is none": ("a: 0b_\n", 1, "not of the type"),
    "a number too long": (f"a: {'9' * 5000}\n", 1, "not of the type"),
    "a number of too many bits": (f"a: 1\nb: {2**70}\n", 2, "more than 64 bits"),
    "a truth that is none": ("a: !!bool maybe\n", 1, "not of the type"),
    "code": ("a: !!python/object/apply:os.system [ls]\n", 1, "could not determine a constructor"),
}


@pytest.mark.parametrize("read", [read_yaml, load])
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_with_its_line(name, read):
    text, line, word = BAD[name]
    start = time.monotonic()
    with pytest.raises(yaml.MarkedYAMLError, match=word) as error:
        read(text)
    assert error.value.problem_mark.line + 1 == line
    assert time.monotonic() - start < 10


def test_a_text_of_any_length_is_refused():
    with pytest.raises(yaml.YAMLError, match="2000000 characters"):
        read_yaml("a" * 2_000_000)


def test_what_people_write_is_read():
    text = "base: &base {x: 1, y: 2}\nmore: {<<: *base, y: 3}\nlist: [*base, *base]\nday: 2001-01-01\n1: a\n"
    assert read_yaml(text) == {
        "base": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
        "list": [{"x": 1, "y": 2}] * 2,
        "day": "2001-01-01",
        1: "a",
    }


@pytest.mark.parametrize("name", ["billion laughs", "itself", "brackets", "a key twice"])
def test_a_configuration_is_refused_with_the_line(name, fathom, tiny_run, tmp_path):
    """Both where the user gives it and where it is that of a run."""
    text, line, _ = BAD[name]
    (tmp_path / "bad.yaml").write_text(text)
    code, sentence = fathom("fit", "--config", tmp_path / "bad.yaml", "--trainer.default_root_dir", tmp_path / "runs")
    assert code == 1
    assert sentence.startswith(f"{tmp_path / 'bad.yaml'}, line {line}, column ")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(text)
    (run / "checkpoints" / "last.ckpt").write_bytes((tiny_run / "checkpoints" / "last.ckpt").read_bytes())
    for words in (("resume", run), ("test", "--ckpt_path", run / "checkpoints" / "last.ckpt")):
        code, sentence = fathom(*words)
        assert code == 1
        assert sentence.startswith(f"{run / 'config.yaml'}, line {line}, column ")


def test_a_file_that_a_configuration_points_to_is_refused(fathom, tiny_config, tmp_path):
    (tmp_path / "more.yaml").write_text(LAUGHS)
    flags = ("--model", tmp_path / "more.yaml", "--trainer.default_root_dir", tmp_path / "runs")
    code, sentence = fathom("fit", "--config", tiny_config, *flags)
    assert code in (1, 2)
    assert len(sentence) < 600
