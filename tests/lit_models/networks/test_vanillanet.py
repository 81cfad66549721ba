"""VanillaNet against the numbers of its authors, and its merge against itself."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lit_models.networks.folding
from lit_models.cost import count_macs, count_parameters
from lit_models.interfaces import AnnealedActivations, Reparameterizable
from lit_models.networks import annealed
from lit_models.networks.annealed import SeriesActivation, annealed_relu
from lit_models.networks.vanillanet import VanillaNet

WIDE = {"depth": 13, "width": 768}
ADA_POOL = {**WIDE, "stem_stride": 3, "adaptive_pool": True}
# Parameters of the merged and the training form, GMAC of the same at 224×224 (paper, and counted in the authors' code).
TABLE = [
    ({"depth": 5}, 15_523_304, 22_328_800, 5.16, 8.45),
    ({"depth": 6}, 32_509_416, 56_116_704, 5.99, 10.10),
    ({"depth": 7}, 32_797_672, 56_670_176, 6.89, 11.83),
    ({"depth": 8}, 37_096_424, 65_175_520, 7.74, 13.49),
    ({"depth": 9}, 41_395_176, 73_680_864, 8.58, 15.16),
    ({"depth": 10}, 45_693_928, 82_186_208, 9.42, 16.82),
    ({"depth": 11}, 49_992_680, 90_691_552, 10.26, 18.48),
    ({"depth": 12}, 54_291_432, 99_196_896, 11.10, 20.15),
    ({"depth": 13}, 58_590_184, 107_702_240, 11.94, 21.81),
    (WIDE, 127_796_200, 236_942_048, 26.55, 48.75),
    (ADA_POOL, 127_796_200, 236_942_048, 48.98, 89.97),
]
VARIANTS = [row[0] for row in TABLE]


def randomised(net: nn.Module) -> nn.Module:
    """``net`` with batch normalisation and weights far from those it is born with, in evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.5)
    return net.eval()


def narrow(series_order: int = 3, **variant) -> VanillaNet:
    """A variant of the table, at the end of annealing, with so few channels that it runs at once."""
    torch.manual_seed(0)
    net = VanillaNet(**{"num_classes": 7, **variant, "width": 6, "series_order": series_order})
    net.set_activation_lambda(1.0)
    return randomised(net)


def merge_error(net: VanillaNet, dtype: torch.dtype) -> float:
    """Largest difference of logits by the merge, relative to the largest logit."""
    net = copy.deepcopy(net).to(dtype)
    images = torch.randn(2, 3, 96, 96, dtype=dtype)
    with torch.no_grad():
        before = net(images)
        net.reparameterize()
        return ((net(images) - before).abs().max() / before.abs().max()).item()


@pytest.mark.parametrize(("variant", "merged", "trained", "gmac_merged", "gmac_trained"), TABLE)
def test_parameters_and_macs_equal_the_papers(variant, merged, trained, gmac_merged, gmac_trained):
    with torch.device("meta"):
        train_form = VanillaNet(**{"num_classes": 1000, **variant})
        merged_form = VanillaNet(**{"num_classes": 1000, **variant}, reparameterized=True)
    assert count_parameters(train_form) == trained
    assert count_parameters(merged_form) == merged
    assert count_macs(train_form, (3, 224, 224)) / 1e9 == pytest.approx(gmac_trained, abs=0.006)
    assert count_macs(merged_form, (3, 224, 224)) / 1e9 == pytest.approx(gmac_merged, abs=0.006)


@pytest.mark.parametrize("series_order", range(5))
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_merge_changes_nothing(variant, series_order):
    net = narrow(series_order, **variant)
    assert merge_error(net, torch.float64) <= 1e-10
    assert merge_error(net, torch.float32) <= 1e-4


def test_merged_form_is_shallow_and_merging_twice_changes_nothing():
    net = narrow(depth=6)
    net.reparameterize()
    once = copy.deepcopy(net.state_dict())
    net.reparameterize()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert sum(isinstance(module, nn.Conv2d) and module.groups == 1 for module in net.modules()) == 6
    assert once.keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in once.items())
    assert narrow(depth=6, reparameterized=True).state_dict().keys() == once.keys()


