"""Pictures show what the scores are of."""

import lightning as L
import torch
from torch.utils.data import DataLoader

from callbacks import ValidationPictures
from callbacks.validation_pictures import _above, _classes
from lit_models import FCN, CIFARResNet, Segmenter


class _Noting(Segmenter):
    def forward(self, images):
        self.dtypes.append((logits := super().forward(images)).dtype)
        return logits


def test_a_picture_is_made_in_the_precision_of_the_scores(tmp_path):
    net = FCN(CIFARResNet(8, width=4), 3, output_stride=None)
    module = _Noting(net, 3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    module.dtypes = []
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        callbacks=[ValidationPictures(images=2)],
        precision="bf16-mixed",
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = torch.rand(2, 3, 32, 32), torch.ones(2, 32, 32, dtype=torch.int64)
    trainer.validate(module, DataLoader([batch], batch_size=None), verbose=False)
    assert (tmp_path / "pictures" / "epoch-000.png").exists()
    assert module.dtypes == [torch.bfloat16] * 2


def test_boxes_of_low_scores_are_left_out_and_the_best_object_lies_on_top():
    detection = {
        "boxes": torch.tensor([[0.0, 0, 4, 4], [0, 0, 8, 8], [0, 0, 10, 8]]),
        "labels": torch.tensor([1, 0, 2]),
        "scores": torch.tensor([0.9, 0.5, 0.3]),
        "masks": torch.ones(3, 1, 28, 28),
    }
    kept = _above(detection, 0.5)
    assert kept["labels"].tolist() == [1, 0]
    classes = _classes(kept, 3, (8, 10))
    assert [classes[1, 1], classes[6, 6], classes[1, 9]] == [1, 0, 3]
