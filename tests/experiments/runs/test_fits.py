"""What a run directory says is read strictly where it is the one that is asked for, and leniently among many."""

import json

import pytest

from experiments.errors import UsageError
from experiments.runs.directory import experiment_name
from experiments.runs.fits import read_configuration, read_summary, setting, settings_of, summary_of

DAMAGED = {"not a mapping": b"[1, 2]", "not closed": b'{"status": ', "not text": b'{"status": "\xff"}'}


def test_both_readers_find_what_a_run_says(tmp_path):
    (tmp_path / "config.yaml").write_text("name: narrow\nmodel: {init_args: {lr: 0.1}}\n")
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished"}))
    assert (
        settings_of(tmp_path) == read_configuration(tmp_path) == {"name": "narrow", "model": {"init_args": {"lr": 0.1}}}
    )
    assert summary_of(tmp_path) == read_summary(tmp_path) == {"status": "finished"}
    assert experiment_name([tmp_path / "config.yaml"]) == "narrow"


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_or_passed_over(content, tmp_path):
    run = tmp_path / "resnet20" / "20260101"
    run.mkdir(parents=True)
    for file, strict, lenient in (
        ("config.yaml", read_configuration, settings_of),
        ("summary.json", read_summary, summary_of),
    ):
        (run / file).write_bytes(content)
        with pytest.raises(UsageError, match=f"{file} can't be read"):
            strict(run)
        assert lenient(run) == {}
    assert experiment_name([run / "config.yaml"]) == "resnet20"


def test_what_is_not_there_or_no_file_is_empty(tmp_path):
    (tmp_path / "file").touch()
    for run in (tmp_path / "file", tmp_path / "nowhere"):
        assert settings_of(run) == summary_of(run) == {}


def test_a_setting_has_its_dotted_name():
    settings = {"model": {"init_args": {"lr": 0.1, "net": "resnet"}}}
    assert setting(settings, "model.init_args.lr") == 0.1
    assert setting(settings, "model.init_args.net.depth") is None
    assert setting(settings, "data.root") is None
