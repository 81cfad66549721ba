"""``fathom bench``: what is claimed of speed, measured side by side in one run."""

from experiments.bench.data import data
from experiments.bench.lesion import lesion
from experiments.bench.step import step
from experiments.bench.stochastic_depth import stochastic_depth

bench = {"data": data, "lesion": lesion, "step": step, "stochastic-depth": stochastic_depth}
