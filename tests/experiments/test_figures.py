"""How every figure looks: colours told apart by everybody, legends beside the data, a line below that says of what."""

from itertools import combinations
from math import comb

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.claims.figure import forest
from experiments.claims.grading import grade
from experiments.claims.rows import Ledger
from experiments.claims.sheet import read_sheet
from experiments.commands import ladder, transfer
from experiments.commands.compare import Group, Run, plot
from experiments.commands.explain import draw_curve
from experiments.figures import FORMATS, STYLE, house_style, save
from experiments.unravel import path_figures
from experiments.unravel.figures import PAPER, lesion_figure, reorder_figure
from experiments.unravel.path_figures import (
    ensemble_figure,
    gradients_figure,
    logit_gap_figure,
    paths_figure,
    responses_figure,
)
from experiments.unravel.path_summary import PathSummary
from experiments.unravel.source import Seen

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1, 1.08883])


def seen_with(deficiency, color):
    """CIELAB of a colour as it is seen."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(DEFICIENCIES[deficiency] @ linear, 0, 1) / WHITE
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(one, other):
    """The colour difference of CIE 142-2001, in which CIELAB's overrates saturated colours."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180
    lightness, chroma, hue = (l1 + l2) / 2 - 50, (c1 + c2) / 2, np.radians((h1 + turn / 2) % 360)
    t = 1 - 0.17 * np.cos(hue - np.radians(30)) + 0.24 * np.cos(2 * hue) + 0.32 * np.cos(3 * hue + np.radians(6))
    t -= 0.2 * np.cos(4 * hue - np.radians(63))
    dl = (l2 - l1) / (1 + 0.015 * lightness**2 / np.sqrt(20 + lightness**2))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2) / (1 + 0.015 * chroma * t)
    rotation = np.radians(60) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    blue = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(rotation)
    return np.sqrt(dl**2 + dc**2 + dh**2 + blue * dc * dh)


def smallest_difference(colors, deficiency):
    return min(ciede2000(*(seen_with(deficiency, color) for color in pair)) for pair in combinations(colors, 2))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_of_networks_are_told_apart_by_everybody(deficiency):
    assert ciede2000((50, 2.6772, -79.7751), (50, 0, -82.7485)) == pytest.approx(2.0425, abs=1e-4), "Sharma et al. 2005"
    with house_style():
        cycle = plt.rcParams["axes.prop_cycle"].by_key()
    assert len(cycle["color"]) == len(set(cycle["marker"])) >= 6
    assert smallest_difference(cycle["color"], deficiency) >= 20
    if deficiency != "none":
        assert smallest_difference([f"C{number}" for number in range(10)], deficiency) < 20, "matplotlib's own"


SEEN = Seen("CIFAR10", 10)
RANDOM = np.random.default_rng(0)


def records(network, count=20):
    """Columns of all tables that are drawn."""
    base = {"network": network, "fingerprint": "f", "images": "1000", "reestimated_on": "", "seed": "0", "draw": ""}
    return [base | {"error": str(0.2 + 0.7 * RANDOM.random()), "transition": str(int(i == 9))} for i in range(count)]


def lesions(network):
    kinds = [("none", 0, 1), ("single", 1, 20), ("random", 3, 5), ("random", 8, 5), ("run", 2, 19), ("run", 4, 17)]
    return [
        row | {"kind": kind, "size": str(size), "draw": str(draw) if kind == "random" else ""}
        for kind, size, count in kinds
        for draw, row in enumerate(records(network, count))
    ]


def two(rows):
    return {name: rows(name) for name in ("resnet56_cifar10", "plain20_cifar10")}


def with_columns(**columns):
    return lambda network: [
        row | {name: str(column(i)) for name, column in columns.items()} for i, row in enumerate(records(network))
    ]


def gradients(network):
    row = with_columns(depth=float, norm=lambda i: 1.1**i, slope=lambda i: 0.1)(network)
    return [r | {"weights": weights} for weights in ("initial", "trained") for r in row]


def gaps(network):
    rows = with_columns(percentile=lambda i: 5 * i, to_mean=float, to_largest=lambda i: i - 4)(network)
    return [rows[0], *rows]


