"""Physical limits: the fewest bits that any codec needs, for a named model of what it codes."""

from .marginals import GeneralisedGaussian, fit
from .prediction import causal_rate, prediction_gain
from .rate_distortion import Curve, curve, shannon_lower_bound
from .scalar import scalar_rate
from .space_filling import SECOND_MOMENTS, space_filling_loss
from .water_filling import Component, fitted_components, scale_components, water_filling

__all__ = [
    "SECOND_MOMENTS",
    "Component",
    "Curve",
    "GeneralisedGaussian",
    "causal_rate",
    "curve",
    "fit",
    "fitted_components",
    "prediction_gain",
    "scalar_rate",
    "scale_components",
    "shannon_lower_bound",
    "space_filling_loss",
    "water_filling",
]
