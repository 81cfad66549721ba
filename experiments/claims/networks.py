"""What is kept of trained networks beside their rows: analyses, each done once, and a few of the networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from callbacks.run.run_summary import provenance
from experiments.claims.rows import ANALYSES, Ledger, store
from experiments.claims.sheet import Arm, Claim
from experiments.cli.pretrained import facts_of, keep_network
from experiments.unravel.records import Record
from experiments.unravel.source import open_subject
from lit_models import load_checkpoint


def lacking(claims: Sequence[Claim], ledger: Ledger) -> Iterator[tuple[Arm, str, Record]]:
    """Arm, analysis and stored training of each network that an analysis is missing of."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for claim in claims:
        if claim.analysis:
            for name in claim.arms:
                wanted.setdefault((name, claim.analysis[0]), set()).add(claim.analysis[1])
    for (name, analysis), quantities in wanted.items():
        arm = ledger.sheet.arms[name]
        measured = ledger.measured(arm, analysis)
        for row in ledger.trainings(arm):
            if not quantities <= measured[row["run"]].keys():
                yield arm, analysis, row


def analyse_network(ledger: Ledger, arm: Arm, analysis: str, training: Record, run: Path) -> None:
    """Do one analysis of a run's last weights and store a row for each of its quantities."""
    subject = open_subject(str(run / "checkpoints" / "last.ckpt"))
    quantities = getattr(import_module("experiments.claims.analyses"), analysis)(subject, run)
    identity = {
        "arm": arm.id,
        "seed": training["seed"],
        "analysis": analysis,
    }
    for quantity, value in quantities.items():
        record = {
            **identity,
            "quantity": quantity,
            "value": f"{value:.6g}",
            "checkpoint": subject.fingerprint(),
            "commit": str(provenance()["commit"] or "")[:12],
            "run": run.name,
        }
        store(ledger.sheet.root / arm.paper / ANALYSES, record)


def unkept(ledger: Ledger) -> Iterator[tuple[Arm, Record]]:
    """Arm and stored training of each network that is to come with Fathom and does not, or in an older training."""
    for name in ledger.sheet.pretrained:
        arm = ledger.sheet.arms[name]
        for row in ledger.trainings(arm):
            if row["seed"] == "0" and facts_of(_pretrained_file(ledger, arm)).get("run") != row["run"]:
                yield arm, row


def keep_weights(ledger: Ledger, arm: Arm, training: Record, run: Path) -> None:
    """Let a run's last weights come with Fathom."""
    facts = {
        "trained": arm.regime.scale,
        "arm": f"{arm.id}, seed {training['seed']}, of the claims",
        "test error": f"{float(training['test_error']):.2f}%, before its kernels were rounded to float16",
        "data": training["data"],
        "commit": training["commit"],
        "run": training["run"],
    }
    data = arm.settings["data"]["class_path"].rpartition(".")[2]
    net = load_checkpoint(run / "checkpoints" / "last.ckpt").net
    keep_network(net, _pretrained_file(ledger, arm), data, facts)


def _pretrained_file(ledger: Ledger, arm: Arm) -> Path:
    return ledger.sheet.root / arm.paper / "pretrained" / f"{ledger.sheet.pretrained[arm.id]}.safetensors"
