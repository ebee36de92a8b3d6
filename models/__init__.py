"""The forecasters: history in, forecast out."""

from .adaptive_linear import AdaptiveLinear
from .anderson import Anderson
from .best_of import BestOf
from .blended import Blended
from .closed_form import ClosedForm
from .damped import Damped
from .dmd import DMD
from .ema import EMA
from .errors import FittingError, ModelError, ModelFileError
from .exponential import Exponential
from .fitting import Budget, FitReport, FittableForecaster, fit_forecaster
from .flow_matching import FlowMatching
from .hold import Hold
from .introspection import Introspection
from .inverted_optimizer import InvertedOptimizer
from .lawa import LAWA
from .learned_linear import LearnedLinear
from .lfd2 import LFD2
from .linear import Linear
from .lookahead import Lookahead
from .neural_ode import NeuralODE
from .nino import NiNo
from .nino_original import released_graph
from .nino_released import ReleasedNiNo, load_released_nino
from .optimizer_moments import OptimizerMoments
from .outer_momentum import OuterMomentum
from .per_kind import PerKind
from .pretrained import load_pretrained, pretrained_card, pretrained_names
from .quadratic import Quadratic
from .registry import closed_form_names, forecaster_names, learned_names, make_forecaster, wrapper_names
from .saving import load_forecaster, save_forecaster
from .scalar_extrapolation import ScalarExtrapolation
from .trainable import TrainableForecaster, TrainingItems
from .trust_region import TrustRegion
from .tuned_line import TunedLine
from .with_graph import WithGraph
from .wnn import WNN
from .wnn_files import load_released_wnn
from .wnn_plus import WNNPlus
from .wnn_plus_files import load_released_wnn_plus
from .wrapper import Wrapper

__all__ = [
    "AdaptiveLinear",
    "FlowMatching",
    "OuterMomentum",
    "Lookahead",
    "LAWA",
    "Exponential",
    "EMA",
    "DMD",
    "Anderson",
    "BestOf",
    "Blended",
    "Budget",
    "ClosedForm",
    "Damped",
    "FitReport",
    "FittableForecaster",
    "FittingError",
    "Hold",
    "Introspection",
    "InvertedOptimizer",
    "LFD2",
    "LearnedLinear",
    "Linear",
    "ModelError",
    "ModelFileError",
    "NeuralODE",
    "NiNo",
    "OptimizerMoments",
    "PerKind",
    "Quadratic",
    "ReleasedNiNo",
    "ScalarExtrapolation",
    "TrainableForecaster",
    "TrainingItems",
    "TrustRegion",
    "TunedLine",
    "WNN",
    "WNNPlus",
    "WithGraph",
    "Wrapper",
    "closed_form_names",
    "fit_forecaster",
    "forecaster_names",
    "learned_names",
    "load_forecaster",
    "load_pretrained",
    "load_released_nino",
    "load_released_wnn",
    "load_released_wnn_plus",
    "make_forecaster",
    "pretrained_card",
    "pretrained_names",
    "released_graph",
    "save_forecaster",
    "wrapper_names",
]
