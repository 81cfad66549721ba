"""Weights & Biases online, with its own client, against a server on loopback."""

import csv
import json
import subprocess
import sys
import time

import pytest
import wandb
from wandb_server import KEY, WandbServer

from experiments.__main__ import main


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """To which the client of this process has a key."""
    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {"BASE_URL": server.url, "API_KEY": KEY, "DIR": str(tmp_path_factory.mktemp("w"))}.items():
            patch.setenv(f"WANDB_{name}", value)
        wandb.teardown()  # it has read its settings before
        yield server
        wandb.teardown()


@pytest.fixture(scope="module")
def run(server, tiny_config, tmp_path_factory):
    """The directory of a fit, in a process of its own: in this one, the client remembers the runs of other tests."""
    root = tmp_path_factory.mktemp("online")
    flags = ["--wandb.mode", "online", "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", str(root)]
    words = [sys.executable, "-m", "experiments", "fit", "--config", str(tiny_config), *flags]
    done = subprocess.run(words, timeout=200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (directory,) = root.glob("tiny/*")
    return directory


def test_a_fit_sends_what_it_has(run, server):
    first = server.sent["UpsertBucket"][0]
    assert (first["name"], first["project"]) == (run.name, "fathom")
    assert (first["groupName"], first["jobType"]) == ("tiny", "fit")
    config = json.loads(server.sent["UpsertBucket"][-1]["config"])
    assert config["model"]["value"]["init_args"]["net"]["init_args"]["depth"] == 8
    with open(run / "metrics.csv", newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    sent = [row["train/loss"] for row in server.rows["wandb-history.jsonl"] if "train/loss" in row]
    assert sent == pytest.approx(losses)
    uploaded = " ".join(server.files)
    for name in ("val/confusion_matrix_table", "val/accuracy_by_class_table", "val/images"):
        assert f"media/table/{name}_" in uploaded
    aliases = [{a["alias"] for a in one["input"]["aliases"]} for one in server.sent["CreateArtifact"]]
    assert [alias - {"latest"} for alias in aliases if alias & {"best", "last"}] == [{"best"}, {"last"}]


def test_its_key_is_kept_nowhere(run, server):
    kept = [path for path in run.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    kept += [name for name, content in server.files.items() if KEY.encode() in content]
    assert kept == []


def test_a_dashboard_is_saved_as_the_file_says(server, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")
    out = tmp_path / "workspace.json"
    assert main(["dashboard", "vanillanet", "--project", "mine", "--out", str(out)]) == 0
    assert server.sent["UpsertView2"] == []
    capsys.readouterr()
    assert main(["dashboard", "vanillanet", "--project", "mine"]) == 0
    (saved,) = server.sent["UpsertView2"]
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("me", "mine", "Fathom: VanillaNet")
    name = saved["name"].removeprefix("nw-").removesuffix("-v")
    printed = capsys.readouterr()
    assert printed.out == f"{server.url}/me/mine?nw={name}\n"
    assert "View saved" not in printed.err
    assert panels(json.loads(saved["spec"])) == panels(json.loads(out.read_text())["vanillanet"]["spec"])


def panels(spec):
    """What each section shows, without the ids that are drawn anew."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return [(section["name"], [panel["config"] for panel in section["panels"]]) for section in sections]


def test_a_bogus_key_is_told_at_once_and_kept_nowhere(server, tiny_config, fathom, tmp_path, monkeypatch):
    bogus = KEY[::-1]
    for name, value in {"WANDB_API_KEY": bogus, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    before = time.monotonic()
    root = ("--trainer.default_root_dir", tmp_path / "runs")
    code, sentence = fathom("fit", "--config", tiny_config, "--wandb.mode", "online", *root)
    assert time.monotonic() - before < 15
    assert code == 1
    assert (
        "Weights & Biases can't begin the run (its server refuses the key): see to the network and `wandb login`"
        in sentence
    )
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or bogus.encode() not in path.read_bytes(), path
