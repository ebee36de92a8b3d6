"""How coordinates of one row depend on each other: rows, columns, channels and neighbours of each matrix.

Each coordinate is first divided by its root mean square over the phase, so that what is left is of this step only.
Then, within a matrix (a tensor's first dimension against all others), the mean correlation of two different entries of
the same row, of the same column, of the same kernel (a convolution's height and width), and of neighbours within a row:

    magnitude  of log2 |z|: what predicts a *scale* from the same packet
    sign       of the signs
    value      of z itself: what predicts a *value* from the same packet, or turns it away by a transform

From many entries of one row with correlation c an entry is known but for 1 - c of its variance, which saves
-log2(1 - c) / 2 bits at most; from one neighbour -log2(1 - c^2) / 2. A sign of which one other is known has
1 - h((1 + c) / 2) bits less. These are Gaussian figures, so neither bounds for other shapes nor promises.

`rank_one` is the share of a matrix's energy along its first singular direction, less what independent entries have.

References:
    R. A. Fisher (1925), Statistical Methods for Research Workers, chapter VII, on the intraclass correlation.
    V. A. Marchenko and L. A. Pastur (1967), Math. USSR Sb. 1(4), on singular values of independent entries.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...forecast.layout import TensorSpec
from .rows import Rows

WAYS = ("rows", "columns", "kernels", "neighbours")
MAX_STEPS = 8  # of a phase, evenly; neighbouring ones say the same
MIN_EXTENT = 4  # of a matrix, in both directions
FAINTEST = 2.0**-8  # of a coordinate's root mean square; smaller counts as this

Values = NDArray[Any]


@dataclass(frozen=True)
class Space:
    """How coordinates of one row depend on each other: means over matrices by size; None without any.

    Attributes:
        magnitude: correlation of log magnitudes, by way (`rows`, `columns`, `kernels`, `neighbours`).
        sign: of signs.
        value: of values.
        rank_one: share of energy along the first singular direction, above that of independent entries.
    """

    magnitude: dict[str, float | None]
    sign: dict[str, float | None]
    value: dict[str, float | None]
    rank_one: float | None

    @property
    def value_bits(self) -> float:
        """Bits a coordinate that values of the same packet save at most, the best way of them; see the module."""
        found = [0.0]
        for way, correlation in self.value.items():
            if correlation is not None:
                known = correlation**2 if way == "neighbours" else max(0.0, correlation)
                found.append(-0.5 * math.log2(max(1e-9, 1 - known)))
        return max(found)

    @property
    def sign_bits(self) -> float:
        """Bits a coordinate that one sign of the same packet saves, the best way of them."""
        return max([0.0, *(1 - binary_entropy((1 + found) / 2) for found in self.sign.values() if found is not None)])


def binary_entropy(share: float) -> float:
    """Bits of a choice between two whose shares are `share` and the rest."""
    if not 0 < share < 1:
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def space(rows: Rows) -> Space:
    """How coordinates depend on each other within the rows of one phase."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(MAX_STEPS, len(rows))).round().astype(int))
    sums: dict[tuple[str, str], float] = {}
    weights: dict[tuple[str, str], float] = {}
    for spec in rows.layout:
        if len(spec.shape) < 2 or min(spec.shape[0], math.prod(spec.shape[1:])) < MIN_EXTENT:
            continue
        values = rows.values[:, spec.span].astype(np.float64)
        deviation = np.sqrt(np.mean(values**2, axis=0))
        moving = deviation > 0
        if not moving.any():
            continue
        z = np.divide(values[chosen], deviation, out=np.zeros((len(chosen), spec.numel)), where=moving)
        for key, found in _of_matrix(spec, z, values[chosen]).items():
            if found is not None:
                sums[key] = sums.get(key, 0.0) + found * spec.numel
                weights[key] = weights.get(key, 0.0) + spec.numel
    known = {key: sums[key] / weights[key] for key in sums}
    magnitude, sign, value = ({way: known.get((kind, way)) for way in WAYS} for kind in ("magnitude", "sign", "value"))
    return Space(magnitude, sign, value, known.get(("rank_one", "")))


def alike(groups: Values) -> float | None:
    """Mean correlation of two different entries of one group, `[..., group, entry]`; None where nothing varies."""
    count = groups.shape[-1]
    centred = groups - groups.mean((-2, -1), keepdims=True)
    power = float(np.mean(centred**2))
    if count < 2 or power <= 1e-12:
        return None
    # The mean was taken off, so that independent entries would seem a little opposed: N entries by 1 / (N - 1).
    total = groups.shape[-2] * count
    together = (float(np.mean(centred.sum(-1) ** 2)) / count - power) / (count - 1)
    return min(1.0, together / power + 1 / max(1, total - 1))


def _of_matrix(spec: TensorSpec, z: Values, values: Values) -> dict[tuple[str, str], float | None]:
    height, width = spec.shape[0], math.prod(spec.shape[1:])
    found: dict[tuple[str, str], float | None] = {}
    for kind, seen in {
        "magnitude": np.log2(np.maximum(np.abs(z), FAINTEST)),
        "sign": np.sign(z),
        "value": z,
    }.items():
        matrix = seen.reshape(-1, height, width)
        found[kind, "rows"] = alike(matrix)
        found[kind, "columns"] = alike(matrix.swapaxes(1, 2))
        if len(spec.shape) > 2:
            kernel = math.prod(spec.shape[2:])
            found[kind, "kernels"] = alike(matrix.reshape(len(matrix), -1, kernel)) if kernel > 1 else None
        centred = matrix - matrix.mean((1, 2), keepdims=True)
        power = float(np.mean(centred**2))
        if power > 1e-12:
            found[kind, "neighbours"] = float(np.mean(centred[:, :, 1:] * centred[:, :, :-1])) / power
    matrices = torch.from_numpy(values.reshape(-1, height, width))
    energy = matrices.square().sum((1, 2))
    moving = energy > 0
    if bool(moving.any()):
        # The smaller Gram matrix has the same largest eigenvalue as the larger.
        tall = matrices[moving] if height <= width else matrices[moving].mT
        largest = torch.linalg.eigvalsh(tall @ tall.mT)[:, -1]
        independent = min(1.0, (math.sqrt(height) + math.sqrt(width)) ** 2 / (height * width))
        found["rank_one", ""] = float((largest / energy[moving]).mean()) - independent
    return found
