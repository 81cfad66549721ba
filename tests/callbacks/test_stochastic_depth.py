"""Stochastic depth through a real Trainer."""

import math
from itertools import pairwise

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from callbacks import StochasticDepth
from callbacks.stochastic_depth import draw_gates, survival_probs
from datamodules import Digits
from lit_models import CIFARResNet, ImageClassifier, ResNet, VanillaNet
from lit_models.cost import count_branch_macs, count_macs


class Recorder(L.Callback):
    """What the network looks like in each micro-batch and after it."""

    def __init__(self):
        self.gates, self.probs, self.images, self.states, self.metrics = [], [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        blocks = pl_module.net.residual_blocks().values()
        self.gates.append([block.gate for block in blocks])
        self.probs.append([block.survival_prob.item() for block in blocks])
        self.images.append(batch[0].clone())

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.states.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})
        self.metrics.append({name: value.item() for name, value in trainer.logged_metrics.items()})


def classifier(**options):
    torch.manual_seed(0)
    return ImageClassifier(CIFARResNet(20, width=4), 10, schedule="constant", **options)


def batches(n=32, batch_size=4):
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 10)
    return DataLoader(data, batch_size=batch_size)


def fit(tmp_path, *callbacks, model=None, data=None, ckpt_path=None, **options):
    recorder = Recorder()
    trainer = L.Trainer(
        **{
            "accelerator": "cpu",
            "default_root_dir": tmp_path,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "log_every_n_steps": 1,
            "max_epochs": 1,
            **options,
        },
        callbacks=[*callbacks, recorder],
    )
    model = classifier() if model is None else model
    trainer.fit(model, batches() if data is None else data, ckpt_path=ckpt_path)
    return model, recorder


def test_survival_probabilities():
    """Huang et al. 2016: equation 4, and the expected depths of section 3."""
    linear = survival_probs(54, 0.5)
    assert sum(linear) == pytest.approx(40.25)
    assert linear[0] == pytest.approx(0.9907407)
    assert linear[-1] == 0.5
    assert sum(survival_probs(54, 0.2)) == pytest.approx(32.0)
    assert survival_probs(3, 0.7, "uniform") == [0.7] * 3


def test_gates_have_their_probabilities_and_are_independent():
    probs = survival_probs(54, 0.5)
    steps = 4000
    gates = torch.tensor([draw_gates(probs, "batch", seed=3, step=step) for step in range(steps)]).double()
    p = torch.tensor(probs, dtype=torch.float64)
    assert ((gates.mean(0) - p).abs() <= 5 * (p * (1 - p) / steps).sqrt()).all()
    variance = (p * (1 - p)).sum().item()
    assert gates.sum(1).var().item() == pytest.approx(variance, rel=5 * (2 / steps) ** 0.5)
    z = (gates - p) / (p * (1 - p)).sqrt()
    assert abs((z[1:] * z[:-1]).mean()) < 5 / z.numel() ** 0.5
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 5 / z.numel() ** 0.5


def test_gates_are_a_function_of_seed_and_step():
    probs = survival_probs(54, 0.5)
    draws = {(seed, step): draw_gates(probs, "batch", seed, step) for seed in (0, 1) for step in (0, 1, 2)}
    assert len(set(map(tuple, draws.values()))) == 6
    assert draws[0, 1] == draw_gates(probs, "batch", 0, 1)


def test_windows_have_their_share_and_start_anywhere():
    pairs = [draw_gates([0.5, 0.75], "sample", 0, step) for step in range(2000)]
    assert {(first.share, second.share) for first, second in pairs} == {(0.5, 0.75)}
    for windows in zip(*pairs, strict=True):
        starts = torch.tensor([window.rows(8)[0] for window in windows]).bincount(minlength=8)
        assert ((starts - 250).abs() < 5 * (2000 / 8 * 7 / 8) ** 0.5).all()