def test_merge_is_seen_to_fail_without_batch_norm(monkeypatch):
    monkeypatch.setattr(annealed, "fold_batch_norm", lambda conv, bn: conv)
    assert merge_error(narrow(depth=6), torch.float64) > 1e-2


def test_merge_is_seen_to_fail_with_the_matrices_swapped(monkeypatch):
    def swapped(first, second):
        # Possible without an error in shape where both are square: that is what hides the mistake.
        square = first.weight.shape[:2] == second.weight.shape[:2] and first.kernel_size == (1, 1)
        one, other = (second, first) if square else (first, second)
        return lit_models.networks.folding.compose_pointwise(one, other)

    net = narrow(depth=6)
    monkeypatch.setattr(annealed, "compose_pointwise", swapped)
    assert merge_error(net, torch.float64) > 1e-2


def test_merge_is_seen_to_fail_without_the_first_bias(monkeypatch):
    def without_first_bias(first, second):
        nn.init.zeros_(first.bias)
        return lit_models.networks.folding.compose_pointwise(first, second)

    net = narrow(depth=6)
    monkeypatch.setattr(annealed, "compose_pointwise", without_first_bias)
    assert merge_error(net, torch.float64) > 1e-2


@pytest.mark.parametrize("value", [0.0, 0.999999])
def test_merge_refuses_an_unfinished_annealing_and_changes_nothing(value):
    net = narrow(depth=5)
    net.set_activation_lambda(value)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match="λ"):
        net.reparameterize()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_lambda_blends_relu_into_the_identity():
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(annealed_relu(x, torch.tensor(0.0)), F.relu(x))
    assert torch.equal(annealed_relu(x, torch.tensor(1.0)), x)
    torch.testing.assert_close(annealed_relu(x, torch.tensor(0.3)), F.leaky_relu(x, 0.3))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_lambda_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match="λ"):
        narrow(depth=5).set_activation_lambda(value)


def test_lambda_is_in_the_state_dict_and_changes_the_logits():
    net, images = narrow(depth=5), torch.randn(2, 3, 64, 64)
    net.set_activation_lambda(0.4)
    other = VanillaNet(7, depth=5, width=6).eval()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images), net(images))
        net.set_activation_lambda(0.0)
        assert not torch.allclose(other(images), net(images))


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("activation", ["relu", "gelu", "hardswish"])
def test_series_activation_equals_its_sum(order, activation):
    """A_s(x) at (h, w) = Σ a_ij·A(x at (h + i, w + j)), zero outside the map, then the affine map of the BN."""
    series = randomised(SeriesActivation(3, order, activation)).double()
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    activated = F.pad(getattr(F, activation)(x), [order] * 4)
    width = 2 * order + 1
    total = sum(
        series.conv.weight[:, 0, i, j].view(1, 3, 1, 1) * activated[:, :, i : i + 6, j : j + 5]
        for i in range(width)
        for j in range(width)
    )
    expected = F.batch_norm(
        total, series.bn.running_mean, series.bn.running_var, series.bn.weight, series.bn.bias, eps=1e-6
    )
    torch.testing.assert_close(series(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 48, 64])
def test_small_images(size):
    stem = 1 if size < 16 else 2 if size < 48 else 4
    net = VanillaNet(10, in_channels=1, depth=6, width=8, stem_kernel=stem, stem_stride=stem)
    assert net(torch.randn(2, 1, size, size)).shape == (2, 10)


def test_an_image_too_small_for_the_network_is_named():
    with pytest.raises(ValueError, match=r"8×8.*stem_stride"):
        VanillaNet(10, depth=6, width=8)(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"depth": 4}, "5 to 13"), ({"series_order": -1}, "series_order"), ({"activation": "rellu"}, "rellu")],
)
def test_arguments_that_do_not_exist_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        VanillaNet(10, **{"width": 8, **arguments})


def test_every_parameter_gets_a_gradient():
    net = VanillaNet(10, depth=6, width=8, stem_kernel=2, stem_stride=2)
    net(torch.randn(8, 3, 32, 32)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert len(gradients) > 50
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())


def test_it_offers_what_the_callbacks_ask_for():
    net = narrow(depth=5)
    assert isinstance(net, AnnealedActivations)
    assert isinstance(net, Reparameterizable)


