"""Which time is divided by which, with seconds that the test makes up."""

from types import SimpleNamespace

import pytest
import torch

from experiments.claims import timing
from lit_models.cost import count_parameters


@pytest.mark.parametrize("claim", ["merged_time", "bottleneck_time", "lecture_module_time", "precision_time"])
def test_a_time_is_of_the_cheaper_form_over_the_other(claim, monkeypatch):
    cost = {None: 2.0, torch.bfloat16: 1.0}
    monkeypatch.setattr(timing, "_forward", lambda net, *_, **__: count_parameters(net))
    monkeypatch.setattr(timing, "_training_step", lambda net, device, half: count_parameters(net) * cost[half])
    monkeypatch.setattr(timing, "_in_rounds", lambda contenders, device: [[seconds] for seconds in contenders])
    (ratio,) = getattr(timing, claim)(torch.device("cpu")).rounds
    assert ratio < 1


def test_times_are_those_beyond_the_work_and_of_the_faster_mask(monkeypatch):
    seconds = [2.0, 2.0], [1.8, 1.6], [9.0, 9.0], [3.0, 3.0], [2.2, 2.4]
    variants = [SimpleNamespace(seconds=rounds, executed=[0.75] * 2) for rounds in seconds]
    monkeypatch.setattr(timing, "_stochastic_depth", lambda: variants)
    assert timing.stochastic_depth_time(torch.device("cpu")).rounds == pytest.approx([0.15, 0.05])
    assert timing.mask_time(torch.device("cpu")).rounds == pytest.approx([1.1, 1.2])
