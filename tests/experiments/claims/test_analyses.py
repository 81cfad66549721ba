"""What is measured of a network, from errors and norms that the test makes up."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from experiments.claims import analyses
from experiments.unravel.implicit_ensemble import Hits
from experiments.unravel.input_gradients import InputGradient
from lit_models import CIFARResNet
from lit_models.surgery.links import links


@pytest.mark.parametrize(
    ("analysis", "found"),
    [
        ("ensemble", {"rule_minus_mean": 10}),
        ("unscaled", {"more_error": 30}),
        ("gradients", {"initial": 0.5, "trained": 0.5}),
        ("stale_statistics", {"recovered": 0.75}),
    ],
    ids=["ensemble", "unscaled", "gradients", "stale statistics"],
)
def test_signs_of_what_is_measured(analysis, found, monkeypatch):
    subject = SimpleNamespace(net=CIFARResNet(8, width=1), batches=lambda *_, **__: [(torch.zeros(10),) * 2])
    subject.links = links(subject.net)
    answers = {
        "implicit_ensemble": [Hits(torch.tensor(8), torch.tensor([5, 9]), torch.tensor([5, 5]))],
        "_error": [0.2, 0.5],
        "initial_network": [subject.net],
        "input_gradients": [[InputGradient(f"{depth}", depth, 2.0**depth) for depth in range(4)]] * 2,
        "lesion_errors": [np.array([0.1, 0.5, 0.5]), np.array([0.1, 0.2, 0.2])],
    }
    for name, values in answers.items():
        monkeypatch.setattr(analyses, name, Mock(side_effect=values))
    assert getattr(analyses, analysis)(subject, None) == pytest.approx(found)


def test_the_gap_is_how_far_the_test_error_is_above_that_of_training_images(monkeypatch):
    monkeypatch.setattr(analyses, "_error", lambda subject, images, test=True: 0.5 if test else 0.2)
    assert analyses.fit(None, None) == pytest.approx({"train_error": 20, "gap": 30})


def test_all_transitions_have_to_stand_out(monkeypatch):
    net = CIFARResNet(20, width=1)
    subject = SimpleNamespace(net=net, links=links(net), batches=lambda images: [])
    rises = [0.3 if link.transition else 0.01 for link in subject.links if link.removable]
    rises[rises.index(0.3)] = 0.2
    monkeypatch.setattr(analyses, "lesion_errors", lambda *_: 0.1 + np.array([0, *rises]))
    assert analyses.lesions(subject, None)["transitions_above"] == pytest.approx(19)


def test_the_variance_explained_is_a_square(monkeypatch):
    norms = torch.exp(torch.tensor([0.0, -1.5, -1.0]))[:, None]
    monkeypatch.setattr(analyses, "sampled_norms", lambda *_: norms)
    subject = SimpleNamespace(net=None, batches=lambda images: iter([(None, None)]))
    assert analyses.paths(subject, None)["r2"] == pytest.approx(np.corrcoef(range(3), norms[:, 0].log())[0, 1] ** 2)
