"""Pairs of convolutions merged in mid-fit: what stays, what is resumed, what is refused."""

import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import callbacks.merge_when_annealed
from callbacks import (
    ActivationAnnealing,
    Compile,
    GradientStatistics,
    MergeAtFitEnd,
    MergeError,
    MergeWhenAnnealed,
    StochasticDepth,
    WeightAveraging,
)
from lit_models import AnnealedCIFARResNet, CIFARResNet, ImageClassifier, VanillaNet, load_checkpoint

TINY = {"depth": 5, "width": 4, "stem_kernel": 2, "stem_stride": 2, "series_order": 1}


def around(net, optimizer="adamw"):
    return ImageClassifier(net, 4, optimizer=optimizer, lr=1e-3, schedule="constant")


class Watch(L.Callback):
    """The optimizer's state and the network around the merge."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 0:
            optimizer = trainer.optimizers[0]
            self.steps = {parameter: int(state.get("step", 0)) for parameter, state in optimizer.state.items()}
            self.after = copy.deepcopy(pl_module.net)
            self.live = list(pl_module.net.parameters())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 0:
            self.before = copy.deepcopy(pl_module.net)


def chain():
    saved = ModelCheckpoint(filename="{epoch}", save_top_k=-1)
    return [WeightAveraging(0.5), ActivationAnnealing(1), MergeWhenAnnealed(), MergeAtFitEnd(), Watch(), saved]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit of three epochs, the second of which begins with λ = 1: its module, callbacks and directory."""
    import tests.callbacks.conftest as small

    path = tmp_path_factory.mktemp("fit")
    used = chain()
    return small._fit(path, *used, max_epochs=3), used, path


def test_it_computes_what_it_did(fitted, data):
    _, (*_, watch, _), _ = fitted
    before, after = watch.before.double().eval(), watch.after.double().eval()
    before.set_activation_lambda(1.0)
    assert before.deep_training
    assert not after.deep_training
    assert sum(map(torch.Tensor.numel, after.parameters())) < sum(map(torch.Tensor.numel, before.parameters()))
    images = data().dataset.tensors[0].double()
    with torch.no_grad():
        torch.testing.assert_close(after(images), before(images), rtol=1e-4, atol=1e-6)


def test_it_is_the_form_without_deep_training(fitted):
    module, *_ = fitted
    shallow = VanillaNet(4, **TINY, deep_training=False)
    shapes = [(name, value.shape) for name, value in shallow.state_dict().items()]
    assert [(name, value.shape) for name, value in module.net.state_dict().items()] == shapes


def test_the_optimizer_keeps_the_state_of_all_but_merged_convolutions(fitted):
    module, (*_, watch, _), _ = fitted
    kept = [parameter for parameter in watch.live if parameter in watch.steps]
    names = {parameter: name for name, parameter in module.net.named_parameters()}
    assert {names[parameter] for parameter in watch.live} == set(names.values())
    assert all(step == 4 for step in watch.steps.values())  # none of a parameter that is gone
    assert len(watch.steps) == len(kept)
    new = {names[parameter] for parameter in watch.live if parameter not in watch.steps}
    convolutions = ("stem.convs.first.0", *(f"blocks.{i}.convs.first.0" for i in range(3)), "head.first")
    assert new == {f"{name}.{part}" for name in convolutions for part in ("weight", "bias")}


def test_nothing_is_left_to_merge_at_the_end(fitted, data):
    module, used, path = fitted
    assert used[3].report()["merge"]["merged"] is True
    merged = load_checkpoint(path / "merged.ckpt")
    images = data().dataset.tensors[0]
    with torch.no_grad():
        torch.testing.assert_close(merged(images), module.eval()(images), rtol=1e-4, atol=1e-5)
    report = used[2].report()["merge_when_annealed"]
    assert (report["epoch"], report["step"]) == (1, 4)
    assert report["relative_logit_difference_float64"] <= 1e-10
    assert report["parameters_merged"] < report["parameters"]


