"""The bookkeeping of a run: checkpoints, signals, seeds, the summary."""
