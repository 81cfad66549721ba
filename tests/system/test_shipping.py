"""From a wheel in an empty folder: photos as people have them, to ONNX and a table, by the commands of the README."""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

CLASSES = {"영 zero": 0, "하나": 1}
FLAGS = (
    *("--data.image_size", "64", "--data.batch_size", "16", "--data.num_workers", "0"),
    *("--model.net.width", "8", "--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"),
    *("--wandb.mode", "disabled"),
)


@pytest.fixture
def photos(tmp_path):
    """Digits as photos: oblong, some on their side, in nested folders, with suffixes of cameras; three are broken."""
    digits = load_digits()
    for name, digit in CLASSES.items():
        for number, image in enumerate(digits.images[digits.target == digit][:40]):
            folder = tmp_path / "photos" / name / ("2019 휴가" if number % 4 == 0 else "")
            folder.mkdir(parents=True, exist_ok=True)
            photo = Image.fromarray((image * 15).astype(np.uint8)).convert("RGB").resize((90, 70))
            exif = Image.Exif()
            exif[0x0112] = 6 if number % 5 == 0 else 1
            photo.save(folder / f"사진 {number}.{'JPG' if number % 2 else 'PNG'}", exif=exif)
    for name in ("깨진.JPG", "half.PNG", "empty.jpeg"):
        (tmp_path / "photos" / "하나" / name).write_bytes(b"\xff\xd8\xff no photo"[: 0 if "empty" in name else 99])
    (tmp_path / "photos" / "__MACOSX").mkdir()
    (tmp_path / "photos" / "하나" / "Thumbs.db").write_bytes(b"x")
    return tmp_path / "photos"


def test_a_folder_of_photos_goes_to_onnx_and_a_table(photos, installed, repository, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    block = (repository / "README.md").read_text(encoding="utf-8").split("From a folder of photos")[1].split("```")[1]
    lines = re.findall(r"^fathom ([^#\n]+)", block, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["scan", "fit", "export", "predict"]

    def typed(number, run="", *flags):
        words = lines[number].replace("RUN", str(run)).split()
        return installed(tmp_path, *words, *flags)

    done = typed(0)
    assert done.returncode == 1
    assert "3 of 83 images below photos are broken" in done.stderr
    assert all(name in done.stdout for name in ("깨진.JPG", "half.PNG", "empty.jpeg"))

    done = typed(1, "", *FLAGS)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "vanillanet_caltech101").iterdir()
    assert "하나" in (run / "summary.json").read_text(encoding="utf-8")  # the broken files, by readable names

    done = typed(2, run)
    assert done.returncode == 0, done.stderr
    assert "onnx: largest logit difference" in done.stdout
    session = onnxruntime.InferenceSession(tmp_path / "shipped" / "model.onnx")
    assert "영 zero" in session.get_modelmeta().custom_metadata_map["class_names"]

    done = typed(3, run, "--out", "t.csv")
    assert done.returncode == 0, done.stderr
    assert "3 of 83 files can't be read" in done.stdout
    assert "95% interval" in done.stdout
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert {row["label"] for row in rows} == set(CLASSES)

    pixels = np.asarray(Image.open(photos / "하나" / "사진 1.JPG"))[None]
    (logits,) = session.run(None, {"pixels": pixels})
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    row = next(row for row in rows if row["file"] == "photos/하나/사진 1.JPG")
    assert float(row["probability_1"]) == pytest.approx(probabilities.max(), abs=0.01)


def test_sentences_never_install_the_package_of_a_stranger(repository):
    """``fathom`` on PyPI is another project."""
    rooms = ("callbacks", "datamodules", "experiments", "lit_models")
    sources = [path.read_text(encoding="utf-8") for room in rooms for path in (repository / room).rglob("*.py")]
    assert set(re.findall(r"'(fathom[\w-]*)\[\w+\]'", "".join(sources))) == {"fathom-depth"}
