"""The forecasters: history in, forecast out."""

from .closed_form import ClosedForm
from .errors import FittingError, ModelError, ModelFileError
from .fitting import Budget, FitReport, FittableForecaster, fit_forecaster
from .hold import Hold
from .learned_linear import LearnedLinear
from .linear import Linear
from .neural_ode import NeuralODE
from .optimizer_moments import OptimizerMoments
from .quadratic import Quadratic
from .registry import closed_form_names, forecaster_names, learned_names, make_forecaster
from .saving import load_forecaster, save_forecaster

__all__ = [
    "Budget",
    "ClosedForm",
    "FitReport",
    "FittableForecaster",
    "FittingError",
    "Hold",
    "LearnedLinear",
    "Linear",
    "ModelError",
    "ModelFileError",
    "NeuralODE",
    "OptimizerMoments",
    "Quadratic",
    "closed_form_names",
    "fit_forecaster",
    "forecaster_names",
    "learned_names",
    "load_forecaster",
    "make_forecaster",
    "save_forecaster",
]
