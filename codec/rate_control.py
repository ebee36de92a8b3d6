"""How wide the cells are: a bound kept by each packet, or a mean held over a run.

A bound needs a search in every packet. A mean needs none: the width follows from what the last packet cost or left, and
from how much larger this vector is than the last one: all of it where the error is held, the coordinates that are worth
sending where the rate is. So packets are faster, and one that is hard to code is allowed to be worse than the others.
"""

import abc
import math
from typing import ClassVar, NamedTuple, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from .lattice import NUM_WIDTHS, WIDTHS_PER_OCTAVE

_PROPORTIONAL = 0.5  # of the last packet's deviation
_INTEGRAL = 0.15  # of what has added up; 0.03 leaves 5 % of deviation over 20 packets of gradients, this 0.5 %
_LARGEST_MOVE = 2.0  # octaves
_LARGEST_DEBT = 30.0  # targets
_SAMPLE = 2**14  # coordinates that tell how large a vector is
_BITS_A_VALUE = 9  # about what one that is not zero takes at low rates
_FEWEST = 128  # coordinates that such a magnitude is taken of; of fewer it is noisier than the norm


class Outcome(NamedTuple):
    """What a packet cost and left.

    Attributes:
        bits: a coordinate, header included.
        nmse: ||x - decoded||^2 / ||x||^2.
    """

    bits: float
    nmse: float


class RateControl(abc.ABC):
    """A rule for the width of the next packet's cells, in octaves from the last one.

    Attributes:
        searches: whether each packet keeps the error bound by a search; the others begin with one that does.
    """

    searches: ClassVar[bool] = False

    @abc.abstractmethod
    def magnitude(self, values: npt.NDArray[np.float32], energy: float) -> float:
        """How large a vector is: cells widen as this grows.

        Args:
            values: `[param]`, finite, at least one.
            energy: its squared norm.
        """

    @abc.abstractmethod
    def excess(self, outcome: Outcome) -> float:
        """How far above its target a packet is, as a share of the target."""

    @abc.abstractmethod
    def move(self, outcome: Outcome, debt: float) -> float:
        """Octaves by which the cells have to widen after a packet.

        Args:
            outcome: of the packet.
            debt: the sum of all excesses, this one included.
        """


@final
class ErrorBound(RateControl):
    """Each packet keeps its error."""

    searches: ClassVar[bool] = True

    @override
    def magnitude(self, values: npt.NDArray[np.float32], energy: float) -> float:
        return math.sqrt(energy)

    @override
    def excess(self, outcome: Outcome) -> float:
        return 0.0

    @override
    def move(self, outcome: Outcome, debt: float) -> float:
        return 0.0


@final
class MeanError(RateControl):
    """The mean NMSE over packets is held.

    Args:
        nmse: the mean.
    """

    def __init__(self, nmse: float) -> None:
        self._nmse = nmse

    @override
    def magnitude(self, values: npt.NDArray[np.float32], energy: float) -> float:
        return math.sqrt(energy)

    @override
    def excess(self, outcome: Outcome) -> float:
        return outcome.nmse / self._nmse - 1

    @override
    def move(self, outcome: Outcome, debt: float) -> float:
        slope = 1.5  # octaves of squared error for one of width: 2 at high rate, less where most coordinates are zero
        off = math.log2(max(outcome.nmse, 1e-30) / self._nmse)
        return -(_PROPORTIONAL * off + _INTEGRAL * debt) / slope


@final
class MeanRate(RateControl):
    """The mean bits a coordinate over packets are held, headers and key frames included.

    Args:
        bits: a coordinate.
    """

    def __init__(self, bits: float) -> None:
        self._bits = bits

    @override
    def magnitude(self, values: npt.NDArray[np.float32], energy: float) -> float:
        # Energy is mostly that of few large coordinates: by it packets of gradients are three times as long at one step
        # as at another. A quantile of a sample holds them within a fifth or so.
        sample = np.abs(values[:: max(len(values) // _SAMPLE, 1) | 1])  # odd, so that it meets all columns
        share = min(self._bits / _BITS_A_VALUE, 0.5)
        count = min(int(share * len(sample)), int(np.count_nonzero(sample)) // 2)
        if count < _FEWEST:
            return math.sqrt(energy)
        return float(np.partition(sample, len(sample) - count)[len(sample) - count])

    @override
    def excess(self, outcome: Outcome) -> float:
        return outcome.bits / self._bits - 1

    @override
    def move(self, outcome: Outcome, debt: float) -> float:
        # Octaves of rate for one of width: one bit of the packet's at high rate, up to two octaves at low rate.
        slope = min(2.0, 1 / (math.log(2) * max(outcome.bits, 1e-9)))
        off = math.log2(max(outcome.bits, 1e-9) / self._bits)
        return (_PROPORTIONAL * off + _INTEGRAL * debt) / slope


class CellsAt(NamedTuple):
    """Cells, and what they were for.

    Attributes:
        cell_index: of their width.
        magnitude: of the vector.
    """

    cell_index: int
    magnitude: float


class ControlState(NamedTuple):
    """What a control remembers.

    Attributes:
        debt: the sum of all packets' excesses.
        cell_index: of the next packet's cells, if its vector is as large as the last one; -1 where a search has to
            find them.
        magnitude: of the last vector.
    """

    debt: float = 0.0
    cell_index: int = -1
    magnitude: float = 1.0

    def cells(self, magnitude: float) -> int:
        """Of the next packet: as many times wider as its vector is larger than the last one.

        Args:
            magnitude: of the vector.
        """
        if not 0.0 < magnitude < math.inf:
            return self.cell_index
        octaves = math.log2(magnitude) - math.log2(self.magnitude)
        return _within(self.cell_index + round(octaves * WIDTHS_PER_OCTAVE))


def after(control: RateControl, state: ControlState, outcome: Outcome, cells: CellsAt | None) -> ControlState:
    """The state after a packet whose vector is not zero.

    Args:
        control: the rule.
        state: before it.
        outcome: of the packet.
        cells: of the packet; `None` for a raw one: its cells did not fit, and the next packet has to search.
    """
    if control.searches:
        return state
    debt = min(max(state.debt + control.excess(outcome), -_LARGEST_DEBT), _LARGEST_DEBT)
    if cells is None:
        return ControlState(debt)
    octaves = min(max(control.move(outcome, debt), -_LARGEST_MOVE), _LARGEST_MOVE)
    return ControlState(debt, _within(cells.cell_index + round(octaves * WIDTHS_PER_OCTAVE)), cells.magnitude)


def _within(cell_index: int) -> int:
    return min(max(cell_index, 0), NUM_WIDTHS - 1)
