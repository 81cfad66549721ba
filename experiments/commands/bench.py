"""Measure what is claimed of speed, side by side with what others offer."""

from experiments.bench.data import data
from experiments.bench.epoch import epoch
from experiments.bench.latency import latency
from experiments.bench.lesion import lesion
from experiments.bench.merged_pairs import merged_pairs
from experiments.bench.resumption import resumption
from experiments.bench.step import step
from experiments.bench.stochastic_depth import stochastic_depth
from experiments.bench.transfer import transfer

bench = {
    "data": data,
    "epoch": epoch,
    "latency": latency,
    "lesion": lesion,
    "merged-pairs": merged_pairs,
    "resumption": resumption,
    "step": step,
    "stochastic-depth": stochastic_depth,
    "transfer": transfer,
}