@pytest.mark.parametrize(("epoch", "deep"), [(0, True), (1, False)])
def test_a_checkpoint_says_which_form_it_has_and_resumes_bit_for_bit(fitted, fit, tmp_path, epoch, deep):
    module, _, path = fitted
    (checkpoint,) = path.rglob(f"epoch={epoch}.ckpt")
    loaded = load_checkpoint(checkpoint)
    assert loaded.net.deep_training is deep
    resumed = fit(
        tmp_path,
        *chain(),
        module=around(VanillaNet(4, **TINY, deep_training=deep)),
        max_epochs=3,
        ckpt_path=checkpoint,
    )
    expected = module.state_dict()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
def test_other_networks_and_optimizers(fit, data, tmp_path, optimizer):
    """Convolutions without bias: the normalisation after them takes what the merged one would have."""
    module = around(AnnealedCIFARResNet(8, 4, width=4, series_order=1), optimizer)
    watch, merge = Watch(), MergeWhenAnnealed()
    trained = fit(tmp_path, ActivationAnnealing(1), merge, GradientStatistics(), watch, module=module, max_epochs=2)
    assert not trained.net.deep_training
    assert merge.report()["merge_when_annealed"]["relative_logit_difference_float64"] <= 1e-10
    before, after = watch.before.double().eval(), watch.after.double().eval()
    before.set_activation_lambda(1.0)
    images = data().dataset.tensors[0].double()
    with torch.no_grad():
        torch.testing.assert_close(after(images), before(images), rtol=1e-4, atol=1e-6)
    load_checkpoint(next(tmp_path.rglob("*.ckpt")))


def test_a_difference_leaves_the_network_as_it_was(fit, model, tmp_path, monkeypatch):
    def wrong(net):
        merged = right(net)
        merged.head.first.bias.data += 1
        return merged

    right = callbacks.merge_when_annealed.pairs_merged
    monkeypatch.setattr(callbacks.merge_when_annealed, "pairs_merged", wrong)
    module = model()
    with pytest.raises(MergeError, match=r"differs from the trained one.*stays as it was"):
        fit(tmp_path, ActivationAnnealing(1), MergeWhenAnnealed(), module=module, max_epochs=2)
    assert module.net.deep_training


@pytest.mark.parametrize(
    ("used", "net", "words"),
    [
        ((), None, r"nothing moves it from 0: add ActivationAnnealing"),
        ((GradientStatistics(),), CIFARResNet(8, 4), "needs a network that implements .*DeeplyTrained"),
        ((), VanillaNet(4, **TINY, deep_training=False), "finds no pairs of convolutions"),
        ((StochasticDepth(),), AnnealedCIFARResNet(8, 4, width=4), "StochasticDepth holds on"),
    ],
    ids=["no annealing", "no pairs to speak of", "no pairs", "gates"],
)
def test_refusals(fit, model, tmp_path, used, net, words):
    module = around(net) if net else model()
    with pytest.raises(MisconfigurationException, match=words):
        fit(tmp_path, *used, MergeWhenAnnealed(), module=module, max_epochs=2)


def test_images_to_compare_on_are_needed():
    with pytest.raises(MisconfigurationException, match="num_images=0"):
        MergeWhenAnnealed(num_images=0)


def test_refused_before_the_annealing_and_with_captured_graphs(fit, tmp_path, monkeypatch):
    with pytest.raises(MisconfigurationException, match="has to be listed after ActivationAnnealing"):
        fit(tmp_path, MergeWhenAnnealed(), ActivationAnnealing(1), max_epochs=2)
    monkeypatch.setattr(Compile, "_check", lambda *_: None)
    with pytest.raises(MisconfigurationException, match="Compile holds on"):
        fit(tmp_path, ActivationAnnealing(1), MergeWhenAnnealed(), Compile("eager", graphs=True), max_epochs=2)
