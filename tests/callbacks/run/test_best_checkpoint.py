"""best.ckpt is the best one, in the run, and has no other name."""

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import BestCheckpoint

SETTINGS = {"monitor": "score", "mode": "max", "enable_version_counter": False}
SCORES = [0.1, 0.5, 0.9, 0.3, 0.2]


class Scored(L.LightningModule):
    """Whose validation gives one score after the other."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("score", SCORES[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(1, 1))

    val_dataloader = train_dataloader


def test_the_best_stays(tmp_path):
    best = BestCheckpoint(**SETTINGS)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = L.Trainer(default_root_dir=tmp_path, max_epochs=len(SCORES), callbacks=[best], **options)
    trainer.fit(Scored())
    (file,) = (tmp_path / "checkpoints").iterdir()
    assert file.name == "best.ckpt"
    assert torch.load(file, weights_only=True)["epoch"] == SCORES.index(max(SCORES))


@pytest.mark.parametrize("save_top_k", [3, -1])
def test_several_checkpoints_don_t_share_a_name(save_top_k):
    """The last one written would stay under it."""
    with pytest.raises(MisconfigurationException, match=f"save_top_k {save_top_k} .* give save_top_k 1"):
        BestCheckpoint(**SETTINGS | {"save_top_k": save_top_k})


def test_nothing_is_best_without_a_monitor():
    with pytest.raises(MisconfigurationException, match="the monitor None"):
        BestCheckpoint()


@pytest.mark.parametrize("name", ["mine", "../../x", "/tmp/best", "last", "previous"])
def test_it_has_one_name_by_which_a_run_directory_is_read(name):
    with pytest.raises(MisconfigurationException, match=f"filename is {name}: leave it out; the file is best.ckpt"):
        BestCheckpoint(**SETTINGS | {"filename": name})


def test_no_folder_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"best_checkpoint\.dirpath is .*: leave it out"):
        BestCheckpoint(**SETTINGS | {"dirpath": tmp_path})


@pytest.mark.parametrize("flag", ["save_top_k=3", "save_top_k=-1", "filename=mine", "dirpath=elsewhere"])
def test_the_command_says_so_in_a_sentence(flag, tiny_config, fathom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = ("--trainer.default_root_dir", tmp_path / "runs")
    code, sentence = fathom("fit", "--config", tiny_config, f"--best_checkpoint.{flag}", *runs)
    assert code in (1, 2)
    assert "best_checkpoint" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_state_names_files_of_its_own_folder_alone(tmp_path):
    best = BestCheckpoint(**SETTINGS)
    best.dirpath = str(tmp_path)
    state = best.state_dict() | {
        "best_model_path": "../../precious",
        "best_k_models": {"../../precious": torch.ones(1)},
    }
    (tmp_path / "precious").touch()
    best.load_state_dict(state)
    assert best.best_model_path == str(tmp_path / "precious")
    assert list(best.best_k_models) == [str(tmp_path / "precious")]


def test_scores_of_another_run_do_not_count(tiny_run, tiny_config, fathom, tmp_path):
    checkpoint = torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint"))
    out_of_reach = torch.tensor(2.0)
    state |= {"best_model_score": out_of_reach, "kth_value": out_of_reach, "best_k_models": {"best.ckpt": out_of_reach}}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    flags = ["--trainer.max_epochs", 2, "--ckpt_path", tmp_path / "x.ckpt", "--trainer.default_root_dir", tmp_path]
    assert fathom("fit", "--config", tiny_config, *flags) == (0, "")
    (best,) = tmp_path.glob("tiny/*/checkpoints/best.ckpt")
    assert torch.load(best, weights_only=True)["epoch"] == 1


def test_the_best_of_a_training_metric_is_reported(tmp_path):
    class Logged(BoringModel):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("train/loss", loss["loss"], on_epoch=True)
            return loss

    best = BestCheckpoint(monitor="train/loss", mode="min", filename="best")
    options = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    options |= {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0, "accelerator": "cpu"}
    L.Trainer(default_root_dir=tmp_path, callbacks=[best], **options).fit(Logged())
    assert best.report()["best"]["value"] == float(best.best_model_score)
