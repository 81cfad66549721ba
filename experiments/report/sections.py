"""What a report says of one or several runs: sentences, tables and charts, without their looks."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from matplotlib.ticker import EngFormatter

from experiments.report.charts import COLOURS, Chart, Line
from experiments.report.run_files import RunFiles, read_table
from experiments.runs.metric_names import metric_name
from experiments.runs.settings import settings

Rows = list[tuple[str, Any]]

_OPTIMIZATION = ("lr", "lr_batch_size", "schedule", "milestones", "weight_decay", "momentum", "label_smoothing", "loss")
_AUGMENTATION = ("mixup_alpha", "cutmix_alpha", "train_fraction", "train_size")


def what_was_run(run: RunFiles) -> str:
    """One paragraph."""
    net = described(run.setting("model.init_args.net") or run.setting("model") or "a network")
    data = _short(run.setting("data.class_path") or run.summary.get("data") or "unknown data")
    summary = run.summary
    counts = [f"{summary['train_images']:,} images"] if summary.get("train_images") else []
    counts += [f"{summary['val_images']:,} for validation"] if summary.get("val_images") else []
    counts += [f"batches of {batch}"] if (batch := run.setting("data.init_args.batch_size")) else []
    text = f"{net}, trained on {data}" + (f" ({', '.join(counts)})" if counts else "")
    if epochs := run.setting("trainer.max_epochs"):
        text += f" for {_count(epochs, 'epoch')}"
    if optimizer := run.setting("model.init_args.optimizer"):
        text += f" with {optimizer}"
    given = [
        f"{name.replace('_', ' ')} {_plain(value)}"
        for part, names in (("model", _OPTIMIZATION), ("data", _AUGMENTATION))
        for name in names
        if (value := run.setting(f"{part}.init_args.{name}")) not in (None, False, 0, 0.0, 1.0, [])
    ]
    text += f" ({', '.join(given)})" if given else ""
    callbacks = run.setting("trainer.callbacks")
    if isinstance(callbacks, list) and callbacks:
        text += "; callbacks: " + ", ".join(described(callback) for callback in callbacks)
    return f"{text}. {how_it_ended(run)}"


def how_it_ended(run: RunFiles) -> str:
    """A sentence."""
    summary = run.summary
    if not summary:
        return "It left no summary: it was killed before its training began, or an old version wrote it."
    status, epochs = summary.get("status"), summary.get("epochs", 0)
    if status == "training":
        seen = max((epoch + 1 for epoch in run.metrics.get("epoch", []) if epoch is not None), default=0)
        return f"It is still running, or was killed: its last epoch with metrics is {seen:g}."
    after = f"after {_count(epochs, 'epoch')} in {duration(summary.get('seconds', 0))}"
    resumed = f", resumed {_count(summary['resumed'], 'time')}" if summary.get("resumed") else ""
    failed = f": {summary['error']}" if summary.get("error") else ""
    verb = {"finished": "It finished", "interrupted": "It was interrupted", "failed": "It failed"}
    return f"{verb.get(str(status), f'Its status is {status},')} {after}{resumed}{failed}."


def described(spec: Any) -> str:
    """A class with the arguments that are set, among them other classes."""
    if not isinstance(spec, dict):
        return _short(spec)
    arguments = spec.get("init_args") or {}
    said = [
        f"{name.replace('_', ' ')} {described(value) if isinstance(value, dict) else _plain(value)}"
        for name, value in arguments.items()
        if value not in (None, False, [], {}) and (not isinstance(value, dict) or "class_path" in value)
    ]
    return _short(spec.get("class_path")) + (f" ({', '.join(said)})" if said else "")


def headline(run: RunFiles) -> Rows:
    """The few numbers that are looked for first."""
    rows: Rows = []
    best = run.summary.get("best")
    if isinstance(best, dict) and "value" in best:
        rows.append((f"best {metric_name(best.get('metric', ''))}", _score(str(best.get("metric")), best["value"])))
    elif found := _best(run):
        rows.append((f"best {metric_name(found[0])}", f"{_score(*found[:2])}"))
    for test in run.tests[-1:]:
        rows += [
            (metric_name(name), _score(name, value)) for name, value in test["metrics"].items() if "loss" not in name
        ][:1]
    for key, name in (("parameters", "parameters"), ("macs", "multiply-adds")):
        if isinstance(value := run.summary.get(key), int):
            rows.append((name, EngFormatter(places=2, sep=" ")(value).rstrip()))
    if run.summary.get("seconds"):
        rows.append(("training time", duration(run.summary["seconds"])))
    return rows


def _best(run: RunFiles) -> tuple[str, float] | None:
    """Of the monitored metric, for runs whose summary does not say it."""
    monitor = run.setting("best_checkpoint.monitor")
    values = [value for _, value in run.by_epoch(str(monitor))]
    if not values:
        return None
    return str(monitor), (min if run.setting("best_checkpoint.mode") == "min" else max)(values)


def curves(runs: Sequence[RunFiles]) -> list[Chart]:
    """Metrics of training (dashed) and validation by epoch, then what has the epoch or step as its time."""
    columns = list(dict.fromkeys(column for run in runs for column in run.metrics))
    scores = dict.fromkeys(
        column.partition("/")[2]
        for column in columns
        if column.startswith(("val/", "train/")) and column.count("/") == 1
    )
    charts = []
    for score in sorted(scores, key=lambda score: (score != "loss", score != "top1", score)):
        lines = [
            Line(f"{_prefix(run, runs)}{part}", points, number, dashed=name == "train")
            for number, run in enumerate(runs)
            for name, part in (("val", "validation"), ("train", "training"))
            if (points := run.by_epoch(f"{name}/{score}"))
        ]
        charts.append(Chart(_title(score), "epoch", lines, percent=score.startswith(("top", "mixed"))))
    charts += _by_class(runs, columns)
    for title, names in (
        ("Learning rate", [column for column in columns if column == "lr" or column.startswith("lr/")]),
        ("λ of the activations", ["activation_lambda"]),
    ):
        lines = [
            Line(f"{_prefix(run, runs)}{name}", points, number, dashed=bool(i))
            for number, run in enumerate(runs)
            for i, name in enumerate(names)
            if (points := run.by_step(name))
        ]
        charts.append(Chart(title, "step", lines, steps=title.startswith("λ")))
    return _with_points([*charts, *_depth(runs)])


def _by_class(runs: Sequence[RunFiles], columns: Sequence[str]) -> Iterator[Chart]:
    """What a detector or a segmenter has for each class; of many, for as many as can be told apart."""
    for run in runs:
        for score in ("ap", "mask_ap", "iou"):
            names = sorted(column for column in columns if column.startswith(f"val/{score}/"))
            lines = [
                Line(name.partition(f"/{score}/")[2], run.by_epoch(name), i, dashed=i >= COLOURS)
                for i, name in enumerate(names[: 2 * COLOURS])
            ]
            yield Chart(f"{_prefix(run, runs)}{metric_name(score)} by class", "epoch", lines)


def _depth(runs: Sequence[RunFiles]) -> Iterator[Chart]:
    """Stochastic depth, and the gradients of each stage."""
    yield Chart(
        "Blocks in a step, of stochastic depth",
        "epoch",
        [
            Line(f"{_prefix(run, runs)}mean", run.by_epoch("stochastic_depth/effective_depth"), i)
            for i, run in enumerate(runs)
        ],
    )
    yield Chart(
        "Work in a step, of that of all blocks",
        "epoch",
        [
            Line(f"{_prefix(run, runs)}{kind}", run.by_epoch(f"stochastic_depth/{kind}_work"), i, kind == "planned")
            for i, run in enumerate(runs)
            for kind in ("executed", "planned")
        ],
        percent=True,
    )
    for run in runs:
        stages = [name for name in run.metrics if name.startswith("gradient_norm/")]
        lines = [Line(name.partition("/")[2], run.by_epoch(name), i) for i, name in enumerate(stages)]
        yield Chart(f"{_prefix(run, runs)}Gradient norms", "epoch", lines, log=True)


def survival(runs: Sequence[RunFiles]) -> list[Chart]:
    """p_l of each block, as the last checkpoint has it, where one is below 1."""
    from lit_models import CheckpointError
    from lit_models.checkpoints import read_checkpoint

    lines = []
    for number, run in enumerate(runs):
        try:
            weights = read_checkpoint(run.path / "checkpoints" / "last.ckpt").get("state_dict", {})
        except (CheckpointError, OSError):
            continue
        found = [float(value) for name, value in weights.items() if name.endswith("survival_prob")]
        if any(value < 1 for value in found):
            lines.append(Line(f"{_prefix(run, runs)}p_l", [(i + 1.0, p) for i, p in enumerate(found)], number))
    return [Chart("Survival probability", "block", lines)] if lines else []


def analyses(runs: Sequence[RunFiles]) -> list[Chart]:
    """Lesions and paths, where they were made."""
    lesions = [(i, run, read_table(run.path / "unravel" / "lesion.csv")) for i, run in enumerate(runs)]
    paths = [(i, run, read_table(run.path / "unravel" / "paths.csv")) for i, run in enumerate(runs)]
    charts = []
    for number, run, rows in lesions:
        single = [row for row in rows if row["kind"] == "single" and not row.get("reestimated_on")]
        whole = [float(row["error"]) for row in rows if row["kind"] == "none"][:1]
        if single:
            points = [(float(i), float(row["error"])) for i, row in enumerate(single)]
            lines = [Line("one block deleted", points, number)]
            lines += [Line("whole network", [(x, error) for x, _ in points], number, True) for error in whole]
            note = f"{int(single[0]['images']):,} test images."
            names = [row["deleted"] for row in single]
            title = f"{_prefix(run, runs)}Top-1 error without one block"
            charts.append(Chart(title, "block", lines, note, percent=True, names=names))
    charts.append(
        Chart(
            "Top-1 error by blocks deleted at random",
            "blocks deleted",
            [Line(f"{_prefix(run, runs)}mean", _means(rows), number) for number, run, rows in lesions],
            percent=True,
        )
    )
    lines = [
        Line(
            f"{_prefix(run, runs)}{said}", [(float(row["length"]), float(row[column])) for row in rows], number, dashed
        )
        for number, run, rows in paths
        for said, column, dashed in (("of the gradient, exactly", "share", False), ("of all paths", "paths", True))
    ]
    charts.append(Chart("Shares by path length", "path length", lines, percent=True))
    return _with_points(charts)


def _with_points(charts: Iterable[Chart]) -> list[Chart]:
    """Without the lines of runs that have not logged them, and the charts of which no run has."""
    drawn = (chart._replace(lines=[line for line in chart.lines if line.points]) for chart in charts)
    return [chart for chart in drawn if chart.lines]


def _means(rows: list[dict[str, str]]) -> list[tuple[float, float]]:
    errors: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row["kind"] in ("none", "random") and not row.get("reestimated_on"):
            errors[float(row["size"])].append(float(row["error"]))
    return [(size, fmean(drawn)) for size, drawn in sorted(errors.items())] if len(errors) > 1 else []


def costs(run: RunFiles) -> Rows:
    """What training and evaluation take."""
    summary = run.summary
    rows: Rows = [
        ("parameters", summary.get("parameters")),
        ("multiply-adds an image", summary.get("macs")),
        ("training time", duration(summary["seconds"]) if summary.get("seconds") else None),
        ("time an epoch", duration(summary["seconds"] / summary["epochs"]) if summary.get("epochs") else None),
        ("optimizer steps", summary.get("steps")),
        ("precision", summary.get("precision")),
        ("hardware", summary.get("hardware")),
        ("devices", summary.get("devices")),
    ]
    if isinstance(depth := summary.get("stochastic_depth"), dict):
        rows += [
            (f"stochastic depth: {name.replace('_', ' ')}", value)
            for name, value in depth.items()
            if not isinstance(value, list)  # of which there is a chart
        ]
    return [(name, _plain(value)) for name, value in rows if value is not None]


def merge_proof(run: RunFiles) -> tuple[list[tuple[str, str, str]], Rows] | None:
    """What differs between the trained and the merged form, as rows of (what, trained, merged), and what must not."""
    merge = run.summary.get("merge")
    if not isinstance(merge, dict):
        return None
    pairs = [name.removesuffix("_trained") for name in merge if name.endswith("_trained")]
    compared = [
        (
            name.replace("macs", "multiply-adds an image").replace("_", " "),
            *(_plain(merge.get(f"{name}_{form}")) for form in ("trained", "merged")),
        )
        for name in pairs
    ]
    used = {f"{name}_{form}" for name in pairs for form in ("trained", "merged")}
    rest = [
        (name.replace("_", " "), f"{value:.2g}" if isinstance(value, float) else _plain(value))
        for name, value in merge.items()
        if name not in used
    ]
    return compared, rest


def tests(run: RunFiles) -> list[Rows]:
    """The metrics of each test."""
    return [[(metric_name(name), _score(name, value)) for name, value in test["metrics"].items()] for test in run.tests]


def provenance(run: RunFiles) -> Rows:
    """Where the run came from."""
    summary = run.summary
    commit = summary.get("commit")
    rows: Rows = [
        ("run directory", run.path),
        ("seed", summary.get("seed", run.setting("seed_everything"))),
        ("code", f"{commit}{', with uncommitted changes' if summary.get('dirty') else ''}" if commit else None),
        ("data", summary.get("data")),
        ("fingerprint of the data", summary.get("data_fingerprint")),
        ("began from", run.setting("ckpt_path") or run.setting("model.init_args.weights")),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items()) or None,
        ),
    ]
    return [(name, value) for name, value in rows if value is not None]


def commands(run: RunFiles) -> str:
    """The exact commands that began and resumed it, as far as they were recorded, and those that repeat it."""
    path = shlex.quote(str(run.path))
    began, *resumed = run.summary.get("commands") or [None]
    lines = ["# the exact command", began] if began else []
    lines += ["# resumed by", *resumed] if resumed else []
    lines += ["# trains it again with every setting, tests it, shows it"]
    lines += [f"fathom fit --config {path}/config.yaml", f"fathom test --ckpt_path {path}", f"fathom report {path}"]
    return "\n".join(lines)


def differences(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """Each setting in which the configurations differ, with its value in each run."""
    flat = [settings(run.config) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one)
    return [
        (name, [_plain(one.get(name)) for one in flat])
        for name in names
        if any(one.get(name) != flat[0].get(name) for one in flat[1:])
    ]


def _title(score: str) -> str:
    said = metric_name(score)
    return said if said.startswith("m") and said[1:2].isupper() else said[0].upper() + said[1:]


def duration(seconds: float) -> str:
    """Such as ``3.4 min``."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}" if isinstance(number, int) else f"{number} {what}s"


def _prefix(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    return f"{run.name}: " if len(runs) > 1 else ""


def _score(metric: str, value: Any) -> str:
    if isinstance(value, float) and "top" in metric:
        return f"{value:.2%}"
    return _plain(value)


def _short(name: Any) -> str:
    return str(name).rpartition(".")[2] if not str(name).startswith("timm:") else str(name)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "–"
    return str(value)
