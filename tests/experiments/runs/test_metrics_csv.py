"""metrics.csv as processes leave it that were killed while they wrote it."""

import csv

import pytest

from experiments.runs.metrics_csv import MetricsCSV


def logged(folder, *metrics):
    logger = MetricsCSV(folder)
    for step, row in enumerate(metrics):
        logger.log_metrics(row, step=step)
        logger.save()
    return logger


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_rows_after_the_checkpoint_are_cut_off_and_columns_grow(tmp_path):
    state = logged(tmp_path, {"loss": 3}, {"loss": 2}).state_dict()
    assert state == {"rows": 2}
    logged(tmp_path, {"loss": 1, "top1": 0.5})
    resumed = MetricsCSV(tmp_path)
    _ = resumed.experiment
    resumed.load_state_dict(state)
    assert rows(tmp_path) == [{"loss": "3", "step": "0"}, {"loss": "2", "step": "1"}]
    resumed.log_metrics({"lr": 0.1}, step=2)
    assert resumed.state_dict() == {"rows": 3}
    assert rows(tmp_path)[2] == {"lr": "0.1", "step": "2"}


def test_a_row_cut_short_does_not_survive(tmp_path):
    state = logged(tmp_path, {"loss": 3, "lr": 1}, {"loss": 2, "lr": 1}).state_dict()
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("1,")
    resumed = MetricsCSV(tmp_path)
    _ = resumed.experiment
    resumed.load_state_dict(state)
    assert [row["loss"] for row in rows(tmp_path)] == ["3", "2"]


def test_the_old_file_stays_whole_while_its_columns_change(tmp_path, monkeypatch):
    logger = logged(tmp_path, {"loss": 3})

    def fails(*_):
        raise KeyError("killed")

    monkeypatch.setattr(csv.DictWriter, "writerows", fails)
    logger.log_metrics({"top1": 0.5}, step=1)
    with pytest.raises(KeyError):
        logger.save()
    assert rows(tmp_path) == [{"loss": "3", "step": "0"}]


def test_rows_that_are_missing_are_told(tmp_path):
    logger = logged(tmp_path, {"loss": 3})
    with pytest.warns(UserWarning, match="1 rows, where the checkpoint knows of 4"):
        logger.load_state_dict({"rows": 4})


def test_a_new_run_from_a_checkpoint_of_another_misses_no_rows(tmp_path, recwarn):
    logger = MetricsCSV(tmp_path)
    _ = logger.experiment
    logger.load_state_dict({"rows": 2})
    assert recwarn.list == []
    logger.log_metrics({"loss": 3})
    assert logger.state_dict() == {"rows": 1}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\xd8", b"loss,step\n3,0\n1,2,1\n1,2\n", b"loss,step\n3\n2,1\n"])
def test_a_damaged_file_is_kept_and_a_new_one_begun(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.warns(UserWarning, match=r"metrics\.damaged\.csv"):
        logged(tmp_path, {"loss": 1})
    assert (tmp_path / "metrics.damaged.csv").read_bytes() == content
    assert rows(tmp_path) == [{"loss": "1", "step": "0"}]
