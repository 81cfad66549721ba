"""A network as a chain of links, so that links can be deleted, exchanged and differentiated one by one.

Nothing is copied or patched: a link calls the network's own modules. A network of this project says itself what its
links are; those of torchvision and timm are described here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch
from timm.models import convnext, vision_transformer
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torchvision import models as torchvision
from torchvision.models import resnet as torchvision_resnet

from lit_models.errors import NetworkError
from lit_models.interfaces import Link, LinkedNetwork, identity
from lit_models.internals import with_positions
from lit_models.networks.chain import two_part_links
from lit_models.networks.timm_backbone import TimmBackbone


def links(net: nn.Module) -> list[Link]:
    """The links of ``net``, from the stem to the head.

    Its own, where it has a method ``links``; otherwise those of torchvision's ResNet (ResNeXt, Wide ResNet), VGG and
    AlexNet, and of timm's ResNet (SE, D, ResNeXt, …), ConvNeXt and VisionTransformer (DeiT), in which each attention
    and each MLP is a link.

    Raises:
        NetworkError: for any other network.
    """
    return net.links() if isinstance(net, LinkedNetwork) else _links_of(net)


@singledispatch
def _links_of(net: Any) -> list[Link]:
    raise _unknown(net)


def _unknown(module: nn.Module, name: str = "") -> NetworkError:
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    return NetworkError(
        f"{kind}{name and f' ({name})'} can't be taken apart: ResNet, VGG and AlexNet of torchvision, ResNet, ConvNeXt "
        "and VisionTransformer of timm, and networks with a method `links` can (lit_models.interfaces.LinkedNetwork)."
    )


@_links_of.register
def _(net: TimmBackbone) -> list[Link]:
    return [replace(link, name=f"model.{link.name}") for link in links(net.model)]


# torchvision


@_links_of.register
def _(net: torchvision.ResNet) -> list[Link]:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    head = nn.Sequential(net.avgpool, nn.Flatten(1), net.fc)
    return [Link("conv1", 0, stem), *_four_stages(net, _torchvision_block), Link("fc", 5, head)]


def _torchvision_block(name: str, stage: int, block: Any) -> Link:
    if type(block) is torchvision_resnet.BasicBlock:
        branch = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2]
    elif type(block) is torchvision_resnet.Bottleneck:
        branch = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2, block.relu, block.conv3, block.bn3]
    else:
        raise _unknown(block, name)
    return _resnet_link(name, stage, block, branch, block.relu)


@_links_of.register(torchvision.VGG)
@_links_of.register(torchvision.AlexNet)
def _(net: Any) -> list[Link]:
    return two_part_links(net.features, net.avgpool, net.classifier)


# timm


@_links_of.register
def _(net: timm_resnet.ResNet) -> list[Link]:
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
    return [Link("conv1", 0, stem), *_four_stages(net, _timm_block), Link("fc", 5, net.forward_head)]


def _timm_block(name: str, stage: int, block: Any) -> Link:
    if type(block) is timm_resnet.BasicBlock:
        first = [block.conv1, block.bn1, block.drop_block, block.act1, block.aa]
        last, activation = [block.conv2, block.bn2], block.act2
    elif type(block) is timm_resnet.Bottleneck:
        first = [block.conv1, block.bn1, block.act1, block.conv2, block.bn2, block.drop_block, block.act2, block.aa]
        last, activation = [block.conv3, block.bn3], block.act3
    else:
        raise _unknown(block, name)
    branch = [layer for layer in (*first, *last, block.se, block.drop_path) if layer is not None]
    return _resnet_link(name, stage, block, branch, activation)


@_links_of.register
def _(net: convnext.ConvNeXt) -> list[Link]:
    modules: Any = net
    chain = [Link("stem", 0, modules.stem)]
    for number, stage in enumerate(modules.stages, start=1):
        name = f"stages.{number - 1}"
        if not isinstance(stage.downsample, nn.Identity):
            chain.append(Link(f"{name}.downsample", number, stage.downsample, transition=True))
        for i, block in enumerate(stage.blocks):
            shortcut = identity if isinstance(block.shortcut, nn.Identity) else block.shortcut
            chain.append(Link(f"{name}.blocks.{i}", number, block, shortcut, _convnext_branch(block)))
    return [*chain, Link("head", len(modules.stages) + 1, nn.Sequential(modules.norm_pre, modules.head))]


def _convnext_branch(block: Any) -> Callable[[Tensor], Tensor]:
    def branch(x: Tensor) -> Tensor:
        x = block.conv_dw(x)
        if block.use_conv_mlp:
            x = block.mlp(block.norm(x))
        else:
            x = block.mlp(block.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        if block.gamma is not None:
            x = x * block.gamma.reshape(1, -1, 1, 1)
        return block.drop_path(x)

    return branch


@_links_of.register
def _(net: vision_transformer.VisionTransformer) -> list[Link]:
    def stem(images: Tensor) -> Tensor:
        return net.norm_pre(net.patch_drop(with_positions(net, net.patch_embed(images))))

    def head(tokens: Tensor) -> Tensor:
        return net.forward_head(net.norm(tokens))

    chain = [Link("patch_embed", 0, stem)]
    for i, block in enumerate(net.blocks):
        name = f"blocks.{i}"
        if type(block) is vision_transformer.Block:
            attention = [block.norm1, block.attn, block.ls1, block.drop_path1]
            mlp = [block.norm2, block.mlp, block.ls2, block.drop_path2]
        elif type(block) is vision_transformer.ResPostBlock:
            attention = [block.attn, block.norm1, block.drop_path1]
            mlp = [block.mlp, block.norm2, block.drop_path2]
        else:
            raise _unknown(block, name)
        chain += [_sum(f"{name}.attn", attention), _sum(f"{name}.mlp", mlp)]
    return [*chain, Link("head", 2, head)]


def _sum(name: str, layers: list[nn.Module]) -> Link:
    branch = nn.Sequential(*layers)
    return Link(name, 1, lambda x: x + branch(x), identity, branch)


# The ResNets of both


def _four_stages(net: Any, link: Callable[[str, int, nn.Module], Link]) -> list[Link]:
    return [
        link(f"layer{stage}.{name}", stage, block)
        for stage in (1, 2, 3, 4)
        for name, block in getattr(net, f"layer{stage}").named_children()
    ]


def _resnet_link(name: str, stage: int, block: Any, branch: list[nn.Module], activation: nn.Module) -> Link:
    convolutions = [layer for layer in branch if isinstance(layer, nn.Conv2d)]
    return Link(
        name,
        stage,
        forward=block,
        shortcut=identity if block.downsample is None else block.downsample,
        branch=nn.Sequential(*branch),
        activation=_not_in_place(activation),
        transition=block.stride != 1 or convolutions[0].in_channels != convolutions[-1].out_channels,
    )


def _not_in_place(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.relu if isinstance(activation, nn.ReLU) else lambda x: activation(x.clone())
