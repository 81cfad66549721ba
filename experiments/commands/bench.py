"""Measure what is claimed of speed, side by side with what others offer."""

from experiments.bench.data import data
from experiments.bench.lesion import lesion
from experiments.bench.resumption import resumption
from experiments.bench.step import step
from experiments.bench.stochastic_depth import stochastic_depth
from experiments.bench.transfer import transfer

bench = {
    "data": data,
    "lesion": lesion,
    "resumption": resumption,
    "step": step,
    "stochastic-depth": stochastic_depth,
    "transfer": transfer,
}