@pytest.mark.parametrize("p", [0.3, 0.5, 0.8])
def test_by_sample_p_of_the_batch_runs_on_average(p):
    """⌊pN + u⌋ rows: round(pN) is off by up to 0.12 at N = 4, 0.015 at N = 32, and at N = 1 never shuts a block."""
    steps, probs = 1000, [p] * 40
    roundings = torch.tensor([[window.rounding for window in draw_gates(probs, "sample", 5, s)] for s in range(steps)])
    for n in range(1, 33):
        draws = [draw_gates(probs, "sample", 5, step) for step in range(50)]
        rows = torch.tensor([[window.rows(n)[1] for window in windows] for windows in draws])
        assert {*rows.flatten().tolist()} <= {math.floor(p * n), math.ceil(p * n)}
        share = torch.floor(p * n + roundings.double()).mean().item() / n
        assert abs(share - p) < 5 * 0.5 / n / (steps * len(probs)) ** 0.5
    pairs = torch.tensor([[w.start for w in draw_gates(probs, "sample", 5, s)] for s in range(steps)])
    correlation = torch.corrcoef(torch.stack([pairs.flatten(), roundings.flatten()]))[0, 1]
    assert abs(correlation) < 5 / (steps * len(probs)) ** 0.5


def test_what_runs_is_what_the_gates_say(tmp_path):
    """Branches that forward hooks saw, and the state that moved: statistics, weights under momentum and decay."""
    model = classifier(lr=0.1, weight_decay=0.1, no_bias_decay=False)
    blocks = model.net.residual_blocks()
    ran = []

    def note(name, output):
        if not output.is_meta:  # on which multiply-adds are counted
            ran.append(name)

    for name, block in blocks.items():
        block.conv2.register_forward_hook(lambda module, inputs, output, name=name: note(name, output))

    _, recorder = fit(tmp_path, StochasticDepth(0.3), model=model, data=batches(80))
    planned = [[name for name, gate in zip(blocks, gates, strict=True) if gate] for gates in recorder.gates]
    assert len(planned) == 20
    assert 20 < sum(map(len, planned)) < 20 * 9
    assert ran == [name for names in planned for name in names]
    for (before, after), survivors in zip(pairwise(recorder.states), planned[1:], strict=True):
        for name in blocks:
            same = [
                torch.equal(before[key], after[key])
                for key in after
                if key.startswith(name) and "survival_prob" not in key
            ]
            assert len(same) == 12
            assert not any(same) if name in survivors else all(same)


