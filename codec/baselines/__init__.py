"""Gradient compressors from the literature, in the codec's harness, to compare with."""

from .base import Baseline, BaselineDecoder, BaselineEncoder
from .casts import BFloat16, Float16, Float32
from .companded import Companded
from .dithered import DitheredLattice
from .eden import Eden
from .int8 import Int8
from .powersgd import PowerSGD
from .qsgd import QSGD
from .registry import baseline_names, make_baseline
from .rotated import RotatedIntegers
from .signs import ScaledSign, SignSGD
from .terngrad import TernGrad
from .topk import TopK

__all__ = [
    "BFloat16",
    "Baseline",
    "BaselineDecoder",
    "BaselineEncoder",
    "Companded",
    "DitheredLattice",
    "Eden",
    "Float16",
    "Float32",
    "Int8",
    "PowerSGD",
    "QSGD",
    "RotatedIntegers",
    "ScaledSign",
    "SignSGD",
    "TernGrad",
    "TopK",
    "baseline_names",
    "make_baseline",
]
