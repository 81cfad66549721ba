"""What an offline run tells Weights & Biases, read back from its file."""

import csv
import json
import os
import re
import shutil
import struct
import time

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from experiments.__main__ import main
from experiments.runs.wandb_logger import WandbOptions, wandb_logger


def records(path):
    """The records of a ``.wandb`` file, a LevelDB log: blocks of 32 KiB with chunks of (crc, length, kind, data)."""
    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the only chunk of a record, or its last
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def whole_records(path):
    """The records once the process that writes them is done with the run."""
    deadline = time.monotonic() + 30
    while not any(record.HasField("exit") for record in records(path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return list(records(path))


@pytest.fixture(scope="module")
def offline_run(quickstart_run):
    (path,) = quickstart_run[0].glob("wandb/offline-run-*/run-*.wandb")
    return quickstart_run[0], whole_records(path)


@pytest.fixture(scope="module")
def offline_test(quickstart_run, tmp_path_factory):
    """Of the merged checkpoint, in a copy of the run."""
    to = tmp_path_factory.mktemp("copy") / "/".join(quickstart_run[0].parts[-2:])
    run_directory = shutil.copytree(quickstart_run[0], to)
    assert main(["test", "--ckpt_path", str(run_directory / "merged.ckpt")]) == 0
    (path,) = run_directory.glob("test/*/wandb/offline-run-*/run-*.wandb")
    return run_directory, whole_records(path)


def key(item):
    return item.key or "/".join(item.nested_key)


def the_run(recorded):
    return next(record.run for record in recorded if record.HasField("run"))


def configuration(recorded):
    """By name; a name has one value in all records, whatever it is nested in."""
    said = {}
    for record in recorded:
        for part in (record.run.config, record.config):
            for item in part.update:
                if key(item) != "_wandb":
                    said.setdefault(key(item), []).append(json.loads(item.value_json))
    assert all(value == values[0] for values in said.values() for value in values), said
    return {name: values[0] for name, values in said.items()}


def leaves(settings, name=""):
    if isinstance(settings, dict):
        for inner, value in settings.items():
            yield from leaves(value, inner)
    else:
        yield name, settings


def last(recorded, part):
    """The last value of everything in the history or the summary."""
    items = (
        item
        for record in recorded
        if record.HasField(part)
        for item in (record.history.item if part == "history" else record.summary.update)
    )
    return {key(item): json.loads(item.value_json) for item in items}


def artifacts(recorded):
    for record in recorded:
        if record.HasField("artifact"):
            yield record.artifact
        elif record.request.HasField("log_artifact"):
            yield record.request.log_artifact.artifact


def table(recorded, folder, name):
    (written,) = folder.glob(f"wandb/offline-run-*/files/{last(recorded, 'history')[f'{name}/path']}")
    return json.loads(written.read_text())


def test_its_configuration_is_what_the_run_had(offline_run, offline_test):
    run_directory, recorded = offline_run
    assert {record.run.run_id for record in recorded if record.HasField("run")} == {run_directory.name}
    config = configuration(recorded)
    summary = json.loads((run_directory / "summary.json").read_text())
    assert config["model"]["init_args"]["net"]["init_args"]["depth"] == 6
    assert config["data"]["class_path"] == "datamodules.Digits"
    assert config["trainer"]["precision"] == config["precision"] == summary["precision"] == "bf16-mixed"
    assert config["seed_everything"] == 42
    for name in ("parameters", "macs", "hardware", "data_fingerprint", "commit"):
        assert config[name] == summary[name], name
    for settings in (config, configuration(offline_test[1])):
        for name, right in (("in_channels", 1), ("num_classes", 10), ("image_size", 32)):
            assert {value for key, value in leaves(settings) if key == name} == {right}, name


def test_a_test_names_the_run_it_is_of(offline_run, offline_test):
    run_directory, recorded = offline_test
    fit, test = the_run(offline_run[1]), the_run(recorded)
    assert (fit.run_group, fit.job_type) == ("vanillanet_digits", "fit")
    assert (test.run_group, test.job_type) == ("vanillanet_digits", "test")
    config = configuration(recorded)
    assert config["trained_by"] == fit.run_id
    assert config["checkpoint"] == str(run_directory / "merged.ckpt")


def test_the_best_value_and_its_epoch_are_in_both_summaries(offline_run):
    run_directory, recorded = offline_run
    with open(run_directory / "metrics.csv", newline="") as file:
        rows = [(float(row["val/top1"]), -int(row["epoch"])) for row in csv.DictReader(file) if row["val/top1"]]
    value, epoch = max(rows)
    best = json.loads((run_directory / "summary.json").read_text())["best"]
    assert best == {"metric": "val/top1", "value": pytest.approx(value), "epoch": -epoch}
    said = last(recorded, "summary")
    assert {name: said.get(f"best/{name}", said.get("best", {}).get(name)) for name in best} == best


def test_an_evaluation_shows_classes_and_images(offline_run, offline_test):
    for part, folder, recorded in (
        ("val", *offline_run),
        ("test", next(offline_test[0].glob("test/*")), offline_test[1]),
    ):
        confusion = table(recorded, folder, f"{part}/confusion_matrix_table")
        assert confusion["columns"] == ["Actual", "Predicted", "nPredictions"]
        assert len(confusion["data"]) == 100
        hits = sum(count for true, predicted, count in confusion["data"] if true == predicted)
        top1 = last(recorded, "history")[f"{part}/top1"]
        total = sum(count for _, _, count in confusion["data"])
        assert hits / total == pytest.approx(top1)
        by_class = table(recorded, folder, f"{part}/accuracy_by_class_table")["data"]
        assert sum(images * accuracy for _, images, accuracy in by_class) == pytest.approx(hits)
        images = table(recorded, folder, f"{part}/images")["data"]
        assert [row[1] for row in images] == ["first"] * 16 + ["worst"] * 16
        assert all(row[3].count(",") == 4 for row in images)
        worst = [row[4] for row in images[16:]]
        assert worst == sorted(worst, reverse=True)
        assert worst[0] >= max(row[4] for row in images[:16])
        (pictures,) = (a for a in artifacts(recorded) if a.type == "run_table" and f"{part}images" in a.name)
        assert sum(entry.path.endswith(".png") for entry in pictures.manifest.contents) >= 16


def test_the_merge_report_is_not_rounded(offline_run):
    rows = dict(table(offline_run[1], offline_run[0], "merge/report")["data"])
    assert 0 < float(rows["max_logit_difference_float64"]) < 1e-9


def test_the_checkpoints_are_versions_of_one_artifact(offline_run):
    models = [artifact for artifact in artifacts(offline_run[1]) if artifact.type == "model"]
    assert [{*artifact.aliases} - {"latest"} for artifact in models] == [{"best"}, {"last"}, {"merged"}]
    assert len({artifact.name for artifact in models}) == 1
    for artifact in models:
        assert 0.5 < json.loads(artifact.metadata)["val/top1"] <= 1


def test_a_copy_of_a_run_keeps_its_id(tmp_path):
    odd = tmp_path / "run: 50%#1"
    assert wandb_logger(odd, WandbOptions()).version == "run--50--1"
    for name in ("offline-run-20261122_092947-20261122-092947-dd35f1", "run-20261123_000000-20261122-092947-dd35f1"):
        (odd / "wandb" / name).mkdir(parents=True)
    assert wandb_logger(odd, WandbOptions()).version == "20261122-092947-dd35f1"


def test_it_has_every_metric_under_one_name(offline_run):
    _, recorded = offline_run
    history = {}
    for record in recorded:
        if record.HasField("history"):
            for item in record.history.item:
                history.setdefault(item.key or item.nested_key[0], []).append(json.loads(item.value_json))
    names = {name for name in history if not name.startswith("_") and name != "trainer/global_step"}
    merge = {name for name in names if name.startswith("merge/")}
    tables = {"val/images", "val/confusion_matrix_table", "val/accuracy_by_class_table"}
    assert names - merge == tables | {
        *("train/loss", "train/top1", "val/loss", "val/top1", "val/top5", "lr", "activation_lambda", "epoch")
    }
    assert {"merge/max_logit_difference_float32", "merge/max_logit_difference_float64", "merge/macs_merged"} <= merge
    assert history["activation_lambda"][0] == 0
    assert history["activation_lambda"][-1] == 1
    assert len(history["val/top1"]) == 20


def test_the_environment_goes_over_files_and_flags_over_the_environment(tiny_config, fathom, tmp_path, monkeypatch):
    variables = {"WANDB_PROJECT": "mine", "WANDB_TAGS": "a, b", "WANDB_NAME": "one", "WANDB_NOTES": "of mine"}
    for name, value in {**variables, "WANDB_MODE": "dryrun", "WANDB_RUN_GROUP": "seeds"}.items():
        monkeypatch.setenv(name, value)
    runs = ("--trainer.default_root_dir", tmp_path / "runs")
    assert fathom("fit", "--config", tiny_config, *runs, "--wandb.group", "others") == (0, "")
    assert os.environ["WANDB_MODE"] == "dryrun"
    (file,) = tmp_path.glob("runs/tiny/*/wandb/offline-run-*/run-*.wandb")
    run = the_run(whole_records(file))
    assert (run.project, run.display_name, run.notes, list(run.tags)) == ("mine", "one", "of mine", ["a", "b"])
    assert run.run_group == "others"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "off") == (0, "")
    assert list((tmp_path / "off").rglob("wandb")) == []
    monkeypatch.setenv("WANDB_MODE", "onlin")
    code, sentence = fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "none")
    assert (code, sentence) == (1, "WANDB_MODE is onlin; set it to offline, online or disabled")