def test_skipped_weights_can_go_on_moving_as_in_the_authors_code(tmp_path):
    """Nesterov's momentum and decay written down once more; a skipped branch has a gradient of zero."""
    model = classifier(lr=0.1, weight_decay=0.1, no_bias_decay=False)
    weight = model.net.layer3[2].conv1.weight
    expected, gradients = weight.detach().clone(), []

    class Gradients(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients.append(weight.grad.clone())

    callbacks = StochasticDepth(0.3, decay_skipped=True), Gradients()
    _, recorder = fit(tmp_path, *callbacks, model=model, data=batches(80))
    skipped = [gates[-1] is False for gates in recorder.gates]
    assert 5 < sum(skipped) < 20
    assert [bool((gradient == 0).all()) for gradient in gradients] == skipped
    momentum = torch.zeros_like(expected)
    for gradient in gradients:
        step = gradient + 0.1 * expected
        momentum = 0.9 * momentum + step
        expected = expected - 0.1 * (step + 0.9 * momentum)
    torch.testing.assert_close(weight.detach(), expected)


def test_shares_of_work_are_weighted_by_multiply_adds(tmp_path):
    callback = StochasticDepth(0.5)
    _, recorder = fit(tmp_path, callback)
    # Width 4, 8×8 pixels: all convolutions cost the same but the first of a transition, which costs half.
    macs = [4, 4, 4, 3, 4, 4, 3, 4, 4]
    planned = sum(p * m for p, m in zip(survival_probs(9, 0.5), macs, strict=True)) / 34
    for gates, metrics in zip(recorder.gates, recorder.metrics, strict=True):
        executed = sum(m for gate, m in zip(gates, macs, strict=True) if gate) / 34
        assert metrics["stochastic_depth/planned_work"] == pytest.approx(planned)
        assert metrics["stochastic_depth/executed_work"] == pytest.approx(executed)
        assert metrics["stochastic_depth/effective_depth"] == sum(gates)
    report = callback.report()["stochastic_depth"]
    assert report["planned_work"] == pytest.approx(planned)
    assert report["survival_probs"] == pytest.approx([1 - i / 18 for i in range(1, 10)], abs=1e-6)
    assert report["macs_saved"] == round((1 - planned) * 34 * 4608)  # 9 · 4 · 4 · 64 · 2 / 4


def test_by_sample_the_branches_that_have_rows_are_used(tmp_path):
    used = []

    class Gradients(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            blocks = pl_module.net.residual_blocks().values()
            used.append([{p.grad is not None for p in block.branch_parameters()} for block in blocks])

    _, recorder = fit(tmp_path, StochasticDepth(0.1, mode="sample"), Gradients())
    shares = survival_probs(9, 0.1)
    assert all([gate.share for gate in gates] == shares for gates in recorder.gates)
    rows = [[gate.rows(4)[1] for gate in gates] for gates in recorder.gates]
    assert used == [[{count > 0} for count in counts] for counts in rows]
    assert {0, 1, 2, 3, 4} == {count for counts in rows for count in counts}
    for counts, metrics in zip(rows, recorder.metrics, strict=True):
        assert metrics["stochastic_depth/effective_depth"] == pytest.approx(sum(counts) / 4)


@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_validation_sees_the_whole_network_scaled_by_equation_5(tmp_path, mode):
    gates = []

    class Watch(L.Callback):
        def on_validation_start(self, trainer, pl_module):
            gates.extend(block.gate for block in pl_module.net.residual_blocks().values())

    data = L.LightningDataModule.from_datasets(batches().dataset, batches().dataset, batch_size=4)
    model, _ = fit(tmp_path, StochasticDepth(0.3, mode=mode), Watch(), data=data, val_check_interval=4)
    assert gates == [None] * 9 * 3  # once before training
    net = model.net.eval()
    x = torch.randn(2, 3, 8, 8)
    y = net.bn1(net.conv1(x)).relu()
    for block, p in zip(net.residual_blocks().values(), survival_probs(9, 0.3), strict=True):
        y = (block.shortcut(y) + p * block.branch(y)).relu()
    torch.testing.assert_close(net(x), net.fc(y.mean((2, 3))))


def test_an_exception_in_a_step_opens_the_gates(tmp_path):
    class Fails(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            raise RuntimeError("on purpose")

    model = classifier()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, StochasticDepth(0.1, "uniform"), Fails(), model=model)
    assert all(block.gate is None for block in model.net.residual_blocks().values())


def test_one_mask_for_each_optimizer_step(tmp_path):
    _, recorder = fit(tmp_path, StochasticDepth(seed=5), accumulate_grad_batches=4)
    probs = survival_probs(9, 0.5)
    assert recorder.gates == [draw_gates(probs, "batch", 5, step) for step in (0, 1) for _ in range(4)]


def test_the_seed_of_the_run_is_the_default(tmp_path):
    L.seed_everything(17)
    _, recorder = fit(tmp_path, StochasticDepth())
    assert recorder.gates[0] == draw_gates(survival_probs(9, 0.5), "batch", 17, 0)


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"survival_prob": 0.5}, [0.5, 0.5, 0.5, 0.5]),
        ({"survival_prob": 0.4, "ramp_epochs": 2}, [1.0, 0.7, 0.4, 0.4]),
        ({"survival_prob": [1.0, 0.8, 0.6]}, [1.0, 0.8, 0.6, 0.6]),
        ({"survival_prob": [0.9, 0.6], "decay": "uniform"}, [0.9, 0.6, 0.6, 0.6]),
    ],
)
def test_survival_probabilities_over_the_epochs(tmp_path, options, last):
    _, recorder = fit(tmp_path, StochasticDepth(**options), data=batches(8), max_epochs=4)
    expected = [survival_probs(9, p, options.get("decay", "linear")) for p in last for _ in range(2)]
    assert torch.tensor(recorder.probs).allclose(torch.tensor(expected))


def test_a_resumed_run_draws_what_an_unbroken_one_does(tmp_path):
    """In the middle of an epoch, bit for bit."""

    def run(**options):
        torch.manual_seed(0)
        model = ImageClassifier(CIFARResNet(20, in_channels=1, width=4), 10, schedule="constant")
        data = Digits(train_size=128, batch_size=32)
        callbacks = [StochasticDepth([1.0, 0.6, 0.3]), ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1)]
        options = {"max_epochs": 3, "limit_val_batches": 0, "enable_checkpointing": True, **options}
        return fit(tmp_path, *callbacks, model=model, data=data, **options)

    run(max_steps=6)
    (path,) = tmp_path.glob("*.ckpt")
    torch.load(path, weights_only=True)
    model, resumed = run(ckpt_path=path)
    unbroken_model, unbroken = run()
    assert len(resumed.gates) == 6
    assert resumed.gates == unbroken.gates[6:]
    assert resumed.probs == unbroken.probs[6:]
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, unbroken_model.net.state_dict()[name]), name


