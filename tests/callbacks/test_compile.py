"""Compiled training beside training as it is written, in real fits."""

import copy
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks import ActivationAnnealing, Compile, MergeAtFitEnd, StochasticDepth, WeightAveraging
from callbacks.cuda_graphs import graphed
from datamodules import Digits
from lit_models import CIFARResNet, ImageClassifier, VanillaNet, load_checkpoint

UNGENERATED = "aot_eager"
"""A backend that traces forward and backward passes, and leaves the seconds of a C++ compiler out."""


@pytest.fixture(autouse=True)
def _compiled_anew():
    torch.compiler.reset()


@pytest.fixture
def fit_digits(tmp_path):
    def fit(net, *callbacks, ckpt_path=None, batches=3, **trainer):
        torch.manual_seed(0)
        module = ImageClassifier(net, 10, lr=0.01, schedule="constant")
        trainer = L.Trainer(
            accelerator="cpu",
            default_root_dir=tmp_path,
            limit_train_batches=batches,
            limit_val_batches=1,
            num_sanity_val_steps=0,
            callbacks=list(callbacks),
            **{
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "max_epochs": 2,
                **trainer,
            },
        )
        data = Digits(image_size=8, batch_size=16, equal_batches=True)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return module

    return fit


def resnet(depth=14):
    torch.manual_seed(0)
    return CIFARResNet(depth, in_channels=1, width=4)


def vanillanet():
    torch.manual_seed(0)
    return VanillaNet(10, in_channels=1, depth=5, width=4, stem_kernel=1, stem_stride=1, series_order=1)


def assert_close(ours, theirs, **tolerances):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], **tolerances)


class Frames:
    """A backend that counts what it is given to compile, and runs it as it is."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


def test_generated_code_trains_as_what_is_written(fit_digits):
    """With inductor: the C++ of one small region."""
    nets = []
    for callbacks in ([], [Compile()]):
        torch.manual_seed(0)
        nets.append(fit_digits(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), *callbacks))
    assert_close(*nets, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_annealed_network_is_trained_and_merged(fit_digits):
    """A λ that moves; at the end the merge, of which the proof is the callback's own."""
    merge = MergeAtFitEnd()
    eager = fit_digits(vanillanet(), ActivationAnnealing(1), batches=2)
    compiled = fit_digits(vanillanet(), ActivationAnnealing(1), Compile(), merge, batches=2)
    assert merge.report()["merge"]["merged"] is True
    assert compiled.net.activation_lambda == 1
    assert_close(compiled, eager, rtol=1e-3, atol=1e-4)


def test_blocks_of_one_shape_share_code_and_gates_stay_outside(fit_digits):
    frames = Frames()
    eager = fit_digits(resnet(), StochasticDepth(0.5, seed=3), batches=8)
    compiled = fit_digits(resnet(), StochasticDepth(0.5, seed=3), Compile(backend=frames), batches=8)
    # Six blocks of five shapes: two of the first stage, and two each that begin or continue another.
    assert frames.count == 5
    assert_close(compiled, eager, rtol=0, atol=0)


def test_evaluation_and_copies_are_as_written(fit_digits):
    frames, after = Frames(), []

    class Copies(L.Callback):
        def on_train_end(self, trainer, pl_module):
            pl_module.eval()
            compiled = frames.count
            copied = copy.deepcopy(pl_module)
            with torch.no_grad():
                next(copied.net.parameters()).zero_()
                images = torch.ones(2, 1, 8, 8)
                after.append((frames.count - compiled, torch.equal(copied(images), pl_module(images))))

    module = fit_digits(resnet(), Compile(backend=frames), WeightAveraging(0.5), Copies())
    assert frames.count > 0
    assert after == [(0, False)]
    assert not [part for part in module.net.modules() if {"branch", "forward"} & set(vars(part))]


def test_a_resumed_fit_ends_as_one_that_never_stopped(fit_digits, tmp_path):
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit_digits(resnet(8), Compile(UNGENERATED), StochasticDepth(0.5, seed=3), keep)
    torch.compiler.reset()
    drop = StochasticDepth(0.5, seed=3)
    resumed = fit_digits(resnet(8), Compile(UNGENERATED), drop, ckpt_path=tmp_path / "step=2.ckpt")
    assert_close(resumed, whole, rtol=0, atol=0)


def test_a_run_trained_compiled_is_taken_apart(fathom, tiny_config, tmp_path):
    root = tmp_path / "runs"
    compiled = "--trainer.callbacks+=Compile", "--trainer.callbacks.backend", UNGENERATED
    assert fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", root, *compiled) == (0, "")
    (run,) = root.glob("tiny/*")
    assert not [name for name in load_checkpoint(run).state_dict() if "_orig_mod" in name]
    assert fathom("lesion", run, "--images", 16, "--draws", 1, "--wandb.mode", "disabled") == (0, "")
    (table,) = run.glob("**/lesion*.csv")
    assert table.read_text().count("\n") > 3


def test_a_network_without_gates_is_compiled_as_a_whole(fit_digits):
    frames = Frames()
    fit_digits(resnet(), Compile(backend=frames), max_epochs=1)
    assert frames.count == 1


def test_weights_of_others_compiled_networks_are_accepted(fit_digits, tmp_path):
    fit_digits(vanillanet(), ModelCheckpoint(tmp_path, "theirs"), max_epochs=1)
    checkpoint = torch.load(tmp_path / "theirs.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name.replace("net.", "net._orig_mod.", 1): value for name, value in state.items()}
    assert any("_orig_mod" in name for name in checkpoint["state_dict"])
    torch.save(checkpoint, tmp_path / "compiled.ckpt")
    net = vanillanet()
    loaded = load_checkpoint(tmp_path / "compiled.ckpt", net=net).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("callbacks", "environment", "words"),
    [
        (
            [Compile()],
            {"CXX": "no-such-compiler"},
            "needs a C.. compiler, and there is no no-such-compiler: install one",
        ),
        ([Compile(graphs=True)], {}, "captures CUDA graphs on one GPU, and this fit runs on cpu"),
        ([Compile(UNGENERATED), StochasticDepth(mode="sample")], {}, "set its mode to batch, or remove Compile"),
    ],
    ids=["no compiler", "no GPU", "windows"],
)
def test_what_cannot_be_compiled_is_refused_in_a_sentence(callbacks, environment, words, fit_digits, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MisconfigurationException, match=words):
        fit_digits(resnet(), *callbacks)


def test_captured_gradients_are_not_accumulated():
    """A replay overwrites those of the one before."""
    gpu = SimpleNamespace(root_device=torch.device("cuda"))
    trainer = SimpleNamespace(strategy=gpu, world_size=1, accumulate_grad_batches=2, callbacks=[], datamodule=None)
    with pytest.raises(MisconfigurationException, match="accumulate_grad_batches to 1, or graphs to false"):
        Compile(graphs=True)._check(trainer)


def test_capturing_leaves_batch_statistics_and_random_numbers_as_they_were(monkeypatch):
    """As far as it goes without a GPU: capturing runs the function a few times."""

    def capture(part, samples, **_):
        for _ in range(3):
            part(*samples)
        torch.rand(1)  # as dropout would
        return part

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    block, expected = (next(iter(resnet().residual_blocks().values())).train() for _ in range(2))
    replayed = graphed(block, type(block).branch)
    images = torch.randn(4, 4, 8, 8)
    draws = torch.get_rng_state()
    for _ in range(2):
        assert torch.equal(replayed(block, images), expected.branch(images))
    assert torch.equal(torch.get_rng_state(), draws)
    assert_close(block, expected, rtol=0, atol=0)
