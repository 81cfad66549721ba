"""What changes with time: each callback is one schedule, transformation or record."""

from callbacks.activation_annealing import ActivationAnnealing
from callbacks.compile import Compile
from callbacks.effective_paths import EffectivePathTraining
from callbacks.frozen_stages import FrozenStages
from callbacks.gradient_statistics import GradientStatistics
from callbacks.learning_rate_warmup import LearningRateWarmup
from callbacks.merge_at_fit_end import MergeAtFitEnd
from callbacks.merge_proof import MergeError
from callbacks.merge_when_annealed import MergeWhenAnnealed
from callbacks.run.best_checkpoint import BestCheckpoint
from callbacks.run.last_checkpoint import LastCheckpoint
from callbacks.run.prediction_writer import PredictionWriter
from callbacks.run.reseeding import Reseeding
from callbacks.run.run_summary import RunSummary
from callbacks.run.stop_on_nonfinite import NonFiniteError, StopOnNonFinite
from callbacks.stochastic_depth import StochasticDepth
from callbacks.validation_pictures import ValidationPictures
from callbacks.weight_averaging import WeightAveraging

__all__ = [
    "ActivationAnnealing",
    "BestCheckpoint",
    "Compile",
    "EffectivePathTraining",
    "FrozenStages",
    "GradientStatistics",
    "LastCheckpoint",
    "LearningRateWarmup",
    "MergeAtFitEnd",
    "MergeError",
    "MergeWhenAnnealed",
    "NonFiniteError",
    "PredictionWriter",
    "Reseeding",
    "RunSummary",
    "StochasticDepth",
    "StopOnNonFinite",
    "ValidationPictures",
    "WeightAveraging",
]
