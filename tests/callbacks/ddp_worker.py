"""Twenty steps that skip blocks, or forty around a merge, on one or two processes, recorded; started by test_*_ddp.py.

Lightning starts the second process by running this file again.
"""

import argparse
import hashlib
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import ActivationAnnealing, Compile, EffectivePathTraining, MergeWhenAnnealed, StochasticDepth
from lit_models import AnnealedCIFARResNet, CIFARResNet, ImageClassifier

STEPS, BATCH_SIZE = 20, 4


class Recorder(L.Callback):
    def __init__(self):
        self.gates, self.hashes, self.gradients = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.gates.append([str(block.gate) for block in pl_module.net.residual_blocks().values()])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        parameters = torch.cat([p.detach().flatten() for p in pl_module.net.parameters()])
        self.hashes.append(hashlib.sha256(parameters.numpy().tobytes()).hexdigest())
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            blocks = pl_module.net.residual_blocks().values()
            self.gradients.append([any(p.grad is not None for p in block.branch_parameters()) for block in blocks])


class EveryNth:
    """Batches rank, rank + world, … in order."""

    def __init__(self, trainer):
        self.trainer = trainer

    def __iter__(self):
        for batch in range(self.trainer.global_rank, 2 * STEPS, self.trainer.world_size):
            yield list(range(batch * BATCH_SIZE, (batch + 1) * BATCH_SIZE))

    def __len__(self):
        return 2 * STEPS // self.trainer.world_size


def freeze_batch_norm(net):
    """Normalise with the running statistics, in training too: then an image does not depend on its batch."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            module.eval()
            module.train = lambda mode=True: None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--mode", default="batch")
    parser.add_argument("--survival_prob", type=float, default=0.3)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)

    torch.manual_seed(0)
    net = AnnealedCIFARResNet(8, width=4, series_order=1) if args.merge else CIFARResNet(20, width=4)
    net.double()
    if args.frozen:
        freeze_batch_norm(net)
    images = torch.randn(2 * STEPS * BATCH_SIZE, 3, 8, 8, dtype=torch.float64)
    data = TensorDataset(images, torch.arange(len(images)) % 10)
    recorder = Recorder()
    if args.merge:
        used = [ActivationAnnealing(1), MergeWhenAnnealed()]  # before the second epoch
    elif args.blocks:
        used = [EffectivePathTraining(args.blocks, seed=1)]
    else:
        used = [StochasticDepth(args.survival_prob, mode=args.mode, seed=1)]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        accumulate_grad_batches=args.accumulate,
        use_distributed_sampler=False,
        max_epochs=2 if args.merge else 1,
        default_root_dir=args.directory,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*used, recorder, *([Compile("aot_eager")] if args.compile else [])],
    )
    module = ImageClassifier(net, 10, schedule="constant", lr=0.05, weight_decay=0.1)
    trainer.fit(module, DataLoader(data, batch_sampler=EveryNth(trainer)))
    torch.save(
        {
            "gates": recorder.gates,
            "hashes": recorder.hashes,
            "gradients": recorder.gradients,
            "steps": trainer.global_step,
            "parameters": {name: p.detach() for name, p in net.named_parameters()},
        },
        args.directory / f"rank{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main()
