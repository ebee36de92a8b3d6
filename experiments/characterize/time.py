"""How rows of a stream depend on the rows before: cosines, what prediction leaves, and the gradient-noise scale.

All of it comes from the inner products of rows, tensor by tensor:

    cosine           <g_t, g_t+l> / (|g_t| |g_t+l|), a mean over pairs; large coordinates decide
    autocorrelation  the same after each coordinate was divided by its root mean square; all coordinates count alike
    momentum         cosine of g_t and the running mean of the rows before it, decay 0.9
    nmse             |g_t - a g_t-1 - b m_t-1|^2 / |g_t|^2, with a and b of each tensor fitted to even rows and judged
                     on odd ones; 1 where that is worse than no prediction
    bits             log2(1 / nmse) / 2, what such a prediction saves a coordinate at fine resolution; a mean over
                     tensors by size. With one predictor of correlation r, nmse is 1 - r^2

A gradient of a batch of B samples is G + noise, |noise|^2 = S. Means over n rows have the energy |G|^2 + S / n as long
as G stays, which gives both. B_noise = B S / |G|^2 is the batch at which they are equal; s = B / B_noise, and two
gradients in a row have the cosine s / (1 + s).

Not guaranteed: over n rows G does move, and then S is too large and the predicted cosine too small.

References:
    S. McCandlish, J. Kaplan, D. Amodei and others (2018), An Empirical Model of Large-Batch Training,
    arXiv:1812.06162, appendix A.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .rows import Rows

DECAY = 0.9
NOISE_ROWS = 8  # whose mean gives the noise scale; more average better, and over more the gradient moves further
MAX_SHOWN = 30  # rows of a heat map

Values = NDArray[Any]


@dataclass(frozen=True)
class Lag:
    """Likeness at a distance.

    Attributes:
        lag: in rows.
        cosine: mean over pairs; None where there are none.
        spread: standard deviation over pairs.
        autocorrelation: with each coordinate over its root mean square.
    """

    lag: int
    cosine: float | None
    spread: float | None
    autocorrelation: float | None


@dataclass(frozen=True)
class NoiseScale:
    """Signal and noise of gradients.

    Attributes:
        batch: B_noise in samples; None where no signal stands out of the noise.
        predicted: cosine of neighbours that follows, s / (1 + s).
        measured: that cosine, as a ratio of means.
    """

    batch: float | None
    predicted: float
    measured: float


@dataclass(frozen=True)
class Dependence:
    """How the rows of one phase depend on those before.

    Attributes:
        lags: likeness at each distance.
        momentum: cosine with the running mean of the rows before.
        nmse: of the prediction, all tensors together.
        bits: that it saves.
        noise: None where there are too few rows in a row.
        cosines: of some rows with each other, `[row, row]`.
        steps: of these rows.
    """

    lags: list[Lag]
    momentum: float
    nmse: float
    bits: float
    noise: NoiseScale | None
    cosines: Values
    steps: Values


def dependence(rows: Rows, lags: Sequence[int], batch_size: int | None) -> Dependence:
    """How the rows of one phase depend on those before.

    Args:
        rows: at least `MIN_ROWS`.
        lags: distances in rows.
        batch_size: samples of a gradient; None if unknown, or if the rows are no gradients.
    """
    products = {spec.name: _products(rows.values[:, spec.span]) for spec in rows.layout if spec.numel}
    whole = np.sum(list(products.values()), axis=0)
    norms = np.sqrt(np.maximum(np.diag(whole), 1e-300))
    cosines = whole / np.outer(norms, norms)
    deviation = np.sqrt(np.mean(np.square(rows.values, dtype=np.float64), axis=0)).astype(np.float32)
    equal = _products(np.divide(rows.values, deviation, out=np.zeros_like(rows.values), where=deviation > 0))
    found = [_lag(rows, lag, cosines, equal) for lag in lags]
    early, late = rows.pairs(1)
    memory = _memory(rows, early, late)
    momentum = _momentum_cosine(whole, memory)
    residual = energy = bits = 0.0
    for spec in rows.layout:
        if spec.numel and len(late):
            left, own = _predicted(products[spec.name], early, late, memory)
            residual, energy = residual + left, energy + own
            if 0 < left < own:
                bits += 0.5 * math.log2(own / left) * spec.numel / rows.layout.size
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_SHOWN)).round().astype(int))
    return Dependence(
        found,
        momentum,
        residual / energy if energy > 0 else 1.0,
        bits,
        _noise_scale(rows, whole, batch_size) if batch_size is not None else None,
        cosines[np.ix_(shown, shown)],
        rows.steps[shown],
    )


def cross_cosine(rows: Rows, others: Rows, shift: int = 0) -> float | None:
    """Mean cosine of rows with those of another stream `shift` of its rows before the same step; None without any."""
    places = {int(step): place for place, step in enumerate(others.steps)}
    found = []
    for place, step in enumerate(rows.steps):
        other = places.get(int(step))
        if other is None or other < shift:
            continue
        first, second = (
            rows.values[place].astype(np.float64),
            others.values[other - shift].astype(np.float64),
        )
        size = math.sqrt(float(first @ first) * float(second @ second))
        if size > 0:
            found.append(float(first @ second) / size)
    return float(np.mean(found)) if found else None


def _products(values: Values) -> Values:
    """Inner products of rows, `[row, row]`; sums of float32 products are good to 1e-6 of the norms."""
    rows = torch.from_numpy(np.ascontiguousarray(values))  # torch's threads are limited, those of numpy's BLAS not
    return (rows @ rows.T).double().numpy()


def _lag(rows: Rows, lag: int, cosines: Values, equal: Values) -> Lag:
    early, late = rows.pairs(lag)
    if not len(early):
        return Lag(lag, None, None, None)
    between = cosines[early, late]
    power = float(np.mean(np.diag(equal)))
    likeness = float(np.mean(equal[early, late])) / power if power > 0 else 0.0
    return Lag(lag, float(between.mean()), float(between.std()), likeness)


def _memory(rows: Rows, early: Values, late: Values) -> Values:
    """Weights that make of all rows the running mean of those before each, `[time, row]`; zeros after a gap."""
    before = dict(zip(late.tolist(), early.tolist(), strict=True))
    weights = np.zeros((len(rows), len(rows)))
    for row in range(len(rows)):
        last = before.get(row)
        if last is not None:
            weights[row] = DECAY * weights[last]
            weights[row, last] += 1 - DECAY
    return weights


def _momentum_cosine(whole: Values, memory: Values) -> float:
    rows = np.flatnonzero(memory.any(1))
    if not len(rows):
        return 0.0
    along = np.einsum("tj,jt->t", memory, whole)[rows]
    size = np.sqrt(np.maximum(np.einsum("tj,jk,tk->t", memory, whole, memory)[rows] * np.diag(whole)[rows], 1e-300))
    return float(np.mean(along / size))


def _predicted(products: Values, early: Values, late: Values, memory: Values) -> tuple[float, float]:
    """Squared error on the odd rows of a prediction fitted to the even ones, and their energy."""
    basis = np.zeros((len(late), 2, len(products)))
    basis[np.arange(len(late)), 0, early] = 1
    basis[:, 1] = memory[late]
    squares = np.einsum("tij,jk,tlk->til", basis, products, basis)
    along = np.einsum("tij,jt->ti", basis, products[:, late])
    energy = np.diag(products)[late]
    fitted, judged = late % 2 == 0, late % 2 == 1
    normal = squares[fitted].sum(0)
    ridge = 1e-6 * np.trace(normal) + 1e-30
    weights = np.linalg.solve(normal + ridge * np.eye(2), along[fitted].sum(0))
    own = float(energy[judged].sum())
    error = own - 2 * float(along[judged].sum(0) @ weights) + float(weights @ squares[judged].sum(0) @ weights)
    return min(max(error, 0.0), own), own


def _noise_scale(rows: Rows, whole: Values, batch_size: int) -> NoiseScale | None:
    early, late = rows.pairs(1)
    starts, _ = rows.pairs(NOISE_ROWS - 1)
    if not len(starts):
        return None
    energy = float(np.mean(np.diag(whole)))
    of_means = float(
        np.mean([whole[start : start + NOISE_ROWS, start : start + NOISE_ROWS].mean() for start in starts])
    )
    noise = max(0.0, (energy - of_means) * NOISE_ROWS / (NOISE_ROWS - 1))
    signal = energy - noise
    measured = float(np.mean(whole[early, late])) / energy if energy > 0 else 0.0
    if signal <= 0:
        return NoiseScale(None, 0.0, measured)
    return NoiseScale(batch_size * noise / signal, signal / energy, measured)
