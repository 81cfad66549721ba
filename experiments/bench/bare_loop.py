"""Training as one would write it down without Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from experiments.bench.timing import Precision

Batch = tuple[Tensor, Tensor]


class BareLoop:
    """A network, SGD, a schedule, running loss and accuracy.

    Args:
        net: takes images (N, C, H, W) and returns logits.
        precision: as Lightning calls it.
        device: that it is trained on.
    """

    def __init__(self, net: nn.Module, precision: Precision, device: torch.device) -> None:
        self.net = net.to(device)
        self.device = device
        self.optimizer = create_optimizer_v2(self.net, opt="sgd", lr=0.1, weight_decay=1e-4, momentum=0.9)
        self.scheduler = LambdaLR(self.optimizer, lambda step: 1.0)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed" and device.type == "cuda")
        self.autocast = autocast(precision, device)

    def train(self, batches: Iterable[Batch]) -> None:
        """A step with each batch."""
        total, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.net.train()
        for batch in batches:
            images, labels = (part.to(self.device, non_blocking=True) for part in batch)
            with self.autocast():
                logits = self.net(images)
                loss = F.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.scheduler.step()
            total += loss.detach()
            hits += (logits.argmax(1) == labels).sum()

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> int:
        """The number of images that are classified correctly."""
        hits = torch.zeros((), device=self.device)
        self.net.eval()
        for batch in batches:
            images, labels = (part.to(self.device, non_blocking=True) for part in batch)
            with self.autocast():
                hits += (self.net(images).argmax(1) == labels).sum()
        return int(hits)


def autocast(precision: Precision, device: torch.device) -> Callable[[], torch.autocast]:
    """The context of a forward pass; Lightning's 16-mixed is bfloat16 on a CPU."""
    half = torch.float16 if precision == "16-mixed" and device.type == "cuda" else torch.bfloat16
    return lambda: torch.autocast(device.type, half, enabled=precision != "32-true", cache_enabled=False)
