"""CUDA graphs: kernels that are captured once and replayed by a single launch. No GPU has run this yet."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

# Threads that pin batches meanwhile must not end a capture; older versions of torch don't know the argument.
_MODE = "capture_error_mode"
_CAPTURE: Any = {_MODE: "thread_local"} if _MODE in signature(torch.cuda.make_graphed_callables).parameters else {}


class _Part(nn.Module):
    """A function of a module as a module of its own, which knows the parameters."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(self.module, *args)


def graphed(module: nn.Module, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function(module, *tensors)``, replayed, with its backward pass, as a CUDA graph for each shape of the tensors.

    A result is overwritten by the next replay, so the backward pass of a step has to come before the forward pass of
    the next. So is a gradient, which must not be accumulated over several. Capturing runs the function a few times, and
    leaves the buffers of ``module`` and the device's random numbers as they were.
    """
    captured: dict[Any, Callable[..., Tensor]] = {}

    def replay(_: nn.Module, *tensors: Tensor) -> Tensor:
        key = tuple((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in tensors)
        if key not in captured:
            captured[key] = _capture(_Part(module, function), tensors)
        return captured[key](*tensors)

    return replay


def _capture(part: _Part, tensors: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    before, draws = [buffer.clone() for buffer in part.buffers()], torch.cuda.get_rng_state()
    samples = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors)
    # Of a branch, the parameters of the shortcut are not used.
    replayed: Any = torch.cuda.make_graphed_callables(part, samples, allow_unused_input=True, **_CAPTURE)
    torch.cuda.set_rng_state(draws)
    with torch.no_grad():
        for buffer, value in zip(part.buffers(), before, strict=True):
            buffer.copy_(value)
    return replayed