def draw_paths(path):
    values = [np.exp(-np.arange(55) / k) for k in range(1, 10)]
    summary = PathSummary(*values)
    paths_figure(summary, {"1": summary, "2": summary, "3": summary}, "ResNet-110", path)


def runs(name):
    curves = {metric: {epoch: RANDOM.random() for epoch in range(5)} for metric in ("val/top1", "activation_lambda")}
    return Run(name, curves, {"classes": 10, "data": "Digits", "train_images": 64, "seed": 0}, {})


def draw_compared(path):
    groups = [Group(f"lr {lr}", [runs("a"), runs("b")]) for lr in range(8)]
    plot(groups, ["val/top1", "activation_lambda"], path)


def draw_ladder(path):
    ladder.draw_rungs({f"{i:02}_rung": [50 - i, 52 - i] for i in range(9)}, path)


def draw_effects(path):
    ladder.draw_effects({f"trick {i}": (i - 4, i - 5, i - 2) for i in range(11)}, 2, path)


def draw_transfer(path):
    facts = {"epochs": 12, "train_images": 100, "val_images": 100}
    rows = [
        {"backbone": name, "top1": top1, "task": task, "mode": mode, "seed": 0, "score": RANDOM.random()} | facts
        for name, top1 in (("random", ""), ("a", 0.5), ("b", 0.6))
        for task in ("detection", "segmentation")
        for mode in ("frozen", "fine-tuned")
    ]
    transfer.draw(rows, path)


def draw_claims(path):
    sheet = read_sheet()
    ledger = Ledger(sheet)
    claims = [claim for claim in sheet.claims.values() if claim.statistic != "exact"]
    forest(claims, {claim.id: grade(claim, ledger) for claim in claims}, path)


