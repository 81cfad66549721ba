"""Annotations in COCO's layout, in miniature, and what can be wrong with them."""

from __future__ import annotations

import json

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.coco import read_coco

IMAGES = [
    {"id": 9, "file_name": "a.jpg", "height": 40, "width": 50},
    {"id": 4, "file_name": "b.jpg", "height": 10, "width": 20},
]
CATEGORIES = [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "sign"}]


def thing(image=9, category=13, box=(5, 6, 10, 20), **more):
    return {"id": 1, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0, **more}


def put(root, *annotations, images=IMAGES, categories=CATEGORIES):
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    for image in IMAGES:
        (root / "val2017" / image["file_name"]).touch()
    data = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(data))
    return read_coco(root, "val2017", "annotations/instances_val2017.json")


def test_the_original_layout(tmp_path):
    polygon, empty = [[1, 2, 3, 4, 5, 6]], []
    found = put(
        tmp_path,
        thing(segmentation=polygon),
        thing(category=90, box=(40, 30, 20, 5), iscrowd=1, segmentation={"counts": [1, 2], "size": [40, 50]}),
        thing(category=1, box=(1, 1, 0, 9)),
        thing(category=1, segmentation=empty),
    )
    assert found.class_names == ["person", "sign", "brush"]
    assert found.ids == [9, 4]
    assert found.files == ["val2017/a.jpg", "val2017/b.jpg"]
    assert found.sizes.tolist() == [[40, 50], [10, 20]]
    assert found.counts.tolist() == [3, 0]
    assert found.boxes.tolist() == [[5, 6, 15, 26], [40, 30, 50, 35], [5, 6, 15, 26]]
    assert found.labels.tolist() == [1, 2, 0]
    assert found.difficult.tolist() == [False, True, False]
    assert found.remarks == {
        "images_without_objects": 1,
        "dropped_boxes": 1,
        "clipped_boxes": 1,
        "crowds": 1,
        "empty_polygons": 1,
    }


@pytest.mark.parametrize(
    ("annotation", "options", "message"),
    [
        (thing(image=7), {}, "annotation 1 is of image 7, which is not listed"),
        (thing(category=2), {}, "annotation 1 is of category 2, which is not listed"),
        (thing(box=(1, 2, 3)), {}, "a box of image 9 is not four numbers"),
        (thing(box=(1, 2, -3, 4)), {}, "box 1 of val2017/a.jpg .* ends before it begins"),
        (thing(box=(1, 2, float("nan"), 4)), {}, "is not made of numbers"),
        (thing(box=(1, 50, 3, 4)), {}, "lies outside the image of 50×40"),
        (thing(), {"images": [*IMAGES, IMAGES[0]]}, "lists image 9 twice"),
        (thing(), {"images": [*IMAGES, {**IMAGES[0], "id": 1, "file_name": "c.jpg"}]}, "lists c.jpg, which is not in"),
        (thing(), {"images": [{"id": 9}]}, "no instances in COCO's format"),
        (thing(), {"categories": []}, "has no categories"),
    ],
    ids=str,
)
def test_bad_annotations_are_named_in_one_sentence(tmp_path, annotation, options, message):
    with pytest.raises(MisconfigurationException, match=message) as error:
        put(tmp_path, annotation, **options)
    assert "instances_val2017.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"nowhere.json can't be read"):
        read_coco(tmp_path, "x", "nowhere.json")
    (tmp_path / "broken.json").write_text('{"images": [')
    with pytest.raises(MisconfigurationException, match=r"broken.json is no whole JSON file"):
        read_coco(tmp_path, "x", "broken.json")