def test_analyses_heed_the_environment(tiny_run, fathom, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    lesion = ("lesion", tiny_run, "--images", "16", "--draws", "1", "--sizes", "[1]", "--out", tmp_path / "out")
    assert fathom(*lesion)[0] == 0
    assert list(tmp_path.rglob("wandb")) == []


def test_a_prediction_is_no_run_of_wandb(tiny_run, fathom, tmp_path):
    root = ("--trainer.default_root_dir", tmp_path, "--wandb.mode", "offline")
    assert fathom("predict", "--ckpt_path", tiny_run, *root) == (0, "")
    assert list(tmp_path.rglob("predictions*"))
    assert list(tmp_path.rglob("wandb")) == []


def test_a_diverged_run_raises_an_alert_and_a_switch_keeps_checkpoints_here(tiny_config, fathom, tmp_path):
    flags = ("--trainer.default_root_dir", tmp_path, "--wandb.mode", "offline", "--wandb.artifacts", "false")
    assert fathom("fit", "--config", tiny_config, *flags) == (0, "")
    (path,) = tmp_path.glob("*/*/wandb/offline-run-*/*.wandb")
    recorded = whole_records(path)
    assert "model" not in [artifact.type for artifact in artifacts(recorded)]
    assert not any(record.HasField("alert") for record in recorded)
    flags = ("--trainer.default_root_dir", tmp_path / "diverged", "--wandb.mode", "offline", "--model.lr", "1e30")
    code, sentence = fathom("fit", "--config", tiny_config, *flags)
    assert code == 1
    (path,) = (tmp_path / "diverged").glob("*/*/wandb/offline-run-*/*.wandb")
    (alert,) = (record.alert for record in whole_records(path) if record.HasField("alert"))
    assert alert.level == "ERROR"
    assert alert.text == sentence


def panel_keys(view):
    """The metrics, patterns of metrics and media that the panels of a workspace name."""
    for section in view["spec"]["section"]["panelBankConfig"]["sections"]:
        for config in (panel["config"] for panel in section["panels"]):
            if section["name"] != "Transfer":  # see tests/system/test_transfer.py
                yield from (name.removeprefix("summary_metrics.") for name in config.get("metrics", []))
                yield from (config[name] for name in ("xAxis", "metricRegex") if name in config)
                yield from config.get("mediaKeys", [])


def test_every_panel_of_a_dashboard_names_what_a_run_logs(
    offline_run, offline_test, tiny_config, tiny_run, fathom, tmp_path, monkeypatch
):
    pytest.importorskip("wandb_workspaces")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    out = tmp_path / "workspaces.json"
    assert fathom("dashboard", "--entity", "me", "--out", out) == (0, "")
    views = json.loads(out.read_text())
    assert {view["project"] for view in views.values()} == {"mine"}
    assert {"resnet", "stochastic_depth", "vanillanet", "transfer"} <= views.keys()
    claims = views["vanillanet"]["spec"]["section"]["panelBankConfig"]["sections"][-1]["panels"][0]["config"]["value"]
    assert claims.count("\n| V") > 5

    folder, keep = tmp_path / "runs", ("--wandb.artifacts", "false", "--wandb.mode", "offline")
    flags = ("--trainer.log_every_n_steps", "1", "--data.mixup_alpha", "0.2", "--trainer.default_root_dir", folder)
    callbacks = [word for name in ("StochasticDepth", "GradientStatistics") for word in ("--trainer.callbacks+", name)]
    assert fathom("fit", "--config", tiny_config, *flags, *callbacks, *keep) == (0, "")
    lesion = ("lesion", tiny_run, "--images", "16", "--draws", "1", "--sizes", "[1]", "--out", tmp_path / "lesion")
    assert fathom(*lesion) == (0, "")
    found = [offline_run[1], offline_test[1], *map(whole_records, tmp_path.rglob("run-*.wandb"))]
    assert len(found) == 4
    history = [record.history.item for recorded in found for record in recorded if record.HasField("history")]
    logged = {item.key or item.nested_key[0] for items in history for item in items}
    named = {name for view in views.values() for name in panel_keys(view)}
    assert len(named) > 20
    assert {name for name in named if not any(re.fullmatch(name, key) for key in logged)} == set()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vanilanet", "--out", "x"], "there is no paper 'vanilanet'; did you mean vanillanet?"),
        (["--projct", "x"], "fathom dashboard does not take --projct: --help has its flags"),
        (["resnet"], "see to the network and `wandb login`, or write the specification with --out FILE"),
    ],
)
def test_mistakes_with_a_dashboard_are_one_sentence(words, sentence, fathom, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    refused = ConnectionRefusedError("refused")
    monkeypatch.setattr("experiments.runs.wandb_logger.see_server", lambda: (_ for _ in ()).throw(refused))
    code, said = fathom("dashboard", *words)
    assert code == 1
    assert said.endswith(sentence)


def test_a_dashboard_without_its_package_says_how_to_get_it(fathom, monkeypatch):
    monkeypatch.setattr("experiments.commands.dashboard.find_spec", lambda _: None)
    assert fathom("dashboard", "--out", "x") == (
        1,
        "a dashboard needs wandb-workspaces: pip install 'fathom-depth[dashboard]'",
    )