KINDS = {
    "lesion": lambda path: lesion_figure(two(lesions), path, SEEN),
    "one panel": lambda path: lesion_figure(two(lambda network: lesions(network)[:21]), path, SEEN),
    "reorder": lambda path: reorder_figure(two(with_columns(tau=lambda i: 1 - i / 40)), path, SEEN),
    "paths": draw_paths,
    "ensemble": lambda path: ensemble_figure(0.3, [0.6, 0.4, 0.3], [0.6, 0.5, 0.5], "ResNet-56", path, SEEN),
    "responses": lambda path: responses_figure(two(with_columns(std=lambda i: 1 / (i + 1))), path, SEEN),
    "gradients": lambda path: gradients_figure(two(gradients), path, SEEN),
    "logit_gap": lambda path: logit_gap_figure(two(gaps), 4.39, path, SEEN),
    "compare": draw_compared,
    "ladder": draw_ladder,
    "effects": draw_effects,
    "transfer": draw_transfer,
    "claims": draw_claims,
    "explain": lambda path: draw_curve(lambda step: 1 - step / 100, 0.1, 100, path),
}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A figure laid out as it is saved, without the file."""

    def draw(kind):
        figures = []
        monkeypatch.setattr(
            Figure, "savefig", lambda figure, *_, **__: figures.append(figure) or figure.draw_without_rendering()
        )
        KINDS[kind](tmp_path / "figure.png")
        (figure,) = figures
        return figure

    return draw


@pytest.mark.parametrize("kind", KINDS)
def test_no_legend_lies_on_data_nor_beyond_the_figure(kind, drawn):
    figure = drawn(kind)
    legends = [*figure.legends, *(axes.legend_ for axes in figure.axes if axes.legend_ is not None)]
    assert legends or kind in ("explain", "effects")
    panels = [axes.patch.get_window_extent() for axes in figure.axes]
    outlines = [legend.get_window_extent() for legend in legends]
    for outline in outlines:
        assert not any(outline.overlaps(panel) for panel in panels)
        assert figure.bbox.x0 - 1 <= outline.x0 <= outline.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 - 1 <= outline.y0 <= outline.y1 <= figure.bbox.y1 + 1
    assert not any(one.overlaps(other) for one, other in combinations(outlines, 2))
    if kind != "explain":
        note = figure._supxlabel.get_window_extent()
        assert note.x1 <= figure.bbox.x1
        assert not any(note.overlaps(panel) for panel in panels)
    assert all(axes.get_xlabel() for axes in figure.axes)


def test_a_colour_is_a_network_in_every_panel(drawn):
    figure = drawn("lesion")
    cycle = [to_rgb(color) for color in ("#0066bb", "#dd7700")]
    assert all({to_rgb(line.get_color()) for line in axes.lines} >= set(cycle) for axes in figure.axes)
    (legend,) = figure.legends
    named = dict(zip((text.get_text() for text in legend.texts), legend.legend_handles, strict=True))
    assert [to_rgb(named[name].get_color()) for name in ("resnet56 cifar10", "plain20 cifar10")] == cycle
    assert {"chance", "nothing deleted", "a block that halves the image"} <= named.keys()
    assert all(isinstance(axes.xaxis.get_major_locator(), MaxNLocator) for axes in figure.axes)
    for axes in figure.axes:
        assert any(np.allclose(line.get_ydata(), 0.9) for line in axes.lines), "chance"
    assert (
        figure._supxlabel.get_text()
        == "CIFAR10; 1,000 test images; 5 random draws of each number, seed 0; one training of each network"
    )


def test_the_papers_values_are_drawn_where_data_are_the_papers(drawn, monkeypatch):
    def of_paper(figure):
        return [
            {float(y) for line in axes.lines if line.get_color() == PAPER["color"] for y in line.get_ydata()}
            for axes in figure.axes
        ]

    figure = drawn("lesion")
    assert of_paper(figure) == [{0.061, 0.9}, {0.2}, set()]
    assert sum(text.get_text().startswith("paper: ") for text in figure.legends[0].texts) == 2
    monkeypatch.setitem(KINDS, "lesion", lambda path: lesion_figure(two(lesions), path, Seen("Digits", 10)))
    assert of_paper(drawn("lesion")) == [set(), set(), set()]


def test_what_is_set_is_drawn_as_steps_and_seeds_as_bands(drawn):
    top1, annealed = drawn("compare").axes
    assert {line.get_drawstyle() for line in annealed.lines} == {"steps-post"}
    assert annealed.get_ylabel() == "λ"
    assert top1.get_ylabel() == "validation top-1"
    assert len(top1.collections) == 8


def test_the_ending_chooses_the_format_and_none_is_all_three(tmp_path):
    with house_style():
        for name in ("one.svg", "all"):
            figure = Figure(figsize=(1, 1))
            figure.subplots().plot([1, 2])
            save(figure, tmp_path / "new" / name)
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == sorted(["one.svg", *(f"all{ending}" for ending in FORMATS)])
    assert "<dc:date>" not in (tmp_path / "new" / "one.svg").read_text(), "which would change a file that is the same"
    assert plt.imread(tmp_path / "new" / "all.png").shape[:2] == (200, 200)
    assert STYLE.is_file()


def test_letters_of_any_script_are_drawn_or_dots_that_are_told_of(tmp_path):
    figure = Figure()
    circled, unassigned = figure.text(0, 0, "class Ⓐ"), figure.text(0, 1, "\U0003fffd one")
    with pytest.warns(UserWarning, match="^no font of this system has \U0003fffd: dots stand for them") as told:
        save(figure, tmp_path / "figure.png")
    assert len(told) == 1  # and none by matplotlib, for a letter that it lacks
    assert (circled.get_text(), unassigned.get_text()) == ("class Ⓐ", "· one")


def test_the_effective_paths_are_those_of_the_paper(monkeypatch, tmp_path):
    """By C(n, k) · norm of single paths; by the exact sums where no path was sampled."""
    drawn = []
    monkeypatch.setattr(path_figures, "save", lambda figure, *_: drawn.append(figure))
    values = {name: np.ones(28) for name in PathSummary._fields} | {"norm": np.eye(28)[0] + 1e-9}
    for contribution in (np.eye(28)[3], np.full(28, np.nan)):
        paths_figure(PathSummary(**values | {"contribution": contribution}), {}, "", tmp_path / "paths.png")
    labels = [figure.axes[0].get_legend_handles_labels()[1] for figure in drawn]
    share = comb(22, 3) / comb(27, 3)
    assert f"{share:.2g} of the effective ones" in labels[0][0]
    assert "1 of the effective ones" in labels[1][0]
