"""Baselines by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .base import Baseline
from .casts import BFloat16, Float16, Float32
from .companded import Companded
from .dithered import DitheredLattice
from .eden import Eden
from .int8 import Int8
from .powersgd import PowerSGD
from .qsgd import QSGD
from .rotated import RotatedIntegers
from .signs import ScaledSign, SignSGD
from .terngrad import TernGrad
from .topk import TopK

_CLASSES: tuple[type[Baseline], ...] = (
    Float32,
    Float16,
    BFloat16,
    Int8,
    QSGD,
    TernGrad,
    ScaledSign,
    SignSGD,
    TopK,
    PowerSGD,
    Eden,
    DitheredLattice,
    RotatedIntegers,
    Companded,
)
_VARIANTS: Mapping[str, tuple[type[Baseline], Mapping[str, Any]]] = {
    **{kind.name: (kind, {}) for kind in _CLASSES},
    "dgc": (TopK, {"fraction": 0.001, "momentum": 0.9}),
    "drive": (Eden, {"bits": 1}),
}


def baseline_names() -> tuple[str, ...]:
    """Names that `make_baseline` takes. `dgc` is top-k with momentum correction, `drive` is EDEN with one bit."""
    return tuple(_VARIANTS)


def make_baseline(name: str, **options: Any) -> Baseline:
    """A baseline with its options; two calls with equal arguments make the two ends of a link.

    Args:
        name: one of `baseline_names()`.
        options: the attributes of the baseline's class.

    Raises:
        ConfigError: if the name or an option is unknown, or a value out of range.

    Examples:
        >>> import torch
        >>> from deadreckon.forecast import pack
        >>> vector, layout = pack(torch.nn.Linear(64, 64))
        >>> encoder = make_baseline("eden", bits=2).encoder(layout)
        >>> decoder = make_baseline("eden", bits=2).decoder(layout)
        >>> torch.equal(decoder.decode(encoder.encode(vector, step=1)), encoder.reconstruction)
        True
    """
    if name not in _VARIANTS:
        raise ConfigError(f"A baseline's name must be one of {baseline_names()}, got {name!r}.")
    kind, preset = _VARIANTS[name]
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(f"Unknown options of {name!r}: {unknown}. There are: {sorted(known)}.")
    return kind(**{**preset, **options})
