"""The check runs here, at a reduced size, and fails where an answer is wrong."""

import json

import pytest

from experiments.check.answers import Answer, Setting, ask
from experiments.commands.check import QUESTIONS


def test_everything_passes_on_a_cpu(fathom, tmp_path):
    out = tmp_path / "check.json"
    assert fathom("check", "--quick", "true", "--accelerator", "cpu", "--out", out) == (0, "")
    report = json.loads(out.read_text())
    answers = report["answers"]
    assert list(dict.fromkeys(answer["question"] for answer in answers)) == list(QUESTIONS)
    assert sum(answer["passed"] is True for answer in answers) >= 14
    assert sum(answer["answer"].startswith("not applicable") for answer in answers) == 3
    by_name = {answer["about"]: answer for answer in answers}
    assert by_name["killed and resumed, as it is"]["numbers"]["difference"] == 0
    assert by_name["merge"]["numbers"]["float64"] > 0
    assert by_name["ResNet-8, batch 16, eager"]["numbers"]["images_per_second"] > 0


def test_a_wrong_answer_and_an_error_fail_and_the_rest_is_asked(tmp_path, capsys):
    def wrong(setting):
        yield Answer("one", "fine", True)
        yield Answer("two", "not fine", False)
        raise KeyError("no three")

    def right(setting):
        yield Answer("four", "measured")

    out = tmp_path / "check.json"
    failed = ask({"first": wrong, "second": right}, Setting("cpu", True, tmp_path), out, {"quick": True})
    assert failed == ["first, two", "first, error"]
    assert [answer["passed"] for answer in json.loads(out.read_text())["answers"]] == [True, False, False, None]
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "KeyError: 'no three'" in printed


def test_a_failed_check_ends_with_another_exit_code(fathom, tmp_path, monkeypatch):
    monkeypatch.setitem(QUESTIONS, "parity", lambda setting: iter([Answer("logits", "differ by 1", False)]))
    code, sentence = fathom("check", "--accelerator", "cpu", "--only", "[parity]", "--out", tmp_path / "check.json")
    assert code == 1
    assert sentence == f"1 answers are wrong (parity, logits): see {tmp_path / 'check.json'}"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--accelerator", "gpu"], "there is no GPU that torch can use here: take --accelerator cpu"),
        (["--only", "[speed]"], "there is no question 'speed': take some of surroundings, parity"),
    ],
)
def test_what_cannot_be_asked_is_refused(flags, words, fathom, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, sentence = fathom("check", *flags)
    assert code == 1
    assert sentence.startswith(words)
