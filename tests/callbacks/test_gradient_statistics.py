"""Logged gradients against those of the same steps done by hand."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from callbacks import GradientStatistics, StochasticDepth
from lit_models import CIFARResNet, ImageClassifier, TimmBackbone


class Gradients(L.Callback):
    """Keeps the gradients of each step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = {name: p.grad for name, p in pl_module.net.named_parameters()}
        self.steps.append({name: g.clone() for name, g in gradients.items() if g is not None})


class Overflow(L.Callback):
    """The gradients of a step, as a gradient scaler may find them; the weights are reset after it."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.weights = [parameter.detach().clone() for parameter in pl_module.parameters()]
        if trainer.global_step == 3:
            for parameter in pl_module.parameters():
                parameter.grad.fill_(torch.inf)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 4:
            for parameter, weight in zip(pl_module.parameters(), self.weights, strict=True):
                parameter.copy_(weight)
            trainer.optimizers[0].state.clear()


def fit(tmp_path, net, *callbacks, epochs=1):
    gradients = Gradients()
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=epochs,
        callbacks=[*callbacks, GradientStatistics(), gradients],
    )
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(32, 3, 8, 8), torch.arange(32) % 10), batch_size=4)
    trainer.fit(ImageClassifier(net, 10, schedule="constant"), data)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}, gradients.steps


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("callbacks", [[], [StochasticDepth(0.3, "uniform", seed=1)]])
def test_means_over_the_steps_in_which_the_layer_ran(tmp_path, callbacks):
    metrics, steps = fit(tmp_path, CIFARResNet(14, width=4), *callbacks)
    conv = [step["layer1.0.conv1.weight"] for step in steps if "layer1.0.conv1.weight" in step]
    assert len(steps) == 8
    assert 0 < len(conv) < 8 if callbacks else len(conv) == 8
    expected = mean(g.abs().mean().item() for g in conv)
    assert metrics["gradient_mean_abs/layer1.0.conv1"] == pytest.approx(expected, rel=1e-5)
    for stage in ("conv1", "bn1", "layer1", "layer2", "layer3", "fc"):
        norms = [
            torch.cat([g.flatten() for name, g in step.items() if name.startswith(stage)]).norm().item()
            for step in steps
            if any(name.startswith(stage) for name in step)
        ]
        assert metrics[f"gradient_norm/{stage}"] == pytest.approx(mean(norms), rel=1e-5)


def test_an_overflow_is_left_out(tmp_path):
    metrics, steps = fit(tmp_path, CIFARResNet(8, width=4), Overflow())
    norms = [step["conv1.weight"].norm().item() for step in steps]
    assert [value < torch.inf for value in norms] == [True] * 3 + [False] + [True] * 4
    assert metrics["gradient_norm/conv1"] == pytest.approx(mean(n for n in norms if n < torch.inf), rel=1e-5)


def test_a_network_without_blocks(tmp_path):
    metrics, steps = fit(tmp_path, CIFARResNet(8, width=4, shortcut="none"))
    expected = mean(step["conv1.weight"].abs().mean().item() for step in steps)
    assert metrics["gradient_mean_abs/conv1"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_the_layer_is_of_the_branch_whatever_the_shortcut(tmp_path, shortcut):
    metrics, _ = fit(tmp_path, CIFARResNet(8, width=4, shortcut=shortcut))
    assert [name for name in metrics if name.startswith("gradient_mean_abs")] == ["gradient_mean_abs/layer1.0.conv1"]


def test_a_frozen_trunk_and_what_wraps_a_network(tmp_path):
    """Gradients that don't exist are not logged; the only child of a network is looked into."""
    metrics, _ = fit(tmp_path, TimmBackbone("test_efficientnet", 10, frozen=True))
    assert {name for name in metrics if name.startswith("gradient")} == {"gradient_norm/model.classifier"}
    metrics, steps = fit(tmp_path, torch.nn.Sequential(CIFARResNet(8, width=4)))
    norms = [
        torch.cat([g.flatten() for name, g in step.items() if name.startswith("0.layer2")]).norm().item()
        for step in steps
    ]
    assert metrics["gradient_norm/0.layer2"] == pytest.approx(mean(norms), rel=1e-5)


def test_frozen_stages_do_not_break_stochastic_depth(tmp_path):
    net = CIFARResNet(14, width=4)
    net.requires_grad_(False)
    net.layer3.requires_grad_(True)
    net.fc.requires_grad_(True)
    before = {name: p.clone() for name, p in net.named_parameters()}
    metrics, _ = fit(tmp_path, net, StochasticDepth(0.5, seed=1))
    changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all(name.startswith(("layer3", "fc")) for name in changed)
    assert "gradient_norm/layer1" not in metrics
    assert "gradient_norm/layer3" in metrics


def test_a_network_without_convolutions_has_norms_alone(tmp_path):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    metrics, _ = fit(tmp_path, net)
    logged = {name for name in metrics if name.startswith("gradient")}
    assert logged == {"gradient_norm/1", "gradient_norm/3"}


def test_an_epoch_has_the_mean_of_its_own_steps(tmp_path):
    metrics, steps = fit(tmp_path, CIFARResNet(8, width=1), epochs=2)
    expected = mean(step["conv1.weight"].norm().item() for step in steps[8:])
    assert metrics["gradient_norm/conv1"] == pytest.approx(expected, rel=1e-5)


def test_sums_travel_with_a_checkpoint():
    one, other = GradientStatistics(), GradientStatistics()
    one._epoch, one._sums, one._steps = 2, {"a": torch.tensor(3.0)}, {"a": torch.tensor(4)}
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
