"""How much of a stream's shape is that its coordinates have different scales, and how well these are predicted.

A ladder of what is known of a coordinate's scale before its value is seen:

    vector       nothing: one variance for all, an i.i.d. source
    tensor       one variance for each tensor
    coordinate   a class of its predicted magnitude: a causal running mean of its own magnitudes and of those of its row
                 and column, in half octaves, each class with a variance of its own
    packet       likewise, after a third of the same row was seen: how much larger or smaller than predicted each
                 tensor, row and column is this time

The last two are what the codec's `scale_classes` know, here without quantisation. Everything is fitted to even rows and
judged on odd ones, on other coordinates. `gaussian_bits` is what values take that are Gaussian given their scale;
`best_bits` the same with the best family for what is left after dividing by the scale. `rate` is the Gaussian's at the
wanted error, by reverse water-filling over the scales: with error D, the mean of max(0, log2(s^2 / w) / 2), where the
level w makes the mean of min(s^2, w) be D. It is what a scale is worth at the codec's error; at fine resolution it is
worth more, because there every coordinate costs bits.

References:
    T. M. Cover and J. A. Thomas (2006), Elements of Information Theory, theorem 10.3.3.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...codec.activity import Matrix, matrices
from .marginals import RESOLUTION_BITS, blurred, judge, tails
from .rows import Rows

LEVELS = ("vector", "tensor", "coordinate", "packet")
MEMORY = 16  # rows that a running mean of magnitudes spans at last, as in the codec
OWN_SHARE = 5 / 8  # of the logarithm that is the coordinate's own, as in the codec
CLASSES_PER_OCTAVE = 2
NUM_CLASSES = 48
LOWEST = 2.0**-16  # of the largest magnitude; what is predicted smaller counts as this
CONFIDENCE = 8.0  # values that must be expected of a tensor, row or column before it is trusted as much as the past
MORE = 10  # times as many values for the variances of classes as for the families, which take longer
CONTEXT, TRAIN, TEST = 0, 1, 2  # thirds of the coordinates

Values = NDArray[Any]


@dataclass(frozen=True)
class Rung:
    """What one level of knowing the scale is worth.

    Attributes:
        level: one of `LEVELS`.
        gaussian_bits: of a value at the resolution, if it is Gaussian given its scale.
        best: the best family for what is left after dividing by the scale.
        best_bits: of a value with it.
        gap: bits that a Gaussian takes more than that family for what is left. One coordinate that was thought dead
            and moves can make it large, as it does the former; no codec whose tables have tails pays that.
        kurtosis: excess, of what is left.
        rate: bits of a value at the wanted error, if it is Gaussian given its scale.
    """

    level: str
    gaussian_bits: float
    best: str
    best_bits: float
    gap: float
    kurtosis: float
    rate: float


def thirds(size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Which third each coordinate belongs to, at random: `CONTEXT`, `TRAIN` or `TEST`."""
    return generator.permutation(np.arange(size) % 3).astype(np.uint8)


