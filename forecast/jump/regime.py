"""In which regime a run is: chaotic, in transition or stable."""

import enum
import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from ..window import Window
from .agreement import Agreement

MAX_SAMPLES = 256  # of held-out data whose activations are compared


class Regime(enum.Enum):
    """How fast a network's function changes, against the beginning of its own run."""

    CHAOTIC = "chaotic"
    TRANSITION = "transition"
    STABLE = "stable"


class WeightSignals(NamedTuple):
    """What the rows of a window say, at the cost of a few dot products.

    With d_k the move from row k to the next and c the cosine of the last two moves.

    Attributes:
        drift: 1 - cosine of the last two rows, a step: about half the squared relative speed.
        turn: c; NaN with fewer than three rows. 1 goes straight on, 0 is a random walk, below 0 swings.
        straightness: length from the first to the last row over the length of the path, 0 to 1.
        curvature: |d_k - d_{k-1}| / |d_k|; NaN with fewer than three rows.
        noise: (1 - c) / c, the noise of a move over its signal, by E c = s / (1 + s) for independent noise with the
            signal-to-noise ratio s; infinite where c is not above 0. The gradient-noise scale in units of the batch,
            for plain SGD and a spacing of 1.
    """

    drift: float
    turn: float
    straightness: float
    curvature: float
    noise: float


def weight_signals(window: Window) -> WeightSignals:
    """The signals of a window of weights; all NaN with one row."""
    rows = window.values
    if len(rows) < 2:
        return WeightSignals(*[math.nan] * 5)
    gap = int(window.steps[-1] - window.steps[-2])
    last, before = rows[-1] - rows[-2], rows[-2] - rows[-3] if len(rows) > 2 else None
    lengths = [_length(new - old) for old, new in pairwise(rows)]
    # 1 - cos without the cancellation that would leave nothing of it in float32.
    first, second = _length(rows[-1]), _length(rows[-2])
    drift = (lengths[-1] ** 2 - (first - second) ** 2) / (2 * first * second) / gap if first * second else math.nan
    straight = _length(rows[-1] - rows[0]) / sum(lengths) if sum(lengths) else math.nan
    if before is None or not lengths[-1] * lengths[-2]:
        return WeightSignals(drift, math.nan, straight, math.nan, math.nan)
    turn = float(last @ before) / (lengths[-1] * lengths[-2])
    curvature = _length(last - before) / lengths[-1]
    return WeightSignals(drift, turn, straight, curvature, (1 - turn) / turn if turn > 0 else math.inf)


def _length(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))


@contextmanager
def captured_features(module: nn.Module) -> Iterator[list[Tensor]]:
    """What goes into the network's last layer while the block runs, `[sample, feature]` each, on the CPU.

    The last layer is the last submodule with parameters of its own, in the order in which they were registered.
    Anything between samples and features, such as time or place, is averaged out. A list that stays empty says that
    this submodule was not called with a tensor.
    """
    layers = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    features: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point() and inputs[0].ndim >= 2:
            value = inputs[0].detach()[:MAX_SAMPLES].float()
            features.append(value.reshape(value.shape[0], -1, value.shape[-1]).mean(dim=1).cpu())

    handle = layers[-1].register_forward_pre_hook(keep) if layers else None
    try:
        yield features
    finally:
        if handle is not None:
            handle.remove()


@final
class RegimeTracker:
    """Tells the regime from how fast activations, or failing that weights, turn.

    Leap+Verify (McEntire 2026, arXiv 2602.19580) compares the activations of fixed probes between checkpoints 50 steps
    apart: stable where their cosine is at least 0.99949, chaotic where it is at most 0.99627, means of an earlier run
    of one network. Here the thresholds are of the run itself. With r the rate (1 - cosine) per step and R the median of
    the first `calibration` rates,

        chaotic: r > R / 2,    stable: r < R / 2 / 7.3,    transition between;

    7.3 is the ratio of the two published thresholds. Nothing is said before both the calibration is over and a rate is
    there. Rates from activations count where there are any; weights, whose rates come at every opportunity and cost
    nothing, have a calibration of their own.

    Args:
        calibration: rates that make the reference; at least 1.
    """

    CHAOTIC_SHARE = 0.5
    STABLE_SHARE = 0.5 / 7.3

    def __init__(self, calibration: int = 3) -> None:
        self.calibration = calibration
        self._features: Tensor | None = None
        self._step = 0
        self._first: dict[str, list[float]] = {"activations": [], "weights": []}
        self._newest: dict[str, float] = {"activations": math.nan, "weights": math.nan}

    @property
    def similarity_rate(self) -> float:
        """The newest rate from activations; NaN before the second look."""
        return self._newest["activations"]

    def see_weights(self, signals: WeightSignals) -> None:
        """Take in what a window says."""
        self._note("weights", signals.drift)

    def see_features(self, step: int, features: Tensor, agreement: Agreement) -> None:
        """Take in activations, and compare them with those seen last if they are of the same number of samples.

        Held-out data that come in another order each time would look like a network that changes all the time. So
        give batches in a fixed order, or do not go by the regime.

        Args:
            step: the optimiser step.
            features: on the first held-out batch, `[sample, feature]`.
            agreement: of the processes of the run, which take the mean over all their samples.
        """
        old, since = self._features, step - self._step
        self._features, self._step = features, step
        if old is None or old.shape != features.shape or since < 1:
            return
        cosine = nn.functional.cosine_similarity(old.double(), features.double(), dim=1)
        sums = agreement.sum(torch.stack([cosine.sum(), cosine.new_tensor(float(len(cosine)))]))
        self._note("activations", float(1 - sums[0] / sums[1]) / since)

    def _note(self, source: str, rate: float) -> None:
        if math.isfinite(rate):
            self._newest[source] = rate
            if len(self._first[source]) < self.calibration:
                self._first[source].append(rate)

    @property
    def regime(self) -> Regime | None:
        """The regime by the newest rates, `None` while it cannot be told."""
        for source in ("activations", "weights"):
            first, rate = self._first[source], self._newest[source]
            if len(first) < self.calibration or not math.isfinite(rate):
                continue
            reference = statistics.median(first)
            if rate > self.CHAOTIC_SHARE * reference:
                return Regime.CHAOTIC
            return Regime.STABLE if rate < self.STABLE_SHARE * reference else Regime.TRANSITION
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered; tensors and plain values."""
        return {
            "features": self._features,
            "step": self._step,
            "first": {name: list(values) for name, values in self._first.items()},
            "newest": dict(self._newest),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._features = state["features"]
        self._step = int(state["step"])
        self._first = {str(name): [float(value) for value in values] for name, values in state["first"].items()}
        self._newest = {str(name): float(value) for name, value in state["newest"].items()}
