"""Count what an Inception module costs, naive and with bottlenecks."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

from experiments.claims.inception_cost import IMAGE_SHAPE, WIDTHS, convolution_macs
from lit_models.cost import count_macs, count_parameters
from lit_models.networks.inception import InceptionModule


def inception() -> None:
    """Count the multiply-adds of each convolution of the lecture's Inception module, naive and with bottlenecks."""
    totals = []
    for bottleneck in (False, True):
        with torch.device("meta"):
            module = InceptionModule(IMAGE_SHAPE[0], WIDTHS, bottleneck, batch_norm=False)
        table = Table(
            "convolution",
            "multiply-adds",
            title=f"{'Bottleneck' if bottleneck else 'Naive'} module on 28×28×256",
            min_width=48,
        )
        table.columns[1].justify = "right"
        for name, macs in convolution_macs(module):
            table.add_row(name, f"{macs / 1e6:.2f} M")
        total = count_macs(module, IMAGE_SHAPE)
        totals.append(total)
        table.add_section()
        table.add_row("all", f"{total / 1e6:.2f} M")
        table.add_row("parameters", f"{count_parameters(module):,}")
        table.add_row("channels out", f"{module.out_channels}")
        Console().print(table)
    naive, with_bottlenecks = totals
    twice = next(macs for name, macs in convolution_macs(module) if name.startswith("3×3"))
    print(
        f"The bottlenecks save a factor of {naive / with_bottlenecks:.2f}. The slides say 358M for them, though their"
        f" own terms add up to {with_bottlenecks / 1e6:.2f}M:\nwith the 3×3 convolution counted twice it is"
        f" {(with_bottlenecks + twice) / 1e6:.2f}M."
    )
