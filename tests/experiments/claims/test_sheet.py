"""The claims as they are shipped, and the pages that follow from them."""

import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.claims import analyses, exact, timing
from experiments.claims.grading import grade
from experiments.claims.pages import Pages
from experiments.claims.rows import TIMINGS, TRAININGS, Ledger
from experiments.claims.sheet import read_sheet
from experiments.claims.statistics import Grade, Interval
from experiments.cli.recipes import recipes
from lit_models import CIFARResNet
from lit_models.surgery.links import links

EXACT = {"G1", "G2", "G15", "S13", "S15", "E6", "E10", "E14", "B7a", "B10a", "V8", "V10", "V11"}
TIME = {"S9", "S12", "B6", "G3t", "G3w", "V7", "V9"}


@pytest.fixture(scope="module")
def sheet():
    return read_sheet()


def test_no_claim_is_left_out(sheet):
    of = {kind: {claim.id for claim in sheet.claims.values() if claim.statistic == kind} for kind in ("exact", "time")}
    assert of == {"exact": EXACT, "time": TIME}
    papers = Counter(re.match("[A-Z]", name)[0] for name in sheet.claims)
    assert papers.keys() == set("GSEBV")
    for letter, last in {"G": 15, "S": 15, "E": 14, "B": 16, "V": 13}.items():
        numbers = {int(re.match(r"[A-Z](\d+)", name)[1]) for name in sheet.claims if name[0] == letter}
        assert numbers == set(range(1, last + 1))


def test_every_claim_can_be_graded_or_says_its_price(sheet):
    for claim in sheet.claims.values():
        assert claim.papers_value
        assert claim.source
        if claim.statistic == "none":
            assert claim.price, claim.id
            assert claim.reason, claim.id
        if claim.statistic in ("exact", "time"):
            module, _, function = claim.function.partition(":")
            assert hasattr({"exact": exact, "timing": timing}[module], function), claim.id
        if claim.analysis:
            assert hasattr(analyses, claim.analysis[0]), claim.id
        if claim.statistic == "contrast":
            assert abs(sum(claim.arms.values())) < 1e-9, claim.id
            assert claim.margin > 0, claim.id
        for arm in claim.arms:
            assert sheet.arms[arm].minutes > 0


def test_claims_are_no_recipes():
    assert not {"claims", "regimes"} & recipes().keys()


def test_every_arm_is_a_recipe_of_its_own(sheet):
    """Of a few, as each takes a second; two names for one training would count it twice."""
    ledger = Ledger(sheet)
    names = ["resnet20", "plain20", "resnet20_step", "resnet20_float32", "vanilla6_n3", "vanilla6_n1", "resnet20_s"]
    assert len({ledger.recipe(sheet.arms[name]) for name in names}) == len(names)


def test_check_passes_as_shipped(fathom):
    """The thirteen exact claims hold, and every page is what the stored rows say."""
    assert fathom("reproduce", "--check") == (0, "")


def test_a_page_that_was_edited_is_found(sheet):
    pages = Pages(Ledger(sheet))
    page = pages.folder / "README.md"
    assert pages.drift() == []
    pages.texts[page] = pages.texts[page].replace("held", "HELD")
    assert pages.drift() == [page]


def test_names_that_are_no_claims(fathom):
    code, sentence = fathom("reproduce", "G99", "--list")
    assert code == 1
    assert "no claim or paper 'G99'" in sentence
    code, sentence = fathom("reproduce", "--budget", "soon", "--list")
    assert code == 2
    assert "soon is no time" in sentence


def test_a_factor_changes_less_the_nearer_it_is_to_one(sheet):
    """On either side of 1."""
    claim, ledger = sheet.claims["G13"], Ledger(sheet)
    factors = {"resnet20": [0.95, 1.05, 1.05], "plain20": [0.8, 1.25, 0.8]}
    ledger.values = lambda claim, arm: factors[arm.id]
    assert grade(claim, ledger).verdict == "held"
    factors["resnet20"][0] = 0.8
    assert grade(claim, ledger).verdict == "undecided"


def test_every_row_of_a_page_has_the_cells_of_its_table(sheet):
    """A | in a sentence of the sheet would make two of one."""
    for text in Pages(Ledger(sheet)).texts.values():
        cells = 0
        for line in text.splitlines():
            cells = (cells or line.count("|")) if line.startswith("|") else 0
            assert line.count("|") == cells or not cells, line


@pytest.mark.parametrize(
    ("interval", "cell"),
    [
        ((0.9984, 0.998, 0.999), "R² 0.998 (0.998 to 0.999)"),
        ((184.9, 179.95, 197.32), "R² 185 (180 to 197)"),
        ((-2.6, -30.0, 0.0), "R² −2.6 (−30.0 to 0.0)"),
    ],
)
def test_numbers_have_three_significant_digits(sheet, interval, cell):
    pages = Pages(Ledger(sheet))
    pages.grades["E7"] = Grade("held", Interval(*interval))
    assert pages.ours(sheet.claims["E7"]) == cell


def test_what_would_decide_is_said(sheet):
    """The next look that would, that none would, or that none is left."""
    pages = Pages(Ledger(sheet))
    pages.ledger.rows[TRAININGS] = []
    of_three, of_one = sheet.claims["S1n"], sheet.claims["V2b"]
    assert (of_three.looks, of_one.looks) == ((3, 5, 8), (3,))
    for claim, decides, said in [(of_three, 2, ": 8 seeds would decide"), (of_three, 0, ": 8 seeds would not decide")]:
        pages.grades[claim.id] = Grade("undecided", Interval(0, -1, 1), (3, 3), decides)
        assert pages.verdict(claim) == f"undecided{said}"
    pages = Pages(Ledger(sheet))
    pages.grades[of_one.id] = Grade("undecided", Interval(0, -1, 1), (3, 3))
    assert pages.verdict(of_one) == "undecided, out of looks"


def test_a_time_says_what_else_was_measured_and_nothing_run_has_no_scale(sheet):
    pages = Pages(Ledger(sheet))
    words = "0.78 of the time for 0.75 of the work"
    row = {"claim": "S9", "low": "0.01", "value": "0.02", "high": "0.03", "words": words, "hardware": "a machine"}
    pages.ledger.rows[TIMINGS] = [row]
    table = {line.split(" | ")[0]: line for line in pages._table("stochastic_depth").splitlines()}
    assert f"above the share of the work: {words} | T: " in table["| S9"]
    assert "; a machine | – | **held**" in table["| S9"]
    assert " | – | – | – | not run: " in table["| S3"]


def test_a_fall_of_the_median_counts_with_its_size(monkeypatch):
    """One more block takes 20 points off where the medians have a range of 50: no error code, and no rise alone."""
    medians = np.array([0.2, 0.2, 0.3, 0.4, 0.5, 0.3, 0.4, 0.5, 0.6, 0.7])
    monkeypatch.setattr(analyses, "lesion_errors", lambda *_: np.append(medians[0], np.repeat(medians[1:], 10)))
    net = CIFARResNet(56, width=1)
    subject = SimpleNamespace(net=net, links=links(net), batches=lambda images: [])
    assert analyses.many_lesions(subject, None) == {"largest_change": pytest.approx(0.2 / 0.5)}
