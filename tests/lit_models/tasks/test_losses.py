"""The losses against their definitions in float64, and against timm's."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from lit_models import ImageClassifier
from lit_models.tasks.losses import LOSSES, share_over_all

K, EPSILON = 6, 0.1


@pytest.fixture
def logits():
    return 3 * torch.randn(8, K, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 5, 3, 3, 2, 4, 0])


def definition(labels, smooth_over):
    """q of each convention, entry by entry."""
    q = torch.empty(len(labels), K, dtype=torch.float64)
    for row, label in zip(q, labels.tolist(), strict=True):
        for k in range(K):
            if smooth_over == "all":
                row[k] = EPSILON / K + (1 - EPSILON) * (k == label)
            else:
                row[k] = 1 - EPSILON if k == label else EPSILON / (K - 1)
    return q


def expected_loss(name, logits, q):
    z = logits.double()
    if name == "cross_entropy":
        return -(q * z.log_softmax(1)).sum(1).mean()
    return -(q * z.sigmoid().log() + (1 - q) * (1 - z.sigmoid()).log()).mean()


def classifier(**arguments):
    return ImageClassifier(nn.Linear(1, 1), K, **arguments)


@pytest.mark.parametrize("smooth_over", ["all", "others"])
@pytest.mark.parametrize("name", list(LOSSES))
def test_smoothed_loss_is_its_definition_for_classes_and_for_mixed_targets(name, smooth_over, logits, labels):
    model = classifier(loss=name, label_smoothing=EPSILON, smooth_over=smooth_over)
    q = definition(labels, smooth_over)
    assert torch.allclose(q.sum(1), torch.ones(8, dtype=torch.float64))
    assert model.loss(logits, labels).item() == pytest.approx(expected_loss(name, logits, q).item(), rel=1e-6)
    one_hot, share = F.one_hot(labels, K).float(), 0.3
    mixed = share * one_hot + (1 - share) * one_hot.flip(0)
    mixed_q = share * q + (1 - share) * q.flip(0)
    assert model.loss(logits, mixed).item() == pytest.approx(expected_loss(name, logits, mixed_q).item(), rel=1e-6)


def test_losses_equal_those_of_timm(logits, labels):
    mixed = mixup_target(labels, K, lam=0.7, smoothing=EPSILON)
    unsmoothed = mixup_target(labels, K, lam=0.7, smoothing=0.0)
    assert torch.allclose(
        classifier(label_smoothing=EPSILON).loss(logits, labels), LabelSmoothingCrossEntropy(EPSILON)(logits, labels)
    )
    assert torch.allclose(
        classifier(label_smoothing=EPSILON).loss(logits, unsmoothed), SoftTargetCrossEntropy()(logits, mixed)
    )
    binary = classifier(loss="binary_cross_entropy", label_smoothing=EPSILON)
    assert torch.allclose(binary.loss(logits, labels), BinaryCrossEntropy(EPSILON)(logits, labels))
    assert torch.allclose(binary.loss(logits, unsmoothed), BinaryCrossEntropy(EPSILON)(logits, mixed))


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_are_in_float32(name, logits, labels):
    half = logits.bfloat16()
    loss = LOSSES[name](half, labels, EPSILON)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LOSSES[name](half.double(), labels, EPSILON).item(), rel=1e-5)


def test_the_paper_s_epsilon_is_larger_over_all_classes():
    assert share_over_all(0.1, 10, "others") == pytest.approx(0.1111, abs=1e-4)
    assert share_over_all(0.1, 10, "all") == 0.1
    assert share_over_all(0.0, 1, "others") == 0


@pytest.mark.parametrize(("epsilon", "smooth_over"), [(1.0, "all"), (-0.1, "all"), (0.95, "others")])
def test_a_smoothing_that_leaves_nothing_is_refused(epsilon, smooth_over):
    with pytest.raises(MisconfigurationException, match="label_smoothing"):
        classifier(label_smoothing=epsilon, smooth_over=smooth_over)
