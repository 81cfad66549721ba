"""Build a Weights & Biases workspace for each paper: its sections, axes and panels."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.errors import UsageError

PAPERS = {
    "googlenet": ("Training", "Unravel"),
    "resnet": ("Training", "Gradients", "Unravel"),
    "stochastic_depth": ("Training", "Stochastic depth", "Unravel"),
    "ensembles": ("Training", "Unravel", "Gradients"),
    "bag_of_tricks": ("Training", "Transfer"),
    "vanillanet": ("Training", "Annealing and merge"),
    "transfer": ("Transfer",),
}
"""Sections of each workspace; the claims follow where the paper has some."""


def dashboard(args: list[str]) -> None:
    """Build a workspace for each paper, or write what would be built.

    Raises:
        UsageError: for an unknown paper, where wandb-workspaces is not installed, or where the server can't be reached.
    """
    from experiments.cli.messages import did_you_mean
    from experiments.runs.wandb_environment import wandb_environment

    options, unknown = _parser().parse_known_args(args)
    if unknown:
        raise UsageError(f"fathom dashboard does not take {unknown[0]}: --help has its flags")
    papers = options.papers or list(PAPERS)
    for paper in papers:
        if paper not in PAPERS:
            known = did_you_mean(paper, PAPERS) or f": papers are {', '.join(PAPERS)}"
            raise UsageError(f"there is no paper {paper!r}{known}")
    if find_spec("wandb_workspaces") is None:
        raise UsageError("a dashboard needs wandb-workspaces: pip install 'fathom-depth[dashboard]'")
    environment = wandb_environment()
    project = options.project or environment.get("project", "fathom")
    entity = options.entity or environment.get("entity")
    if options.out is None:
        for paper in papers:
            print(_saved(paper, project, entity))
        return
    from experiments.internals import workspace_view
    from lit_models.files import atomic

    views = {paper: workspace_view(workspace(paper, project, entity or "")) for paper in papers}
    with atomic(options.out) as file:
        file.write(json.dumps(views, indent=2, ensure_ascii=False) + "\n")
    print(f"{options.out} has the specification of {len(views)} workspace{'s' * (len(views) > 1)}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="fathom dashboard",
        description="Build a Weights & Biases workspace for each paper: training, stochastic depth, annealing and"
        " merge, analyses, transfer, and the paper's claims, over what runs log. Each call makes new workspaces, and"
        " changes none. It needs pip install 'fathom-depth[dashboard]'.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"{', '.join(PAPERS)} (all)")
    parser.add_argument("--project", help="that the runs were logged to (WANDB_PROJECT, or fathom)")
    parser.add_argument("--entity", help="user or team (WANDB_ENTITY, or that of the login)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the specifications as JSON; nothing is sent, no login is needed"
    )
    return parser


def workspace(paper: str, project: str, entity: str) -> Any:
    """The workspace of a paper, which is saved nowhere yet."""
    import wandb_workspaces.workspaces as ws

    from experiments.claims.sheet import read_sheet

    sheet = read_sheet()
    sections = [ws.Section(name=name, panels=list(panels(name)), is_open=True) for name in PAPERS[paper]]
    if paper in sheet.titles:
        sections.append(ws.Section(name="Claims", panels=[claims(paper, sheet)], is_open=True))
    title = sheet.titles.get(paper, paper.capitalize())
    return ws.Workspace(entity=entity, project=project, name=f"Fathom: {title}", sections=sections)


def panels(section: str) -> Iterator[Any]:
    """The panels of a section."""
    wr: Any = import_module("wandb_workspaces.reports.v2")

    def by_epoch(title: str, *metrics: str, **options: Any) -> Any:
        return wr.LinePlot(title=title, x="epoch", y=list(metrics), title_x="epoch", **options)

    share: dict[str, Any] = {"range_y": (0, 1)}
    if section == "Training":
        yield by_epoch("Top-1", "val/top1", "train/top1", "train/mixed_top1", **share)
        yield by_epoch("Loss", "val/loss", "train/loss")
        yield by_epoch("Top-5", "val/top5", **share)
        yield wr.LinePlot(title="Learning rate", x="trainer/global_step", y=["lr"], title_x="optimizer step")
        yield wr.BarPlot(title="Test top-1", metrics=["test/top1"], range_x=(0, 1))
        yield wr.MediaBrowser(title="Validation images", media_keys=["val/images"])
        yield wr.RunComparer(diff_only="split")
    elif section == "Gradients":
        yield wr.LinePlot(title="Gradient norms", x="epoch", metric_regex="gradient_norm/.*", log_y=True)
        yield wr.LinePlot(title="Mean |gradient|", x="epoch", metric_regex="gradient_mean_abs/.*", log_y=True)
    elif section == "Stochastic depth":
        yield by_epoch("Blocks in a step", "stochastic_depth/effective_depth")
        yield by_epoch("Work of a step", "stochastic_depth/executed_work", "stochastic_depth/planned_work", **share)
        yield wr.MediaBrowser(title="Survival probabilities of the blocks", media_keys=["stochastic_depth/blocks"])
        yield from panels("Gradients")
    elif section == "Annealing and merge":
        yield by_epoch("λ of the activations", "activation_lambda", **share)
        yield by_epoch("Top-1", "val/top1", **share)
        yield wr.BarPlot(title="Parameters", metrics=["merge/parameters_trained", "merge/parameters_merged"])
        yield wr.BarPlot(title="Multiply-adds of an image", metrics=["merge/macs_trained", "merge/macs_merged"])
        yield wr.ScalarChart(title="Logit difference, float64", metric="merge/max_logit_difference_float64")
        yield wr.MediaBrowser(title="Report of the merge", media_keys=["merge/report"])
    elif section == "Unravel":
        yield wr.MediaBrowser(title="Lesions, paths and others", media_keys=["figure", "results"])
    elif section == "Transfer":
        yield by_epoch("mAP", "val/map", **share)
        yield by_epoch("Mean IoU", "val/miou", "val/pixel_accuracy", **share)
        yield wr.LinePlot(title="AP by class", x="epoch", metric_regex="val/ap/.*")
        yield wr.LinePlot(title="Mask AP by class", x="epoch", metric_regex="val/mask_ap/.*")
        yield wr.LinePlot(title="IoU by class", x="epoch", metric_regex="val/iou/.*")
        yield by_epoch("Training loss", "train/loss")
        yield wr.MediaBrowser(title="Validation images", media_keys=["val/pictures"])


def claims(paper: str, sheet: Any) -> Any:
    """A table of what the paper claims, and how each claim is decided."""
    wr: Any = import_module("wandb_workspaces.reports.v2")

    rows = [
        f"| {claim.id} | {claim.sentence} | {claim.papers_value} |"
        for claim in sheet.claims.values()
        if claim.paper == paper
    ]
    head = ["| | claim | paper |", "| --- | --- | --- |"]
    return wr.MarkdownPanel(markdown="\n".join([*head, *rows, "", f"`fathom reproduce {paper}` decides them."]))


def _saved(paper: str, project: str, entity: str | None) -> str:
    """The address of the new workspace."""
    import wandb

    from experiments.runs.wandb_logger import see_server

    try:
        see_server()
        return str(workspace(paper, project, entity or str(wandb.Api().default_entity)).save().url)
    except Exception as error:  # each of the client's layers has a family of its own
        raise UsageError(
            f"Weights & Biases can't save the workspace ({error}): see to the network and `wandb login`, or write the"
            " specification with --out FILE"
        ) from error
