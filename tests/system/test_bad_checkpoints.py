"""Checkpoints that are none, or another's, or in a state that none can be in: one sentence each, nothing written."""

import argparse
import contextlib
import io
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from torch import nn

from lit_models import CheckpointError, VanillaNet, load_checkpoint
from lit_models.checkpoints import AtomicCheckpointIO, read_checkpoint


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def cut(share):
    def spoil(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return spoil


def flipped(part):
    """A bit flipped in the middle of a record of the file."""

    def spoil(path):
        with zipfile.ZipFile(path) as archive:
            record = max((r for r in archive.infolist() if part in r.filename), key=lambda r: r.file_size)
            with archive.open(record) as file:
                content = file.read()
        raw = bytearray(path.read_bytes())
        start = raw.find(content)
        assert start > 0
        raw[start + len(content) // 2] ^= 16
        path.write_bytes(raw)

    return spoil


def flipped_at_the_end(path):
    """In the zip's directory."""
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(b"PK\x01\x02") + 20] ^= 255
    path.write_bytes(raw)


def changed(change):
    def spoil(path):
        content = torch.load(path, weights_only=True)
        result = change(content)
        torch.save(result if isinstance(result, dict) else content, path)

    return spoil


def net(checkpoint):
    return checkpoint["hyper_parameters"]["net"]


def weights(checkpoint):
    return checkpoint["state_dict"]


def weight(change):
    """Changes one of the weights."""
    return changed(
        lambda checkpoint: weights(checkpoint).update({"net.fc.bias": change(weights(checkpoint)["net.fc.bias"])})
    )


def repacked(compression):
    """The records once more, as another program that packs zip files would."""

    def spoil(path):
        with zipfile.ZipFile(path) as archive:
            records = [(record.filename, archive.read(record)) for record in archive.infolist()]
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in records:
                archive.writestr(name, content)

    return spoil


def a_record_twice(path):
    with zipfile.ZipFile(path) as archive:
        name = next(record.filename for record in archive.infolist() if "/data/" in record.filename)
        content = archive.read(name)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, content)


def nested_in_itself(checkpoint):
    checkpoint["hyper_parameters"]["net"]["init_args"]["x"] = checkpoint["hyper_parameters"]


def without(container, key):
    del container[key]


def loop(checkpoint):
    return checkpoint["loops"]["fit_loop"]


def best(checkpoint):
    return next(state for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint"))


def optimizer(checkpoint):
    return checkpoint["optimizer_states"][0]


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a checkpoint\n" * 50)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


def pickled(path):
    path.write_bytes(pickle.dumps({"state_dict": Malicious(path.parent / "ran")}))


def safetensors(path):
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def folder(path):
    path.unlink()
    path.mkdir()


def legacy_torch(path):
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)


def whole_module(path):
    torch.save(nn.Linear(2, 2), path)


def official_vanillanet(path):
    torch.save({"model": VanillaNet(10, width=4).state_dict(), "args": argparse.Namespace(act_num=3)}, path)


def lightning_1(path):
    """Lightning 1 keyed the states of callbacks by their classes."""
    content = torch.load(path, weights_only=True)
    content["callbacks"] = {argparse.Namespace: {"best_model_score": torch.tensor(0.9)}}
    content["pytorch-lightning_version"] = "1.4.9"
    torch.save(content, path)


def removed(path):
    path.unlink()


