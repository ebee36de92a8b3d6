"""Averaging vectors over ranks by an ordinary all-reduce of integer lattice points."""

import math
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from ..codec import Codec
from ..errors import ConfigError, EncodeError, StateError
from ..feedback import FeedbackState, make_feedback
from ..tensor_bits import TensorBits
from .aggregation import Aggregation
from .errors import PeerError
from .traffic import Traffic
from .wire import Wire

WORD_BITS = 63  # of an int64, whose sign stays free
MAX_LEVELS = 2**20


@final
class LatticeSum(Aggregation):
    """A lattice is closed under addition: the sum of all ranks' points is exact, in any order.

    With x = g + e of this rank (e is what error feedback owes), for each tensor

        s = the largest root mean square of x over ranks        one all-reduce of a float32 a tensor
        step = s reach / L                                      common to all ranks
        q = min(max(round(x / step), -L), L)                    saturates, never wraps
        mean = step / W * sum of q                              one all-reduce of integers
        e = x - step q

    Points q + L, from 0 to 2 L, are fields of ceil(log2(2 L W + 1)) bits, as many to an int64 as fit below its sign. No
    sum of W of them leaves its field, so words add like vectors of small integers, on any backend that adds int64. What
    saturates is owed to later steps.

    Any existing all-reduce carries it, no rank decodes packets, and the sum is the same on all hardware. But integers
    are not entropy-coded: with 2 ranks it sends 3 bits a coordinate at L = 1, 8 at L = 63, and one bit more for each
    doubling of the ranks. At short codes it pays where links are fast or ranks are many.

    There is no prediction, and error feedback is always on: all of it, or the leaky share that the configuration says.
    Of the configuration nothing else is used.

    Args:
        codec: for the layout and for `feedback_decay`; the same on every rank.
        wire: to the other ranks.
        levels: L, from 1 to 2^20. 7 is little worse than float32 in training; 1 is ternary, and leans on feedback.
        heal: see `Aggregation`.
        allow_unlike: see `Aggregation`.

    Raises:
        ConfigError: if the ranks differ, or `levels` is out of range.

    References:
        Banner et al. 2019, Post training 4-bit quantization of convolutional networks, arXiv:1810.05723: where to clip
        a Laplace source; `reach` is its solution for 2 L + 1 levels, in standard deviations.
    """

    name: ClassVar[str] = "lattice_sum"

    def __init__(
        self, codec: Codec, wire: Wire, levels: int = 7, heal: bool = False, allow_unlike: bool = False
    ) -> None:
        if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MAX_LEVELS:
            raise ConfigError(f"`levels` must be a whole number from 1 to {MAX_LEVELS}, got {levels!r}.")
        self._levels = levels
        super().__init__(codec, wire, heal, allow_unlike)
        self.field_bits = field_bits(levels, wire.size)
        self._per_word = WORD_BITS // self.field_bits
        self._num_words = -(-codec.layout.size // self._per_word)
        config = codec.config
        leaky = config.feedback == "leaky"
        self._feedback = make_feedback("leaky" if leaky else "classic", config.feedback_decay)
        self._owed = self._feedback.initial(codec.layout.size)
        self._reach = torch.tensor(reach(levels) / levels, dtype=torch.float32)
        counts = [spec.numel for spec in codec.layout]
        self._counts = torch.tensor(counts)
        self._filled = self._counts.clamp(min=1)

    @staticmethod
    def bits_on_wire(levels: int, num_ranks: int) -> float:
        """Bits that a coordinate takes in words."""
        return 64 / (WORD_BITS // field_bits(levels, num_ranks))

    @override
    def tensor_bits(self) -> dict[str, TensorBits]:
        # Fields are of one width, and a packet's rest is scales and what words leave empty.
        sent = self.last_traffic.packet_bits
        each = 32 if self.last_traffic.raw_bits else self.field_bits
        tensors = {spec.name: each * spec.numel for spec in self.layout}
        return {"up": TensorBits(tensors, sent - sum(tensors.values()))}

    @override
    def owed(self) -> Tensor:
        return torch.from_numpy(self._owed.residual.copy()) / self.num_ranks

    @override
    def owe(self, total: Tensor) -> None:
        self._owed = FeedbackState(total.to(torch.float32).clone().numpy(), self._owed.learning_rate)

    @override
    def _describe(self) -> dict[str, str]:
        return {"option levels": str(self._levels)}

    @override
    def _attempt(self, vector: Tensor, learning_rate: float | None, key_frame: bool) -> Tensor:
        # Nothing here is predicted or adapted, so that a key frame has nothing to reset.
        values = vector.to("cpu", torch.float32)
        problem: EncodeError | None = None
        try:
            wanted, _ = self._feedback.corrected(self._owed, values.numpy(), learning_rate)
        except EncodeError as error:
            problem, wanted = error, values.numpy()
        strange = not bool(values.isfinite().all())
        if problem is None and not strange and not np.isfinite(wanted).all():
            problem = EncodeError(
                "The vector plus what error feedback owes is beyond float32. Lower the learning rate."
            )
        usable = wanted if problem is None and not strange else np.zeros_like(wanted)
        flags = torch.tensor([0.0 if problem is None else self.wire.rank + 1.0, float(strange)])
        scales = self.wire.largest(torch.cat([self._root_mean_squares(torch.from_numpy(usable)), flags]))
        self._count(side_bits=32 * len(scales))
        if scales[-2]:
            raise problem or PeerError(
                f"Rank {int(scales[-2]) - 1} could not encode its vector; its own error says why."
            )
        if scales[-1]:
            self._count(raw_bits=32 * len(values))
            return self.wire.total(values).div_(self.num_ranks)
        steps = (scales[:-2] * self._reach).repeat_interleave(self._counts)
        points = torch.from_numpy(wanted).div(steps).nan_to_num_(0.0).round_().clamp_(-self._levels, self._levels)
        words = pack_fields((points + self._levels).to(torch.int64), self.field_bits, self._per_word)
        self._count(symbol_bits=64 * self._num_words)
        sums = unpack_fields(self.wire.total(words), self.field_bits, self._per_word, len(values))
        sums -= self._levels * self.num_ranks
        own = points.mul_(steps).numpy()
        self._owed = self._feedback.settled(self._owed, wanted, own, learning_rate)
        error, energy = wanted.astype(np.float64) - own, wanted.astype(np.float64)
        self.last_nmse = float(error @ error / (energy @ energy or 1.0))
        return sums.to(torch.float32).mul_(steps / self.num_ranks)

    def _root_mean_squares(self, values: Tensor) -> Tensor:
        squares = [values[spec.span].double().square().sum() for spec in self.layout]
        return (torch.stack(squares) / self._filled).sqrt().to(torch.float32)

    def _count(self, **bits: int) -> None:
        self.traffic = self.traffic + Traffic(**bits)

    @override
    def _own_state(self) -> dict[str, Any]:
        return {"feedback": self._feedback.to_dict(self._owed)}

    @override
    def _load_own_state(self, saved: dict[str, Any]) -> None:
        if not isinstance(saved["feedback"], dict):
            raise StateError("The saved aggregation is damaged: its error feedback is no dictionary.")
        self._owed = self._feedback.from_dict(saved["feedback"], self.layout.size)


def field_bits(levels: int, num_ranks: int) -> int:
    """Bits of a number from 0 to 2 L W, which no sum of W points leaves."""
    return (2 * levels * num_ranks).bit_length()


def reach(levels: int) -> float:
    """Where 2 L + 1 evenly spaced levels should end on a Laplace source, in standard deviations.

    Minimises 2 exp(-a) + a^2 / (3 (2 L + 1)^2) over a, in units of the source's scale, which is 1 / sqrt(2) of its
    standard deviation: clipped plus granular error.
    """
    number = 3.0 * (2 * levels + 1) ** 2
    low, high = 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.exp(middle) < number else (low, middle)
    return low / math.sqrt(2)


def pack_fields(fields: Tensor, num_bits: int, per_word: int) -> Tensor:
    """Numbers from 0 to below 2^num_bits, int64 `[param]`, side by side in int64 words; `unpack_fields` inverts it."""
    padded = torch.zeros(-(-len(fields) // per_word) * per_word, dtype=torch.int64)
    padded[: len(fields)] = fields
    # Fields of one word lie far apart in the vector: rows of the table are contiguous.
    table = padded.view(per_word, -1)
    words = torch.zeros(table.shape[1], dtype=torch.int64)
    for position in range(per_word):
        words |= table[position] << (num_bits * position)
    return words


def unpack_fields(words: Tensor, num_bits: int, per_word: int, size: int) -> Tensor:
    """The numbers in words, int64 `[param]`."""
    shifts = torch.arange(per_word).mul_(num_bits)[:, None]
    return (words[None] >> shifts).bitwise_and_(2**num_bits - 1).reshape(-1)[:size]
