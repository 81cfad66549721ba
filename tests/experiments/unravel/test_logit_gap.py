import math

import pytest
import torch
import torch.nn.functional as F

from experiments.unravel.logit_gap import logit_gaps, optimal_gap
from lit_models import ImageClassifier


def test_gaps_by_hand():
    logits = torch.tensor([[1.0, 5.0, 3.0], [2.0, 4.0, -6.0]])
    gaps = logit_gaps(logits, torch.tensor([1, 0]))
    assert gaps.to_mean.tolist() == [3.0, 3.0]
    assert gaps.to_largest.tolist() == [2.0, -2.0]
    # A constant added to all logits is in neither, and float32 sums would lose them beside it.
    shifted = logit_gaps(logits.double() + 1e9, torch.tensor([1, 0]))
    assert shifted.to_mean.tolist() == [3.0, 3.0]


def test_ten_classes_and_a_tenth_have_the_papers_optimum():
    assert optimal_gap(10, 0.1) == pytest.approx(4.394, abs=5e-4)
    assert optimal_gap(1000, 0.1) == pytest.approx(math.log(999 * 0.9 / 0.1))
    assert optimal_gap(10, 0.0) == math.inf


@pytest.mark.parametrize(("classes", "epsilon", "over"), [(10, 0.1, "others"), (5, 0.3, "others"), (10, 0.1, "all")])
def test_the_least_loss_of_training_is_at_that_gap_to_each_other_class(classes, epsilon, over):
    model = ImageClassifier(torch.nn.Identity(), num_classes=classes, label_smoothing=epsilon, smooth_over=over)
    of_others = epsilon if over == "others" else epsilon * (classes - 1) / classes
    logits = torch.randn(3, classes, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([0, 3, classes - 1])
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = model.loss(logits, targets)
        value.backward()
        return value

    optimizer.step(loss)
    gaps = logit_gaps(logits.detach(), targets)
    expected = [pytest.approx(optimal_gap(classes, of_others), abs=0.01)] * 3
    assert gaps.to_mean.tolist() == expected
    assert gaps.to_largest.tolist() == expected


def test_noise_among_the_others_lowers_the_gap_to_the_largest_alone():
    """So it is the gap to the mean that has the optimum where a network is near it, in the mean over images."""
    generator = torch.Generator().manual_seed(0)
    optimum = optimal_gap(10, 0.1)
    logits = 0.5 * torch.randn(4000, 10, generator=generator) + optimum * F.one_hot(torch.zeros(4000).long(), 10)
    gaps = logit_gaps(logits, torch.zeros(4000, dtype=torch.long))
    assert gaps.to_mean.mean().item() == pytest.approx(optimum, abs=0.05)
    assert gaps.to_largest.mean().item() < optimum - 0.5
