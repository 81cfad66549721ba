"""Effective-path training through a real Trainer."""

from collections import Counter

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from callbacks import EffectivePathTraining, StochasticDepth
from callbacks.effective_paths import draw_open_blocks
from lit_models import CIFARResNet, ImageClassifier, VanillaNet


class Recorder(L.Callback):
    """Gates and convolutions that ran in each micro-batch, and the network after it."""

    def __init__(self):
        self.gates, self.ran, self.states = [], [], []

    def on_fit_start(self, trainer, pl_module):
        self.blocks = pl_module.net.residual_blocks()
        for name, block in self.blocks.items():
            block.conv2.register_forward_hook(lambda *_, name=name: self.ran[-1].append(name) if self.ran else None)

    def on_train_batch_start(self, *_):
        self.gates.append([block.gate for block in self.blocks.values()])
        self.ran.append([])

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.states.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})


def classifier(**options):
    torch.manual_seed(0)
    return ImageClassifier(CIFARResNet(20, width=4, **options), 10, schedule="constant", lr=0.05, weight_decay=0.1)


def loader(n=32, batch_size=4):
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 10)
    return DataLoader(data, batch_size=batch_size)


def fit(tmp_path, *callbacks, model=None, validate=False, **options):
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **{"max_epochs": 1, **options},
    )
    model = model or classifier()
    trainer.fit(model, loader(), loader(10, 4) if validate else None)
    return model, trainer


def test_every_set_of_m_blocks_is_drawn_equally_often():
    drawn = Counter(tuple(draw_open_blocks(2, 5, 0, step)) for step in range(2000))
    assert len(drawn) == 10
    assert all(sum(gates) == 2 and 150 < count < 250 for gates, count in drawn.items())
    assert draw_open_blocks(23, 54, 1, 7) == draw_open_blocks(23, 54, 1, 7) != draw_open_blocks(23, 54, 2, 7)
    assert draw_open_blocks(54, 54, 0, 0) == [True] * 54


def test_another_callback_that_sets_the_gates_is_refused(tmp_path):
    for callbacks in ([EffectivePathTraining(4), StochasticDepth()], [StochasticDepth(), EffectivePathTraining(4)]):
        names = " and ".join(type(callback).__name__ for callback in callbacks)
        with pytest.raises(MisconfigurationException, match=f"{names} would both set the gates .* remove one"):
            fit(tmp_path, *callbacks)


def test_exactly_the_drawn_blocks_run_and_learn(tmp_path):
    recorder = Recorder()
    fit(tmp_path, EffectivePathTraining(4, seed=3), recorder)
    assert recorder.gates == [draw_open_blocks(4, 9, 3, step) for step in range(8)]
    names = list(recorder.blocks)
    for step, gates in enumerate(recorder.gates):
        survivors = [name for name, gate in zip(names, gates, strict=True) if gate]
        assert recorder.ran[step] == survivors
        if step == 0:
            continue
        before, after = recorder.states[step - 1], recorder.states[step]
        for name in names:
            keys = [key for key in after if key.startswith(f"{name}.") and "survival_prob" not in key]
            same = [torch.equal(before[key], after[key]) for key in keys]
            assert len(same) == 12
            assert not any(same) if name in survivors else all(same)


def test_one_draw_for_each_optimizer_step(tmp_path):
    recorder = Recorder()
    fit(tmp_path, EffectivePathTraining(4, seed=3), recorder, accumulate_grad_batches=4)
    assert recorder.gates == [draw_open_blocks(4, 9, 3, step) for step in (0, 1) for _ in range(4)]


def test_all_blocks_open_is_training_as_ever(tmp_path):
    plain, _ = fit(tmp_path)
    opened, _ = fit(tmp_path, EffectivePathTraining(9))
    for name, value in plain.net.state_dict().items():
        assert torch.equal(value, opened.net.state_dict()[name]), name


def test_both_ways_to_evaluate_are_reported(tmp_path):
    callback = EffectivePathTraining(4)
    model, trainer = fit(tmp_path, callback, validate=True, max_epochs=2)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    tested = trainer.test(model, loader(10, 4), verbose=False)[0]

    net = model.net.eval()
    images, targets = loader(10).dataset.tensors
    found = {}
    for name, factor in (("top1", 4 / 9), ("top1_unscaled", 1.0)):
        y = net.bn1(net.conv1(images)).relu()
        for block in net.residual_blocks().values():
            y = (block.shortcut(y) + factor * block.branch(y)).relu()
        found[name] = (net.fc(y.mean((2, 3))).argmax(1) == targets).float().mean().item()
    for name, value in found.items():
        assert metrics[f"val/{name}"] == pytest.approx(value)
        assert tested[f"test/{name}"] == pytest.approx(value)
    assert all(block.survival_prob.item() == pytest.approx(4 / 9) for block in net.residual_blocks().values())
    assert callback.report() == {"effective_paths": {"open_blocks": 4, "blocks": 9}}


def test_the_two_ways_differ():
    """As the test above could not tell if they agreed on all of its images."""
    net = classifier().net.eval()
    images, _ = loader(32).dataset.tensors
    logits = []
    for gate, prob in ((None, 4 / 9), (True, 4 / 9), (None, 1.0)):
        for block in net.residual_blocks().values():
            block.gate = gate
            block.survival_prob.fill_(prob)
        logits.append(net(images))
    assert not torch.allclose(logits[0], logits[1])
    torch.testing.assert_close(logits[1], logits[2])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_gates_are_open_after_an_exception(tmp_path, error):
    class Fails(L.Callback):
        def on_train_batch_start(self, *_):
            raise error

    model = classifier()
    with pytest.raises((error, SystemExit)):
        fit(tmp_path, EffectivePathTraining(1), Fails(), model=model)
    assert all(block.gate is None for block in model.net.residual_blocks().values())


@pytest.mark.parametrize(
    ("blocks", "options", "words"),
    [
        (0, {}, "opens 1 to 9 blocks of this CIFARResNet, not blocks=0"),
        (10, {}, "opens 1 to 9 blocks of this CIFARResNet, not blocks=10"),
        (4, {"rescale": "train"}, "set its rescale to eval"),
        (4, {"shortcut": "none"}, "EffectivePathTraining needs residual blocks"),
    ],
)
def test_what_does_not_go_is_explained(tmp_path, blocks, options, words):
    with pytest.raises(MisconfigurationException, match=words):
        fit(tmp_path, EffectivePathTraining(blocks), model=classifier(**options))


def test_a_network_of_another_kind_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"EffectivePathTraining needs.*VanillaNet"):
        fit(tmp_path, EffectivePathTraining(2), model=ImageClassifier(VanillaNet(10, depth=5), 10))


def test_both_ways_are_evaluated_in_the_precision_of_the_run(tmp_path):
    model, dtypes, one = classifier(), set(), {"limit_train_batches": 1, "limit_val_batches": 1}
    model.net.register_forward_hook(lambda net, inputs, logits: dtypes.add(logits.dtype))
    fit(tmp_path, EffectivePathTraining(3), model=model, validate=True, precision="bf16-mixed", **one)
    assert dtypes == {torch.bfloat16}
