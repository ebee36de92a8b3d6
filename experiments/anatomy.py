"""What a stream's packets are made of: bits of each tensor, and how well the entropy coder's model fits.

The stream goes once more through the codec's coder of single coordinates, without prediction: lattice Z, tables by
scale class. A symbol's bits are its ideal code length, the logarithm of one over its table's probability, and the raw
bits of an escape. Their sum is the length of the packet's coded part but for some bits of rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec.activity import MAGNITUDES, matrices
from ..codec.coding import ScalarCoding, Search
from ..codec.energy import energy
from ..codec.lattice import cell_index
from ..codec.scale_classes import NUM_CLASSES, ClassModel, ScaleClasses
from ..codec.symbol_coder import CoderState, empty_stack, stack_to_bytes
from ..codec.symbols import MAX_DIRECT, NUM_BUCKETS, NUM_SYMBOLS
from ..codec.tables import TOTAL
from ..forecast import Layout, Trajectory

MAX_PACKETS = 120
MAX_NUMBERS = 3e7  # of all packets together; of larger networks fewer are coded
MIN_PACKETS = 10
LARGEST = MAX_DIRECT + 1  # cells; larger magnitudes count as this in means: each table has a floor for all of them
BINS = 20  # of the histogram of probabilities
NUM_MAGNITUDES = MAX_DIRECT + 1 + NUM_BUCKETS  # 0 to 14, then the escapes' buckets

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class _Parts:
    """One packet taken apart.

    Attributes:
        bits: of each tensor.
        coded_bits: of the packet's coded part, from its length.
        counts: how often each magnitude came in each class, `[class, magnitude]`.
        places: where each magnitude's probability lies under its class's table, `[class, magnitude, end]`.
        means: magnitude that each class's table expects, in cells.
        entropy: bits that the tables expect of these symbols.
    """

    bits: Counts
    coded_bits: float
    counts: Counts
    places: Counts
    means: Counts
    entropy: float


def anatomy(trajectory: Trajectory, stream: str, nmse: float) -> dict[str, Any] | None:
    """Bits of each tensor over time and the fit of the entropy coder's model, as plain data.

    Every so many rows are coded, so that there are `MAX_PACKETS` at most, evenly over the run. The first packet, which
    is a key frame and knows nothing, is left out of all sums.

    Args:
        trajectory: of a run.
        stream: which of its streams.
        nmse: error that the codec may make.

    Returns:
        What a result of `record` holds as `anatomy`; `None` where the stream is too short, or not finite.
    """
    data, layout = trajectory.stream(stream), trajectory.layout
    wanted = int(min(len(data), MAX_PACKETS, MAX_NUMBERS // max(layout.size, 1)))
    if wanted < MIN_PACKETS:
        return None
    every = -(-len(data) // wanted)
    coder = _Coder(layout, nmse)
    steps: list[int] = []
    packets: list[_Parts] = []
    for row in range(0, len(data), every):
        vector = np.array(data[row], dtype=np.float32)
        parts = coder.code(vector) if np.isfinite(vector).all() and vector.any() else None
        if parts is not None:
            steps.append(int(data.steps[row]))
            packets.append(parts)
    if len(packets) < MIN_PACKETS:
        return None
    counts = np.sum([item.counts for item in packets], axis=0)
    number = counts.sum()
    return {
        "stream": stream,
        "nmse": nmse,
        "every": every,
        "tensors": [{"name": spec.name, "size": spec.numel} for spec in layout if spec.numel],
        "steps": steps,
        "bits": [item.bits.tolist() for item in packets],
        "coded_bits": [item.coded_bits for item in packets],
        "expected_bits": float(np.sum([item.entropy for item in packets]) / number),
        "histogram": (np.sum([spread(item.counts, item.places) for item in packets], axis=0) / number).tolist(),
        "classes": _classes(packets, counts),
    }


class _Coder:
    """The codec's default coder without prediction, which tells what became of each coordinate.

    Args:
        layout: of the vectors.
        nmse: error that each may have.
    """

    def __init__(self, layout: Layout, nmse: float) -> None:
        self._nmse = nmse
        self._parts = matrices(layout)
        self._coder = ScaleClasses(layout)
        self._coding = ScalarCoding(self._coder, self._parts, None)
        self._levels = np.zeros(len(self._parts), np.uint8)
        self._state = CoderState(np.zeros((NUM_CLASSES, NUM_SYMBOLS), np.int64), np.zeros(layout.size, np.int32), 0, 0)

    def code(self, vector: NDArray[np.float32]) -> _Parts | None:
        """One vector; `None` for the first, and where the bound cannot be kept."""
        whole, state = energy(vector), self._state
        bound = self._nmse * whole
        start = state.cell_index if state.num_updates else cell_index(max(np.sqrt(12 * bound / len(vector)), 1e-300))
        quantised = self._coding.quantise(Search(vector, whole, bound, start, False, self._levels, state))
        if quantised is None:
            return None
        symbols = quantised.points.symbols
        stack = empty_stack()
        self._state = self._coding.push(stack, quantised.points, state, quantised.cell_index, self._levels)
        if not state.num_updates:
            return None
        classes, model = self._coder.classes(symbols, state, quantised.cell_index, self._levels)
        return _parts(classes, symbols, model, 8.0 * len(stack_to_bytes(stack)), self._parts)


def _parts(
    classes: NDArray[np.uint8],
    symbols: NDArray[np.int32],
    model: ClassModel,
    coded_bits: float,
    tensors: Sequence[Any],
) -> _Parts:
    bits = model.bits[classes, symbols]
    magnitudes = np.where(symbols < 2 * MAX_DIRECT + 1, np.abs(symbols - MAX_DIRECT), symbols - MAX_DIRECT)
    counts = np.bincount(classes.astype(np.intp) * NUM_MAGNITUDES + magnitudes, minlength=NUM_CLASSES * NUM_MAGNITUDES)
    counts = counts.reshape(NUM_CLASSES, NUM_MAGNITUDES).astype(np.float64)
    shares = model.tables / float(TOTAL)
    folded = np.empty((NUM_CLASSES, NUM_MAGNITUDES))
    folded[:, 0] = shares[:, MAX_DIRECT]
    folded[:, 1 : MAX_DIRECT + 1] = shares[:, MAX_DIRECT - 1 :: -1][:, :MAX_DIRECT]
    folded[:, 1 : MAX_DIRECT + 1] += shares[:, MAX_DIRECT + 1 : 2 * MAX_DIRECT + 1]
    folded[:, MAX_DIRECT + 1 :] = shares[:, 2 * MAX_DIRECT + 1 :]
    ends = np.minimum(np.cumsum(folded, axis=1), 1.0)
    places = np.stack([np.concatenate([np.zeros((NUM_CLASSES, 1)), ends[:, :-1]], axis=1), ends], axis=2)
    expected = (shares * model.bits).sum(1)
    return _Parts(
        np.array([bits[part.span].sum() for part in tensors]),
        coded_bits,
        counts,
        places,
        shares @ np.minimum(MAGNITUDES, LARGEST),
        float(counts.sum(1) @ expected),
    )


def spread(counts: Counts, places: Counts) -> Counts:
    """How many coordinates fall into each of `BINS` equal bins of probability; each is spread over its symbol's share.

    Nothing is drawn at random: C. Czado, T. Gneiting and L. Held (2009), Predictive Model Assessment for Count Data,
    Biometrics 65:1254, equation 2.

    Args:
        counts: how often each magnitude came in each class, `[class, magnitude]`.
        places: where its probability begins and ends under the class's table, `[class, magnitude, 2]`.
    """
    edges = np.linspace(0, 1, BINS + 1)
    low, high = places[..., 0, None], places[..., 1, None]
    width = np.maximum(high - low, 1e-12)
    share = np.clip((np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])) / width, 0, 1)
    return (counts[..., None] * share).sum((0, 1))


def _classes(packets: Sequence[_Parts], counts: Counts) -> list[dict[str, Any]]:
    """For each class that came up, how many coordinates, and the magnitude expected and seen, in cells."""
    middle = np.minimum(np.arange(NUM_MAGNITUDES), LARGEST)
    number = counts.sum(1)
    expected = np.sum([item.counts.sum(1) * item.means for item in packets], axis=0)
    return [
        {
            "number": int(number[which]),
            "expected": float(expected[which] / number[which]),
            "seen": float(counts[which] @ middle / number[which]),
        }
        for which in np.flatnonzero(number)
    ]
