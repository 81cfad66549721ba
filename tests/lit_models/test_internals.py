"""What the fence of private names promises the networks and tasks holds for the releases that are installed."""

import lightning as L
import timm
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn

from lit_models import internals


class Noting(L.LightningModule):
    """Notes where its constructor was called."""

    def __init__(self, width: int = 1):
        super().__init__()
        self.from_settings = internals.built_from_settings()


def test_a_constructor_knows_whether_it_is_called_with_settings(seen_with):
    with seen_with(internals, "lightning"):
        assert not Noting().from_settings
        cli = LightningCLI(Noting, run=False, save_config_callback=None, args=["--model.width", "2"])
        assert cli.model.from_settings


def test_patches_become_tokens_with_positions(seen_with):
    with seen_with(internals, "timm"):
        net = timm.create_model("test_vit", img_size=32, num_classes=3, dynamic_img_size=False)
        patches = torch.zeros(2, 4, net.embed_dim)
        tokens = internals.with_positions(net, patches)
        expected = torch.cat([net.cls_token, torch.zeros(1, 4, net.embed_dim)], 1) + net.pos_embed
        assert torch.equal(tokens, expected.expand(2, -1, -1))


def test_a_block_sees_a_state_before_it_is_loaded(seen_with):
    class Noted(nn.Module):
        def _load_from_state_dict(self, state_dict, *_):
            seen.append(dict(state_dict))

    with seen_with(internals, "torch"):
        seen = []
        nn.Sequential(Noted()).load_state_dict({"0.weight": torch.ones(1)}, strict=False)
        assert len(seen) == 1
        assert internals.OVERRIDDEN["GatedBlock"] == {"_load_from_state_dict"}
