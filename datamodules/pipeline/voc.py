"""Annotations of Pascal VOC (Everingham et al. 2010), and of any folder in its layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.folder import EXTENSIONS
from datamodules.pipeline.names import image_files, read_names
from datamodules.pipeline.objects import AnnotatedImage, Objects, gather


def read_voc(root: str | Path, parts: Sequence[str], class_names: Sequence[str] | None = None) -> Objects:
    """The images of some image sets, and their objects.

    A folder in VOC's layout has the images in ``JPEGImages/``, one XML file for each of them in ``Annotations/``, and
    in ``ImageSets/Main/<set>.txt`` the stems of the files of an image set.

    Args:
        root: the folder of ``VOCdevkit/``, that folder, or one in VOC's layout.
        parts: image sets, which are joined, such as ``VOC2007/trainval`` and ``VOC2012/trainval``; without the folder's
            name if ``root`` itself is in VOC's layout.
        class_names: in the order of their labels (default: those that occur, in code-point order, which is VOC's own).

    Raises:
        MisconfigurationException: what is broken, missing or contradictory, in one sentence that names the file.
    """
    root = Path(root).expanduser()
    root = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    read = [image for part in parts for image in _annotations(root, part)]
    names = sorted({name for _, objects in read for name, *_ in objects}) if class_names is None else list(class_names)
    if not names:
        raise MisconfigurationException(
            f"No image of {', '.join(parts)} in {root} has an object; check the image sets."
        )
    return gather(root, (_labelled(image, objects, names) for image, objects in read), names)


_Object = tuple[str, bool, tuple[float, float, float, float]]


def read_annotation(path: Path) -> tuple[int, int, list[_Object]]:
    """Height and width of the image, and name, difficulty and box of each object.

    VOC counts pixels from 1: all four coordinates are lowered by 1.

    Raises:
        MisconfigurationException: the file is missing, is no XML, or has no size or box where there should be one.
    """
    try:
        top = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise MisconfigurationException(
            f"{path} is missing; an image without objects needs an XML file too."
        ) from error
    except ElementTree.ParseError as error:
        raise MisconfigurationException(f"{path} is no whole XML file ({error}); replace it.") from error
    try:
        height, width = (int(_text(top, f"size/{side}")) for side in ("height", "width"))
        if min(height, width) < 1:
            raise ValueError(f"its size is {width}×{height}")
        objects = []
        for element in top.findall("object"):
            x1, y1, x2, y2 = (float(_text(element, f"bndbox/{key}")) - 1 for key in ("xmin", "ymin", "xmax", "ymax"))
            difficult = (element.findtext("difficult") or "0").strip() not in ("", "0")
            objects.append((_text(element, "name"), difficult, (x1, y1, x2, y2)))
    except ValueError as error:
        raise MisconfigurationException(f"{path} is no annotation in VOC's format: {error}; correct it.") from error
    return height, width, objects


def _text(element: ElementTree.Element, name: str) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"it has no {name}")
    return text


def _annotations(root: Path, part: str) -> Iterator[tuple[AnnotatedImage, list[_Object]]]:
    folder, _, image_set = part.rpartition("/")
    base = root / folder
    names_file = base / "ImageSets" / "Main" / f"{image_set}.txt"
    files = image_files(base / "JPEGImages", EXTENSIONS)
    for stem in read_names(names_file, files, f"{os.path.join(folder, 'JPEGImages')}"):
        path = base / "Annotations" / f"{stem}.xml"
        height, width, objects = read_annotation(path)
        file = os.path.join(folder, "JPEGImages", files[stem])
        boxes = np.array([box for *_, box in objects], dtype=np.float64).reshape(-1, 4)
        difficult = [difficult for _, difficult, _ in objects]
        yield AnnotatedImage(file, stem, height, width, boxes, [], difficult, str(path)), objects


def _labelled(image: AnnotatedImage, objects: list[_Object], class_names: Sequence[str]) -> AnnotatedImage:
    label = {name: number for number, name in enumerate(class_names)}
    for name, *_ in objects:
        if name not in label:
            raise MisconfigurationException(
                f"{image.source} has an object of class {name!r}, which is none of the {len(label)} classes"
                f" {', '.join(class_names[:5])}{' …' if len(label) > 5 else ''}; correct it or give class_names."
            )
    return image._replace(labels=[label[name] for name, *_ in objects])
