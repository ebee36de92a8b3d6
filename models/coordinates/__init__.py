"""Networks by few numbers, from a seed: PRANC, NOLA, LoRA and MCNC as coordinates, and supermasks."""

from .choice import choose_layout
from .contract import Part, SeededCoordinates
from .coverage import Coverage, sphere_coverage, uniform_points
from .files import load_reduced, save_reduced
from .hopfield import Hopfield, recall_by_entropy
from .kinds import make_coordinates
from .lora import LoRA
from .lossless import compress_tensors, decompress_tensors
from .mcnc import MCNC
from .nola import NOLA
from .pranc import PRANC
from .reduced_module import ReducedModule, load_parameters
from .start import GivenStart, SeededStart, Start, ZeroStart
from .supermask import Supermasks
from .supermask_files import load_supermasks, save_supermasks
from .task_inference import entropy_gradient, infer_task, surest_task

__all__ = [
    "MCNC",
    "NOLA",
    "PRANC",
    "Coverage",
    "GivenStart",
    "Hopfield",
    "LoRA",
    "Part",
    "ReducedModule",
    "SeededCoordinates",
    "SeededStart",
    "Start",
    "Supermasks",
    "ZeroStart",
    "choose_layout",
    "compress_tensors",
    "decompress_tensors",
    "entropy_gradient",
    "infer_task",
    "load_parameters",
    "load_reduced",
    "load_supermasks",
    "make_coordinates",
    "recall_by_entropy",
    "save_reduced",
    "save_supermasks",
    "sphere_coverage",
    "surest_task",
    "uniform_points",
]