def ladder(rows: Rows, num_samples: int, nmse: float, generator: np.random.Generator) -> list[Rung]:
    """What each level of knowing the scale is worth, on one phase of a stream.

    Args:
        rows: at least `MIN_ROWS`.
        num_samples: values fitted to, and judged on.
        nmse: error of `rate`, as a share of the energy.
        generator: of what is drawn.
    """
    part = thirds(rows.layout.size, generator)
    unit = _root_mean_square(rows.values)
    start = max(2, len(rows) // 4)
    train_rows, test_rows = (np.arange(start + (start + odd) % 2, len(rows), 2) for odd in (0, 1))
    magnitudes = np.abs(rows.values) / np.float32(unit)
    parts = matrices(rows.layout)
    train = _draw(train_rows, np.flatnonzero(part == TRAIN), MORE * num_samples, generator)
    test = _draw(test_rows, np.flatnonzero(part == TEST), MORE * num_samples, generator)
    wanted = np.zeros(rows.values.shape, dtype=bool)
    wanted[train] = wanted[test] = True
    expected, adjusted = _predictions(magnitudes, parts, part == CONTEXT, wanted, start)
    tensors = np.repeat(np.arange(len(parts)), [item.num_rows * item.num_columns for item in parts])
    classes = {
        "vector": (np.zeros(len(train[0]), dtype=np.intp), np.zeros(len(test[0]), dtype=np.intp)),
        "tensor": (tensors[train[1]], tensors[test[1]]),
        "coordinate": (_class(expected[train]), _class(expected[test])),
        "packet": (_class(adjusted[train]), _class(adjusted[test])),
    }
    train_values = blurred(rows.values[train].astype(np.float64), unit, generator)
    test_values = blurred(rows.values[test].astype(np.float64), unit, generator)
    return [
        _rung(level, train_values, test_values, (of_train, of_test), nmse, num_samples)
        for level, (of_train, of_test) in classes.items()
    ]


def water_filling(variances: Values, nmse: float) -> float:
    """Bits a value of independent Gaussians of these variances at an error of `nmse` times their mean."""
    ordered = np.sort(np.asarray(variances, dtype=np.float64))
    target = nmse * float(ordered.mean())
    low, high = 0.0, float(ordered[-1])
    for _ in range(100):
        level = (low + high) / 2
        if float(np.minimum(ordered, level).mean()) < target:
            low = level
        else:
            high = level
    return float(np.maximum(0.0, 0.5 * np.log2(np.maximum(ordered, 1e-300) / high)).mean()) if high > 0 else 0.0


def _root_mean_square(values: Values) -> float:
    return math.sqrt(float(np.mean(np.square(values, dtype=np.float64))))


def _draw(rows: Values, columns: Values, count: int, generator: np.random.Generator) -> tuple[Values, Values]:
    return generator.choice(rows, count), generator.choice(columns if len(columns) else np.array([0]), count)


def _rung(
    level: str, train: Values, test: Values, classes: tuple[Values, Values], nmse: float, num_samples: int
) -> Rung:
    train_class, test_class = classes
    count = 1 + max(int(train_class.max()), int(test_class.max()))
    number = np.bincount(train_class, minlength=count)
    energy = np.bincount(train_class, train**2, minlength=count)
    pooled = float(np.mean(train**2))
    # A class without values is never right for sure: it gets some of the variance of all.
    variances = (energy + pooled) / (number + 1)
    deviation = np.sqrt(variances)
    left, judged = train / deviation[train_class], test / deviation[test_class]
    verdict = judge(left[:num_samples], judged[:num_samples])
    shift = float(np.log2(deviation[test_class]).mean())
    gaussian = RESOLUTION_BITS + shift + float(np.mean(judged**2)) / (2 * math.log(2)) + 0.5 * math.log2(2 * math.pi)
    own = float(np.log2(deviation[test_class[:num_samples]]).mean())
    best_bits = verdict.bits[verdict.best] + own
    rate = water_filling(variances[test_class], nmse)
    return Rung(level, gaussian, verdict.best, best_bits, verdict.gap, tails(judged).kurtosis, rate)


def _class(magnitudes: Values) -> Values:
    logs = np.floor(CLASSES_PER_OCTAVE * np.log2(np.maximum(magnitudes, 1e-30)))
    return np.clip(logs + NUM_CLASSES // 2 + 8, 0, NUM_CLASSES - 1).astype(np.intp)


def _predictions(
    magnitudes: Values, parts: tuple[Matrix, ...], context: NDArray[np.bool_], wanted: NDArray[np.bool_], start: int
) -> tuple[Values, Values]:
    """Predicted magnitudes, `[time, param]` each: from the past alone, and after this row's context was seen.

    Only what is `wanted` is filled in, and nothing before row `start`.
    """
    expected, adjusted = np.zeros_like(magnitudes), np.zeros_like(magnitudes)
    floor = LOWEST * float(magnitudes.max())
    mean = magnitudes[0].astype(np.float64)
    for row in range(1, len(magnitudes)):
        if row >= start:
            for item in parts:
                own = np.maximum(mean[item.span].reshape(item.num_rows, item.num_columns), floor)
                predicted = _mixed(own)
                now = magnitudes[row, item.span].reshape(predicted.shape)
                seen = context[item.span].reshape(predicted.shape)
                mask = wanted[row, item.span]
                expected[row, item.span][mask] = predicted.reshape(-1)[mask]
                adjusted[row, item.span][mask] = _adjusted(predicted, now, seen).reshape(-1)[mask]
        rate = max(1 / (row + 1), 1 / MEMORY)
        mean += rate * (magnitudes[row] - mean)
    return expected, adjusted


def _mixed(own: Values) -> Values:
    """A coordinate's mean magnitude mixed with the product of its row's and column's means."""
    if min(own.shape) < 2:
        return own
    outer = own.mean(1, keepdims=True) * own.mean(0, keepdims=True) / own.mean()
    return own**OWN_SHARE * outer ** (1 - OWN_SHARE)


def _adjusted(predicted: Values, now: Values, seen: NDArray[np.bool_]) -> Values:
    """Predictions times how much larger or smaller the tensor, its rows and its columns turned out where seen."""
    ratio = np.where(seen, now / predicted, 0.0)
    # Means of ratios, not ratios of means: the largest coordinates would decide alone. Clipped for the same reason.
    ratio = np.minimum(ratio, 8.0)
    count = seen.sum()
    whole = (ratio.sum() + CONFIDENCE) / (count + CONFIDENCE)
    lines = []
    for axis in (1, 0):
        number = seen.sum(axis, keepdims=True)
        lines.append((ratio.sum(axis, keepdims=True) / whole + CONFIDENCE) / (number + CONFIDENCE))
    if min(predicted.shape) < 2:
        return predicted * whole
    return predicted * whole * lines[0] * lines[1]
