"""Annotations in VOC's layout: the original tree in miniature, a real set, and everything that can be wrong."""

from __future__ import annotations

import zipfile

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.voc import read_voc

BOX = "<name>{}</name><difficult>{}</difficult>"
BOX += "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def annotation(*objects, size="<size><width>50</width><height>40</height><depth>3</depth></size>"):
    """Of a photo of 50×40 pixels."""
    inner = "".join(f"<object>{BOX.format(*of)}</object>" for of in objects)
    return f"<annotation><folder>x</folder><filename>elsewhere.jpg</filename>{size}{inner}</annotation>"


def put(base, image_set, **annotations):
    """Write an image set; photos are not read here, so they are empty."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        (base / "JPEGImages" / f"{stem}.jpg").touch()
        (base / "Annotations" / f"{stem}.xml").write_text(text)
    (base / "ImageSets/Main" / f"{image_set}.txt").write_text("".join(f"{stem}\n" for stem in annotations))
    return base


def test_the_union_of_two_years_in_the_original_layout(tmp_path):
    first = annotation(("dog", 0, 1, 1, 50, 40), ("cat", 1, 11, 6, 20, 25))
    part = "<object><name>person</name><bndbox><xmax>9.5</xmax><xmin>3</xmin><ymax>30</ymax><ymin>2</ymin></bndbox>"
    part += "<part><name>head</name><bndbox><xmin>3</xmin></bndbox></part></object></annotation>"
    put(tmp_path / "VOCdevkit/VOC2007", "trainval", a=first, b=annotation())
    put(tmp_path / "VOCdevkit/VOC2012", "trainval", c=annotation().replace("</annotation>", part))
    found = read_voc(tmp_path, ["VOC2007/trainval", "VOC2012/trainval"])
    assert found.class_names == ["cat", "dog", "person"]
    assert found.ids == ["a", "b", "c"]
    assert (found.root / found.files[2]).is_file()
    assert found.sizes.tolist() == [[40, 50]] * 3
    assert found.counts.tolist() == [2, 0, 1]
    assert found.boxes.tolist() == [[0, 0, 49, 39], [10, 5, 19, 24], [2, 1, 8.5, 29]]
    assert found.labels.tolist() == [1, 0, 2]
    assert found.difficult.tolist() == [False, True, False]
    assert found.boxes[found.of(2)].tolist() == [[2, 1, 8.5, 29]]
    assert found.remarks["images_without_objects"] == 1
    assert read_voc(tmp_path / "VOCdevkit", ["VOC2007/trainval"]).ids == ["a", "b"]


def test_a_folder_of_ones_own_with_classes_in_a_given_order(tmp_path):
    put(tmp_path, "mine", a=annotation(("dog", 0, 1, 1, 50, 40), ("cat", 0, 2, 2, 9, 9)))
    found = read_voc(tmp_path, ["mine"], ["zebra", "dog", "cat"])
    assert found.labels.tolist() == [1, 2]
    assert found.files == ["JPEGImages/a.jpg"]


def test_boxes_without_area_are_dropped_and_those_partly_outside_clipped(tmp_path):
    objects = [("a", 0, 5, 5, 5, 9), ("b", 0, 0, 10, 20, 99), ("b", 1, 7, 8, 9, 10)]
    found = read_voc(put(tmp_path, "x", i=annotation(*objects)), ["x"])
    assert found.boxes.tolist() == [[0, 9, 19, 40], [6, 7, 8, 9]]
    assert found.labels.tolist() == [1, 1]
    assert found.difficult.tolist() == [False, True]
    assert found.remarks == {"dropped_boxes": 1, "clipped_boxes": 1, "images_without_objects": 0}


def test_the_real_set(tmp_path, real_data):
    with zipfile.ZipFile(real_data / "bccd-voc.zip") as file:
        file.extractall(tmp_path, [name for name in file.namelist() if "JPEG" not in name])
        for name in file.namelist():
            if "JPEG" in name:
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).touch()
    names = ["RBC", "WBC", "Platelets"]
    parts = {part: read_voc(tmp_path, [f"VOC2007/{part}"], names) for part in ("train", "val", "test")}
    assert [part.labels.bincount().tolist() for part in parts.values()] == [
        [2381, 214, 209],
        [967, 87, 83],
        [805, 71, 69],
    ]
    assert [part.remarks["dropped_boxes"] for part in parts.values()] == [1, 1, 0]
    assert parts["train"].boxes.min() == 0
    assert parts["train"].boxes.amax(0).tolist() == [pytest.approx(x, abs=99) for x in (639, 479, 639, 479)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><size>", "a.xml is no whole XML file"),
        (annotation(size=""), "a.xml is no annotation in VOC's format: it has no size/height"),
        (annotation(size="<size><width>0</width><height>40</height></size>"), "its size is 0×40"),
        (annotation(("dog", 0, "", 1, 2, 3)), "a.xml .* it has no bndbox/xmin"),
        (annotation(("dog", 0, "one", 1, 2, 3)), "a.xml .* 'one'"),
        (annotation(("cow", 0, 1, 1, 9, 9)), "a.xml has an object of class 'cow', which is none of the 2 classes"),
        (annotation(("dog", 0, "nan", 1, 9, 9)), r"a.xml: box 1 of JPEGImages/a.jpg \(dog, .*is not made of numbers"),
        (annotation(("cat", 0, 1, 1, 9, 9), ("dog", 0, 9, 1, 2, 9)), "a.xml: box 2 .* ends before it begins"),
        (annotation(("dog", 0, 60, 1, 70, 9)), "a.xml: box 1 .* lies outside the image of 50×40 pixels"),
        (None, "a.xml is missing"),
    ],
    ids=str,
)
def test_a_bad_annotation_is_named_in_one_sentence(tmp_path, text, message):
    put(tmp_path, "x", a=text or "")
    if text is None:
        (tmp_path / "Annotations/a.xml").unlink()
    with pytest.raises(MisconfigurationException, match=message) as error:
        read_voc(tmp_path, ["x"], ["cat", "dog"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [("a\na\n", "x.txt has a twice"), ("a\nb\n", "x.txt has b, of which there is no file"), ("\n", "x.txt is empty")],
)
def test_a_bad_list_is_named(tmp_path, names, message):
    put(tmp_path, "x", a=annotation(("dog", 0, 1, 1, 9, 9)))
    (tmp_path / "ImageSets/Main/x.txt").write_text(names)
    with pytest.raises(MisconfigurationException, match=message):
        read_voc(tmp_path, ["x"])


def test_what_is_missing_is_named(tmp_path):
    put(tmp_path, "x", a=annotation())
    with pytest.raises(MisconfigurationException, match=r"y.txt is no readable list"):
        read_voc(tmp_path, ["y"])
    with pytest.raises(MisconfigurationException, match=r"VOC2007/JPEGImages is no folder"):
        read_voc(tmp_path, ["VOC2007/x"])
    with pytest.raises(MisconfigurationException, match="No image of x"):
        read_voc(tmp_path, ["x"])