# what is done to a whole one, and what the sentence has to say
BAD = {
    **{f"cut at {share:.0%}": (cut(share), "cut short") for share in (0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99)},
    "cut by a byte": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cut short"),
    "bit flipped in a weight": (flipped("/data/"), "damaged"),
    "bit flipped in the pickle": (flipped("data.pkl"), "damaged"),
    "bit flipped in the version": (flipped("/version"), "damaged"),
    "bit flipped in the directory": (flipped_at_the_end, "damaged"),
    "empty": (emptied, "cut short, or is another kind of file"),
    "text": (text, "another kind of file"),
    "zip": (other_zip, "is damaged, or of another project"),
    "safetensors": (safetensors, "another kind of file"),
    "old torch format": (legacy_torch, "another kind of file"),
    "a plain pickle": (pickled, "another kind of file"),
    "folder": (folder, "is no run directory"),
    "not there": (removed, "there is no checkpoint"),
    "malicious": (lambda path: torch.save({"state_dict": Malicious(path.parent / "ran")}, path), "posix.mkdir"),
    "malicious beside the weights": (changed(lambda c: c.update(x=Malicious("ran"))), "posix.mkdir"),
    "a whole module": (whole_module, "torch.nn.modules.linear.Linear"),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), "holds no state_dict"),
    "weights alone": (changed(lambda c: {**weights(c)}), "holds no state_dict"),
    "no word of a network": (changed(lambda c: {"state_dict": weights(c)}), "without saying of which network"),
    "a state_dict of text": (changed(lambda c: weights(c).update(a="b")), "state_dict.a is 'b', where a tensor"),
    "official VanillaNet": (official_vanillanet, "fathom convert vanillanet"),
    "Lightning 1": (lightning_1, "argparse.Namespace"),
    "settings of tensors": (changed(lambda c: c["hyper_parameters"].update(lr=torch.ones(2))), "plain settings"),
    "no settings": (changed(lambda c: c.update(hyper_parameters=[1])), "hyper_parameters is a list of 1, where values"),
    "NaN": (
        changed(lambda c: weights(c)["net.fc.bias"].fill_(float("nan"))),
        "net.fc.bias that is not finite",
    ),
    "a class of someone else": (changed(lambda c: net(c).update(class_path="mynets.Net")), "names mynets.Net"),
    "a class that runs commands": (changed(lambda c: net(c).update(class_path="subprocess.Popen")), "subprocess.Popen"),
    "commands by another name": (
        changed(lambda c: net(c).update(class_path="torch.os.system")),
        "names torch.os.system",
    ),
    "a network as text": (changed(lambda c: c["hyper_parameters"].update(net="antigravity.Net")), "antigravity.Net"),
    "another width": (changed(lambda c: net(c)["init_args"].update(width=8)), "of another network"),
    "another depth": (changed(lambda c: net(c)["init_args"].update(depth=14)), "of another network"),
    "another network": (changed(lambda c: net(c).update(class_path="lit_models.ResNet")), "has no option width"),
    "a network no more": (
        changed(lambda c: net(c).update(class_path="lit_models.OldNet")),
        "no class",
    ),
    "an option no more": (changed(lambda c: net(c)["init_args"].update(size=3)), "has no option size"),
    "a weight missing": (changed(lambda c: weights(c).pop("net.fc.bias")), "of another network"),
    "compressed": (repacked(zipfile.ZIP_DEFLATED), "packed again by another program"),
    "compressed harder": (repacked(zipfile.ZIP_LZMA), "packed again by another program"),
    "a record twice": (a_record_twice, "packed again by another program"),
    "expanded": (weight(lambda _: torch.zeros(1).expand(10**13)), "which the file does not hold"),
    "sparse": (weight(torch.Tensor.to_sparse), "net.fc.bias is a tensor in the layout torch.sparse_coo"),
    "meta": (weight(lambda bias: bias.to("meta")), "net.fc.bias is a tensor on the device meta"),
    "complex": (weight(lambda bias: bias.cfloat()), "where a tensor of real numbers belongs"),
    "whole numbers": (weight(lambda bias: bias.long()), "net.fc.bias is a tensor of torch.int64"),
    "truths": (weight(lambda bias: bias.bool()), "net.fc.bias is a tensor of torch.bool"),
    "a name that is a number": (changed(lambda c: weights(c).update({3: torch.ones(1)})), "state_dict has 3 as a name"),
    "a setting by number": (changed(lambda c: net(c)["init_args"].update({3: 1})), "where settings by name belong"),
    "no version": (changed(lambda c: c.update({"pytorch-lightning_version": "new"})), "where a version of Lightning"),
    "an old version": (
        changed(lambda c: c.update({"pytorch-lightning_version": "1.9.0"})),
        "version of Lightning from 2",
    ),
    "settings in themselves": (changed(nested_in_itself), "or contains itself"),
    "loops of text": (changed(lambda c: c.update(loops="text")), "loops is 'text', where values by name belong"),
    "no loop of the test": (changed(lambda c: without(c["loops"], "test_loop")), "loops.test_loop is missing"),
    "callbacks of text": (changed(lambda c: c.update(callbacks="text")), "callbacks is 'text'"),
    "a callback of text": (
        changed(lambda c: c["callbacks"].update(RunSummary="text")),
        "callbacks.RunSummary is 'text'",
    ),
    "data of text": (changed(lambda c: c.update(Digits="text")), "Digits is 'text'"),
    "a negative position in the data": (changed(lambda c: c["Digits"].update(offset=-3)), "Digits.offset is -3"),
    "a path as the best one": (
        changed(lambda c: best(c).update(best_model_path="../../../elsewhere")),
        "where a state without paths that lead out of the run belongs",
    ),
    "an absolute path as the best one": (
        changed(lambda c: best(c).update(best_model_path="/etc/passwd")),
        "best_model_path is '/etc/passwd', where the name of a file in checkpoints/ belongs",
    ),
    "another class count": (
        changed(lambda c: weights(c).update({"net.fc.weight": torch.ones(4, 16), "net.fc.bias": torch.ones(4)})),
        "of another network",
    ),
}


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A run directory of its own to spoil."""
    return shutil.copytree(tiny_run, tmp_path / "runs" / "tiny" / "copy")


def listing(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_checkpoint_gets_one_sentence_and_changes_nothing(name, copy, fathom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil, expected = BAD[name]
    path = copy / "checkpoints" / "last.ckpt"
    spoil(path)
    before = listing(tmp_path)
    code, sentence = fathom("test", "--ckpt_path", path, "--trainer.default_root_dir", tmp_path / "runs")
    assert code in (1, 2)
    assert expected in sentence
    assert str(path) in sentence or sentence.startswith("model.net: ")
    assert len(sentence) < 400
    assert listing(tmp_path).items() >= before.items()
    assert not (path.parent / "ran").exists()


@pytest.mark.parametrize("name", [name for name, (_, word) in BAD.items() if word in ("cut short", "damaged")])
def test_a_notebook_refuses_it_too(name, copy):
    path = copy / "checkpoints" / "last.ckpt"
    BAD[name][0](path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "settings",
    [
        {"net": "antigravity.Net"},
        {"net": {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}},
        {"optimizer_args": {"a": {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}}},
        {"optimizer": "os.system"},
    ],
)
def test_a_notebook_imports_and_runs_nothing_for_a_checkpoint(settings, copy):
    path = copy / "checkpoints" / "last.ckpt"
    changed(lambda checkpoint: checkpoint["hyper_parameters"].update(settings))(path)
    with pytest.raises(CheckpointError, match=r"antigravity\.Net|subprocess\.Popen|os\.system"):
        load_checkpoint(path)


def test_any_flipped_bit_is_found_or_changes_nothing(copy):
    """Of 40 places all over the file; what is not refused, such as a flip in the padding, has the same content."""
    path = copy / "checkpoints" / "last.ckpt"
    whole, expected = path.read_bytes(), read_checkpoint(path)
    expected = {name: value.clone() for name, value in expected["state_dict"].items()}
    refused = 0
    for i in range(40):
        raw = bytearray(whole)
        raw[(2 * i + 1) * len(raw) // 80] ^= 1 << i % 8
        spoiled = path.with_name(f"{i}.ckpt")
        spoiled.write_bytes(raw)
        try:
            found = read_checkpoint(spoiled)["state_dict"]
        except CheckpointError:
            refused += 1
        else:
            assert found.keys() == expected.keys()
            assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert refused > 20


def test_a_checkpoint_that_may_not_be_read_is_named(tiny_run, fathom, unprivileged):
    folder, somebody = unprivileged
    path = shutil.copy(tiny_run / "checkpoints" / "last.ckpt", folder)
    os.chmod(path, 0)
    with somebody():
        code, sentence = fathom("test", "--ckpt_path", path)
    assert (code, sentence) == (1, f"{path}: Permission denied")


@pytest.mark.parametrize("word", ["last", "best"])
def test_a_new_run_has_no_checkpoint_of_its_own(word, tiny_config, fathom, tmp_path):
    code, sentence = fathom("fit", "--config", tiny_config, "--ckpt_path", word, "--trainer.default_root_dir", tmp_path)
    assert code == 1
    assert f"--ckpt_path {word}" in sentence
    assert list(tmp_path.iterdir()) == []


def test_training_does_not_go_on_from_weights_alone(copy, fathom, tmp_path):
    path = copy / "checkpoints" / "last.ckpt"
    changed(lambda checkpoint: checkpoint.pop("optimizer_states"))(path)
    assert fathom("test", "--ckpt_path", path, "--trainer.default_root_dir", tmp_path / "test")[0] == 0
    code, sentence = fathom("fit", "--ckpt_path", path, "--trainer.default_root_dir", tmp_path / "fit")
    assert code == 1
    assert f"{path} holds weights alone" in sentence
    assert not (tmp_path / "fit").exists()


def counts(checkpoint, *place, **changes):
    found = loop(checkpoint)
    for name in place:
        found = found[name]
    found.update(changes)


# of the state of training, which a test does not need
BAD_TRAINING = {
    "no learning rates": (lambda c: c.pop("lr_schedulers"), "lr_schedulers is missing"),
    "no optimizer": (lambda c: c.update(optimizer_states=[]), "optimizer_states has 0 entries"),
    "two optimizers": (lambda c: c["optimizer_states"].append(optimizer(c)), "optimizer_states has 2 entries"),
    "two schedules": (lambda c: c["lr_schedulers"].append(c["lr_schedulers"][0]), "lr_schedulers has 2 entries"),
    "no groups": (lambda c: optimizer(c).update(param_groups=[]), "do not number the parameters"),
    "one group less": (
        lambda c: without(optimizer(c)["param_groups"], -1),
        "entries for parameters that are in no group",
    ),
    "a parameter less": (lambda c: optimizer(c)["param_groups"][1]["params"].pop(), "in no group"),
    "parameters of text": (lambda c: optimizer(c)["param_groups"][0].update(params="text"), "where a list belongs"),
    "buffers of some": (lambda c: optimizer(c)["state"][0].update(other=1), "others of its like"),
    "buffers of another shape": (
        lambda c: optimizer(c)["state"][0].update(momentum_buffer=torch.ones(3, 3)),
        "momentum_buffer is a tensor of torch.float32 and shape (3, 3)",
    ),
    "momentum of text": (lambda c: optimizer(c)["param_groups"][0].update(momentum="fast"), "momentum is 'fast'"),
    "a function in the schedule": (lambda c: c["lr_schedulers"][0].update(lr_lambdas=[{"a": 1}] * 2), "lr_lambdas[0]"),
    "a method replaced": (lambda c: c["lr_schedulers"][0].update(step=3), "replaces step"),
    "negative counts": (
        lambda c: counts(c, "epoch_loop.batch_progress", "current", ready=-1),
        "epoch_loop.batch_progress.current.ready is -1",
    ),
    "huge counts": (lambda c: counts(c, "epoch_progress", "current", ready=10**15), "where a count, 0 or more belongs"),
    "more done than begun": (
        lambda c: counts(c, "epoch_loop.batch_progress", "total", completed=10**6),
        "completed more than was begun",
    ),
    "steps that disagree": (lambda c: c.update(global_step=10**6), "global_step is 1000000, and 2 in loops.fit_loop"),
    "epochs that disagree": (lambda c: c.update(epoch=10**6), "epoch is 1000000, and 1 in loops.fit_loop"),
    "no progress": (lambda c: without(loop(c), "epoch_progress"), "loops.fit_loop.epoch_progress is missing"),
    "means of text": (lambda c: c["run"].update(epoch_means=["text"]), "run.epoch_means[0] is 'text'"),
    "a moment of its own": (lambda c: c["run"].update(moment="now"), "run.moment is 'now'"),
}


@pytest.mark.parametrize("name", BAD_TRAINING)
def test_no_training_goes_on_from_a_bad_state(name, copy, fathom, tmp_path):
    change, word = BAD_TRAINING[name]
    path = copy / "checkpoints" / "last.ckpt"
    changed(change)(path)
    flags = ("--trainer.max_epochs", 2, "--trainer.default_root_dir", tmp_path / "fit")
    code, sentence = fathom("fit", "--ckpt_path", path, *flags)
    assert code == 1
    assert str(path) in sentence
    assert word in sentence
    assert len(sentence) < 400


@pytest.mark.parametrize(
    "spoil",
    [
        *(changed(BAD_TRAINING[name][0]) for name in ("no learning rates", "buffers of another shape")),
        *(BAD[name][0] for name in ("whole numbers", "compressed", "a negative position in the data")),
    ],
)
def test_resume_takes_the_checkpoint_before(spoil, copy, fathom):
    """Also where only the network and the optimizer can tell that the last one is not theirs."""
    last = copy / "checkpoints" / "last.ckpt"
    spoil(last)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert fathom("resume", copy, "--trainer.max_epochs", 2)[0] == 0
    assert f"{last} " in out.getvalue()
    assert "; the checkpoint before it is" in out.getvalue()
    assert read_checkpoint(last)["global_step"] == 4


def test_a_resume_removes_no_folder(copy, fathom, tmp_path):
    """Whatever a checkpoint calls the best one, which a better one replaces."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("mine")
    (copy / "summary.json").unlink()
    for name in ("last.ckpt", "previous.ckpt"):

        def lead_out(checkpoint):
            target = os.path.relpath(precious, copy / "checkpoints")
            worst = torch.tensor(-1.0)
            best(checkpoint).update(
                best_model_path=target,
                kth_best_model_path=target,
                best_model_score=worst,
                kth_value=worst,
                best_k_models={target: worst},
            )

        changed(lead_out)(copy / "checkpoints" / name)
    code, sentence = fathom("resume", copy, "--trainer.max_epochs", 3)
    assert (precious / "thesis.tex").read_text() == "mine"
    assert code == 1
    assert "no checkpoint in" in sentence


def test_removing_a_checkpoint_is_unlinking_one_file(tmp_path):
    folder = tmp_path / "checkpoints" / "folder.ckpt"
    folder.mkdir(parents=True)
    (tmp_path / "canary").write_text("mine")
    (tmp_path / "checkpoints" / "link.ckpt").symlink_to(tmp_path / "canary")
    (tmp_path / "checkpoints" / "old.ckpt").write_text("old")
    for name in ("folder.ckpt", "link.ckpt", "old.ckpt", "../canary", "missing.ckpt"):
        AtomicCheckpointIO().remove_checkpoint(tmp_path / "checkpoints" / name)
    assert folder.is_dir()
    assert (tmp_path / "canary").read_text() == "mine"
    assert not (tmp_path / "checkpoints" / "old.ckpt").exists()
