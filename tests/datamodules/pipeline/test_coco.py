"""Annotations in COCO's layout, in miniature, and what can be wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.coco import read_coco
from datamodules.pipeline.run_lengths import resized_mask

IMAGES = [
    {"id": 9, "file_name": "a.jpg", "height": 40, "width": 50},
    {"id": 4, "file_name": "b.jpg", "height": 10, "width": 20},
]
CATEGORIES = [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "sign"}]


def thing(image=9, category=13, box=(5, 6, 10, 20), **more):
    return {"id": 1, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0, **more}


def put(root, *annotations, images=IMAGES, categories=CATEGORIES, masks=False):
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    for image in IMAGES:
        (root / "val2017" / image["file_name"]).touch()
    data = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(data))
    return read_coco(root, "val2017", "annotations/instances_val2017.json", masks)


def test_the_original_layout(tmp_path):
    polygon, empty = [[1, 2, 3, 4, 5, 6]], []
    found = put(
        tmp_path,
        thing(segmentation=polygon, area=120.25),
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
    assert found.areas.tolist() == [120.25, 50, 200]
    assert (found + found).areas.shape == (6,)
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
        (thing(area="big"), {}, "annotation 1 of image 9 has the area 'big'; give a number"),
        (thing(area=-1), {}, "has the area -1"),
        (thing(area=float("nan")), {}, "has the area nan"),
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


SQUARE = [5, 6, 15, 6, 15, 26, 5, 26]


def test_masks_are_polygons_or_run_lengths_of_either_kind(tmp_path):
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools, of the extra detection, is not installed")
    there = np.zeros((40, 50), np.uint8, order="F")
    there[6:26, 5:15] = 1
    runs = np.diff(np.flatnonzero(np.diff(there.reshape(-1, order="F"), prepend=0, append=0)), prepend=0).tolist()
    runs.append(40 * 50 - sum(runs))
    size = [40, 50]
    kinds = [[SQUARE], {"size": size, "counts": runs}, {"size": size, "counts": mask.encode(there)["counts"].decode()}]
    split = [[[5, 6, 15, 6, 15, 16, 5, 16], [5, 16, 15, 16, 15, 26, 5, 26]]]
    found = put(
        tmp_path,
        *(thing(segmentation=one) for one in kinds + split),
        thing(segmentation=[]),
        thing(),
        thing(box=(1, 1, 0, 9), segmentation=[SQUARE]),
        thing(image=4, box=(0, 0, 20, 10), iscrowd=1, segmentation={"size": [10, 20], "counts": [0, 200]}),
        masks=True,
    )
    assert found.counts.tolist() == [4, 1]  # those without a mask, and the one without an area, are not there
    assert [found.remarks[name] for name in ("objects_without_masks", "empty_polygons", "dropped_boxes")] == [2, 1, 1]
    assert len(found.masks) == 5
    assert len({*found.masks[:4]}) == 1
    assert np.array_equal(resized_mask(found.masks[0], (40, 50), (40, 50)), there)
    assert np.array_equal(resized_mask(found.masks[0], (40, 50), (80, 100)), there.repeat(2, 0).repeat(2, 1))
    assert resized_mask(found.masks[4], (10, 20), (5, 7)).all()
    assert len((found + found).masks) == 10


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4, 5]], "a polygon that is not made of pairs of numbers"),
        ([[1, 2, 3, 4, "5", "six"]], "a polygon that is not made of pairs of numbers"),
        ([[1, 2, 3, 4]], "a polygon of fewer than three points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon that goes far beyond the image"),
        ([[1, 2, 3, 4, 5, 1e12]], "a polygon that goes far beyond the image"),
        ("polygon", "a mask that is neither polygons nor run lengths"),
        ({"counts": [2000]}, "a mask that is neither polygons nor run lengths"),
        ({"size": [50, 40], "counts": [2000]}, "run lengths of an image of 40×50 pixels"),
        ({"size": [40, 50], "counts": [1000, 999]}, "run lengths that do not fill the image"),
        ({"size": [40, 50], "counts": [2001, -1]}, "run lengths that do not fill the image"),
        ({"size": [40, 50], "counts": "12"}, "run lengths that do not fill the image"),
        ({"size": [40, 50], "counts": "zzzzzz"}, "run lengths that do not fill the image"),
    ],
    ids=str,
)
def test_bad_masks_are_named_in_one_sentence(tmp_path, segmentation, message):
    pytest.importorskip("pycocotools", reason="pycocotools, of the extra detection, is not installed")
    with pytest.raises(MisconfigurationException) as error:
        put(tmp_path, thing(segmentation=segmentation), masks=True)
    sentence = f"instances_val2017.json: annotation 1 of image 9 has {message}; correct or remove it."
    assert str(error.value).endswith(sentence)


def test_a_file_without_masks_has_none_to_read(tmp_path):
    with pytest.raises(MisconfigurationException, match="has no masks of its objects; set masks to false"):
        put(tmp_path, thing(), thing(segmentation=[[]]), masks=True)


def test_a_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"nowhere.json can't be read"):
        read_coco(tmp_path, "x", "nowhere.json")
    (tmp_path / "broken.json").write_text('{"images": [')
    with pytest.raises(MisconfigurationException, match=r"broken.json is no whole JSON file"):
        read_coco(tmp_path, "x", "broken.json")