@pytest.mark.parametrize("training", [True, False])
def test_forward_waits_for_no_device(training, fake_cuda_forward):
    logits = fake_cuda_forward(VanillaNet(10, depth=6, width=8).train(training), 2, 3, 64, 64)
    assert logits.device.type == "cuda"
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("shortcut", ["before", "after"])
@pytest.mark.parametrize("depth", [6, 9])
def test_shortcuts_are_added_before_or_after_the_activation_and_merge_exactly(depth, shortcut):
    net = narrow(depth=depth, shortcut=shortcut).double()
    images = x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        x = net.stem(x, net.activation_lambda)
        for block in net.blocks:
            convs, added = block.pool(block.convs(x, net.activation_lambda)), block.pool(x)
            added = torch.cat([added, added.new_zeros(2, convs.shape[1] - x.shape[1], *added.shape[2:])], 1)
            x = block.activation(convs + added) if shortcut == "before" else block.activation(convs) + added
        expected = net.forward_head(x)
        torch.testing.assert_close(net(images), expected, rtol=1e-12, atol=1e-12)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        assert 0 < merge_error(net, dtype) < tolerance


@pytest.mark.parametrize("deep_training", [True, False])
def test_a_new_head_has_the_form_of_the_network(deep_training):
    net = narrow(deep_training=deep_training, reparameterized=True)
    net.reset_classifier(0)
    net.reset_classifier(5)
    assert [name for name, _ in net.head.named_parameters()] == ["first.weight", "first.bias"]
    assert (net.deep_training, net.head.first.out_channels) == (deep_training, 5)
    pairs = narrow(deep_training=deep_training)
    pairs.reset_classifier(5)
    assert (pairs.head.second is not None) is deep_training


def test_shortcuts_add_no_weights_and_by_default_there_are_none():
    def state(**arguments):
        torch.manual_seed(0)
        return VanillaNet(5, depth=7, width=4, **arguments)

    default, images = state().eval(), torch.randn(1, 3, 64, 64)
    for shortcut, equal in (("none", True), ("before", False), ("after", False)):
        net = state(shortcut=shortcut).eval()
        net.load_state_dict(default.state_dict())
        with torch.no_grad():
            assert torch.equal(net(images), default(images)) is equal


@pytest.mark.parametrize("shortcut", ["none", "before", "after"])
@pytest.mark.parametrize("series_order", range(5))
@pytest.mark.parametrize("depth", range(5, 14))
def test_without_deep_training_it_has_the_layers_of_the_merged_form_and_merges_exactly_at_any_lambda(
    depth, series_order, shortcut
):
    net = narrow(series_order, depth=depth, shortcut=shortcut, deep_training=False)
    net.set_activation_lambda(0.5)
    assert sum(isinstance(module, nn.Conv2d) and module.groups == 1 for module in net.modules()) == depth
    assert merge_error(net, torch.float64) <= 1e-10
    merged = narrow(series_order, depth=depth, shortcut=shortcut, reparameterized=True)
    net.reparameterize()
    assert net.state_dict().keys() == merged.state_dict().keys()
    assert count_parameters(net) == count_parameters(merged)


@torch.no_grad()
def test_without_deep_training_a_layer_is_one_convolution_and_its_normalisation():
    net = narrow(depth=5, deep_training=False).double()
    x = images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    for block in (net.stem, *net.blocks):
        conv, bn = block.convs.first
        x = block.activation(block.pool(bn(conv(x))))
    expected = net.head.first(x.mean((2, 3), keepdim=True)).flatten(1)
    assert torch.equal(net(images), expected)
    assert isinstance(net.head.first, nn.Conv2d)


def test_the_series_is_summed_in_float32_where_bfloat16_is_slower():
    series = SeriesActivation(3)
    series.bn = nn.Identity()
    x = torch.randn(2, 3, 9, 9).bfloat16()
    expected = F.conv2d(F.relu(x).float(), series.conv.weight, padding=3, groups=3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(series(x), expected.bfloat16())


def test_the_head_is_computed_in_float32_under_autocast_on_a_cpu():
    """A step of VanillaNet-6 at its full width for ten classes ended the process there: heap corruption in oneDNN."""
    net, dtypes = VanillaNet(10, depth=5, width=4), []
    net.head.register_forward_hook(lambda head, inputs, logits: dtypes.extend((inputs[0].dtype, logits.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 3, 64, 64)).dtype == torch.bfloat16
    assert dtypes == [torch.float32, torch.float32]
