"""The page, written whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments import __version__
from experiments.report import sections
from experiments.report.charts import HEIGHT, WIDTH
from experiments.report.predictions import Predictions, data_uri, predictions
from experiments.report.run_files import RunFiles
from lit_models.files import atomic

PICTURES = 18
"""In a report, of the first images and of the worst ones, over all runs."""
_PICTURE_WIDTH = 900


def write_page(runs: Sequence[RunFiles], images: int, out: Path) -> None:
    """Write the report of ``runs``; ``images`` test images are shown to each, none where it is 0."""
    page = render(runs, [evaluated(run, images, len(runs)) for run in runs])
    with atomic(out) as file:
        file.write(page)


def evaluated(run: RunFiles, images: int, runs: int) -> Predictions | str:
    """What the network says of test images, or why that is missing."""
    kind = str(run.setting("model.class_path")).rpartition(".")[2]
    if kind in ("Detector", "Segmenter"):
        return f"A confusion matrix is made of a classifier, and this run trained a {kind}."
    if not images:
        return "Confusion matrix and pictures were left out, with --images 0."
    found = predictions(run.path, images, max(PICTURES // runs, 3))
    if isinstance(found, str):
        return f"There are no confusion matrix and no pictures, as the network could not be asked: {found}"
    return found


def render(runs: Sequence[RunFiles], evaluations: Sequence[Predictions | str]) -> str:
    """The page as text. All that comes from a run is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: Any = environment.get_template("page.html")
    return page.render(
        runs=runs,
        evaluations=evaluations,
        say=sections,
        curves=sections.curves(runs) + sections.survival(runs),
        analyses=sections.analyses(runs),
        drawn_images=[validation_picture(run) for run in runs],
        width=WIDTH,
        height=HEIGHT,
        version=__version__,
    )


def validation_picture(run: RunFiles) -> str | None:
    """The newest picture that ``ValidationPictures`` drew, as an address that holds it."""
    from PIL import Image, UnidentifiedImageError

    drawn = sorted((run.path / "pictures").glob("epoch-*.png"))
    if not drawn:
        return None
    try:
        with Image.open(drawn[-1]) as file:
            picture = file.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError):
        return None
    picture.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
    return data_uri(picture)
