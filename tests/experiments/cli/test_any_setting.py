"""Settings at random: each is taken, or refused in one sentence before anything is trained or written."""

import copy
import random

import pytest
import yaml

from experiments.__main__ import main

NAN, INF = float("nan"), float("inf")
VALUES = (
    *(None, True, False, 0, 1, -1, 2, -7, 10**9, 2**32, 2**63, 10**30, 0.5, -0.5, 1e-300, 1e300, NAN, INF, -INF),
    *("", "x", "nan", "1e400", "a.b.C", "timm:", "timm:nothing", "~", "/", "lit_models.VanillaNet", "7 8", "é\u200b"),
    *([], [1], [None], ["x"], [[]], [NAN, 1], {}, {"a": 1}, {"class_path": "x"}, {"class_path": None}),
    *({"class_path": "lit_models.VanillaNet", "init_args": None}, {"init_args": {}}, [{"class_path": 3}]),
)
CALLBACKS = ("StochasticDepth", "LearningRateWarmup", "WeightAveraging", "ActivationAnnealing", "MergeAtFitEnd")
SETTINGS = (
    *(("seed_everything",), ("name",), ("model",), ("data",), ("trainer",), ("wandb",), ("best_checkpoint",)),
    *(("model", name) for name in ("class_path", "init_args")),
    *(("model", "init_args", name) for name in ("net", "optimizer", "lr", "lr_batch_size", "weight_decay", "momentum")),
    *(("model", "init_args", name) for name in ("layer_decay", "optimizer_args", "schedule", "milestones", "min_lr")),
    *(("model", "init_args", name) for name in ("loss", "label_smoothing", "smooth_over", "aux_weight", "unknown")),
    *(("model", "init_args", "net", "init_args", name) for name in ("depth", "width", "shortcut", "unknown")),
    *(("data", "init_args", name) for name in ("image_size", "batch_size", "eval_batch_size", "train_size", "cutout")),
    *(("data", "init_args", name) for name in ("val_fraction", "train_fraction", "mixup_alpha", "cutmix_alpha")),
    *(("data", "init_args", name) for name in ("mix_prob", "mix_off_epochs", "num_workers", "erasing", "unknown")),
    *(("trainer", name) for name in ("max_epochs", "max_steps", "max_time", "precision", "accelerator", "devices")),
    *(("trainer", name) for name in ("callbacks", "val_check_interval", "check_val_every_n_epoch")),
    *(
        ("trainer", name)
        for name in ("limit_train_batches", "limit_val_batches", "accumulate_grad_batches", "strategy")
    ),
    *(
        ("trainer", name)
        for name in ("gradient_clip_val", "overfit_batches", "min_epochs", "default_root_dir", "profiler")
    ),
    *(("trainer", name) for name in ("gradient_clip_algorithm", "benchmark", "detect_anomaly", "plugins", "unknown")),
    *(("best_checkpoint", name) for name in ("monitor", "mode", "save_top_k", "filename", "every_n_epochs")),
    *(("last_checkpoint", name) for name in ("every_n_steps", "every_minutes")),
    *(("wandb", name) for name in ("mode", "project", "entity", "group", "tags", "name", "unknown")),
    *(("trainer", "callbacks", 0, "init_args", name) for name in ("survival_prob", "ramp_epochs", "seed", "epochs")),
    *(("trainer", "callbacks", 0, "init_args", name) for name in ("steps", "decay", "mode", "shape", "unknown")),
)


def changed(config, rng):
    """``config`` with one setting of another value, and that setting as it is named in a sentence."""
    config, path, value = copy.deepcopy(config), rng.choice(SETTINGS), rng.choice(VALUES)
    if path[:3] == ("trainer", "callbacks", 0):
        config["trainer"]["callbacks"] = [{"class_path": rng.choice(CALLBACKS), "init_args": {}}]
    place = config
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[path[-1]] = value
    return config, path, value


@pytest.mark.parametrize("seed", range(3))
def test_every_setting_is_taken_or_refused_in_a_sentence(seed, tiny_config, tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    rng, tiny = random.Random(seed), yaml.safe_load(tiny_config.read_text())
    refused = 0
    for _ in range(20):
        config, path, value = changed(tiny, rng)
        name = tmp_path / "changed.yaml"
        name.write_text(yaml.safe_dump(config))
        what = f"{path} = {value!r}"
        code = main(["explain", "--config", str(name)])
        error = capsys.readouterr().err
        sentences = [line for line in error.splitlines() if line.startswith("fathom: ")]
        assert "Traceback" not in error, what
        assert len(sentences) == (code != 0), what
        assert code in (0, 1, 2), what
        if code:
            refused += 1
            known = {str(word) for word in path} | {str(name)}
            known |= {"class", *config.get("trainer", {})} if isinstance(config.get("trainer"), dict) else set()
            assert any(word in sentences[0] for word in known), f"{what}: {sentences[0]}"
            assert len(sentences[0]) < 500, what
        assert list((tmp_path / "work").iterdir()) == [], what
    assert refused > 5
