"""What changes with time: each callback is one schedule, transformation or record."""

from callbacks.activation_annealing import ActivationAnnealing
from callbacks.effective_paths import EffectivePathTraining
from callbacks.gradient_statistics import GradientStatistics
from callbacks.learning_rate_warmup import LearningRateWarmup
from callbacks.merge_at_fit_end import MergeAtFitEnd, MergeError
from callbacks.prediction_writer import PredictionWriter
from callbacks.run_summary import RunSummary
from callbacks.stochastic_depth import StochasticDepth
from callbacks.stop_on_nonfinite import NonFiniteError, StopOnNonFinite
from callbacks.weight_averaging import WeightAveraging

__all__ = [
    "ActivationAnnealing",
    "EffectivePathTraining",
    "GradientStatistics",
    "LearningRateWarmup",
    "MergeAtFitEnd",
    "MergeError",
    "NonFiniteError",
    "PredictionWriter",
    "RunSummary",
    "StochasticDepth",
    "StopOnNonFinite",
    "WeightAveraging",
]
