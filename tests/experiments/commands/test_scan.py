"""``fathom scan`` names every broken file at once."""

from experiments.__main__ import main


def test_all_broken_files_are_listed_at_once(digits_folder, capsys):
    images = sorted(digits_folder.rglob("*.png"))
    for path in images[::16]:
        path.write_bytes(path.read_bytes()[:60])
    (digits_folder / "train" / "영 zero" / "IMG_1.HEIC").write_bytes(b"x")
    (digits_folder / "train" / ".DS_Store").write_bytes(b"x")
    assert main(["scan", str(digits_folder)]) == 1
    out, error = capsys.readouterr()
    assert all(str(path) in out for path in images[::16])
    assert "1 .heic: not read" in out
    assert ".ds_store" not in out.lower()
    assert f"{len(images[::16])} of {len(images)} images" in error


def test_a_whole_folder(digits_folder, capsys):
    assert main(["scan", str(digits_folder)]) == 0
    assert "48 images" in capsys.readouterr().out