def test_constant_and_stochastic_runs_see_the_same_images(tmp_path):
    runs = []
    for callbacks in ([], [StochasticDepth()], [StochasticDepth(mode="sample")]):
        L.seed_everything(3)
        model = ImageClassifier(CIFARResNet(8, in_channels=1, width=4), 10, schedule="constant")
        data = Digits(train_size=320, batch_size=32, shift=1, mixup_alpha=0.2, seed=3)
        runs.append(fit(tmp_path, *callbacks, model=model, data=data, max_epochs=2, limit_val_batches=0)[1])
    constant, batch, sample = (run.images for run in runs)
    assert len(constant) == len(batch) == len(sample) == 20
    assert not torch.equal(constant[0], constant[10])
    for i in range(20):
        assert torch.equal(constant[i], batch[i])
        assert torch.equal(constant[i], sample[i])
    assert any(False in gates for gates in runs[1].gates)


def test_weight_averaging_copies_survival_probabilities(tmp_path):
    """Averaged over a ramp from 1 they would lag behind."""
    schedule = StochasticDepth(0.3, ramp_epochs=2)
    model, _ = fit(tmp_path, schedule, EMAWeightAveraging(decay=0.9, use_buffers=False), data=batches(16), max_epochs=3)
    probs = [block.survival_prob.item() for block in model.net.residual_blocks().values()]
    assert probs == pytest.approx(survival_probs(9, 0.3))


def test_half_precision_with_clipping(tmp_path):
    """Skipped branches have no gradient to unscale or to clip."""
    precision = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu", init_scale=64.0))
    _, recorder = fit(
        tmp_path, StochasticDepth(0.2), precision=None, plugins=[precision], gradient_clip_val=0.1, data=batches(16)
    )
    before, after = recorder.states[0], recorder.states[-1]
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("net", [VanillaNet(10, depth=5), CIFARResNet(8, shortcut="none")])
def test_a_network_without_residual_blocks_is_refused(tmp_path, net):
    with pytest.raises(MisconfigurationException, match=f"StochasticDepth needs.*{type(net).__name__}"):
        fit(tmp_path, StochasticDepth(), model=ImageClassifier(net, 10))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"survival_prob": 0.0}, "above 0"),
        ({"survival_prob": [0.5, 1.5]}, "up to 1"),
        ({"survival_prob": []}, "above 0"),
        ({"survival_prob": [0.9, 0.5], "ramp_epochs": 3}, "not both"),
    ],
)
def test_settings_that_make_no_schedule_are_explained(options, words):
    with pytest.raises(MisconfigurationException, match=words):
        StochasticDepth(**options)


@pytest.mark.parametrize(
    ("net", "side", "of_branches", "of_network"),
    [(CIFARResNet(110), 32, 0.745, 0.746), (ResNet(50), 128, 0.732, 0.763), (CIFARResNet(56), 32, 0.741, 0.742)],
    ids=["resnet110", "resnet50", "resnet56"],
)
def test_the_work_that_the_page_states_is_of_branches_and_of_the_network(net, side, of_branches, of_network):
    macs, whole = count_branch_macs(net, (3, side, side)), count_macs(net, (3, side, side))
    skipped = sum((1 - p) * m for p, m in zip(survival_probs(len(macs), 0.5), macs, strict=True))
    assert round(1 - skipped / sum(macs), 3) == of_branches
    assert round(1 - skipped / whole, 3) == of_network


def test_the_cost_of_a_ramp_is_that_of_its_end():
    module = ImageClassifier(CIFARResNet(8, width=1), 10)
    ramp, end = StochasticDepth(0.5, ramp_epochs=2), StochasticDepth(0.5)
    for callback in (ramp, end):
        callback.setup(L.Trainer(accelerator="cpu", logger=False, callbacks=[callback]), module, "fit")
    assert ramp.skipped_macs((3, 8, 8)) == end.skipped_macs((3, 8, 8)) > 0
