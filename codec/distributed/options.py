"""How ranks exchange: the settings, and the aggregation that they mean."""

from dataclasses import dataclass
from typing import Literal

from ..codec import Codec
from ..config import CodecConfig
from ..errors import ConfigError
from .aggregation import Aggregation
from .choice import choose_aggregation
from .exchange import PacketExchange
from .lattice_sum import LatticeSum
from .sharded import ShardedExchange
from .wire import DEFAULT_TIMEOUT, Wire

AggregationName = Literal["auto", "all_gather", "sharded", "lattice_sum"]
AGGREGATION_NAMES = ("auto", PacketExchange.name, ShardedExchange.name, LatticeSum.name)


@dataclass(frozen=True)
class ExchangeConfig:
    """Settings of an exchange between ranks; equal on all of them.

    Attributes:
        aggregation: `all_gather`, `sharded` or `lattice_sum`; `auto` measures codec and link at the start, for a second
            or less, and takes the fastest.
        down: settings on the way down of `sharded`; see `ShardedExchange`.
        levels: of `lattice_sum`; see `LatticeSum`.
        check_every: steps between comparisons of all parameters over ranks; 0 for never.
        on_difference: what follows from a difference of parameters, or a packet that cannot be decoded: `raise`, or
            `heal`: copy the parameters and send key frames.
        timeout: seconds that any one exchange may take; see `GroupWire`.
        allow_unlike: whether ranks may differ in library versions, processor and kind of device, at a lower promise.

    Raises:
        ConfigError: if a name is unknown or a number is out of range.
    """

    aggregation: AggregationName = "all_gather"
    down: CodecConfig | None = None
    levels: int = 7
    check_every: int = 100
    on_difference: Literal["raise", "heal"] = "raise"
    timeout: float = DEFAULT_TIMEOUT
    allow_unlike: bool = False

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATION_NAMES:
            raise ConfigError(f"`aggregation` must be one of {AGGREGATION_NAMES}, got {self.aggregation!r}.")
        if self.on_difference not in ("raise", "heal"):
            raise ConfigError(f"`on_difference` must be 'raise' or 'heal', got {self.on_difference!r}.")
        if isinstance(self.check_every, bool) or not isinstance(self.check_every, int) or self.check_every < 0:
            raise ConfigError(f"`check_every` must be a whole number of at least 0, got {self.check_every!r}.")

    @property
    def heals(self) -> bool:
        """Whether differences are healed."""
        return self.on_difference == "heal"

    def make(self, codec: Codec, wire: Wire) -> Aggregation:
        """The aggregation of a codec. Every rank must call this at the same time.

        Raises:
            ConfigError: on every rank, if the ranks differ in anything that matters.
        """
        name = self.aggregation
        if name == "auto":
            name = choose_aggregation(codec, wire, self.down, self.levels).best
        if name == ShardedExchange.name:
            return ShardedExchange(codec, wire, self.down, self.heals, self.allow_unlike)
        if name == LatticeSum.name:
            return LatticeSum(codec, wire, self.levels, self.heals, self.allow_unlike)
        return PacketExchange(codec, wire, self.heals, self.allow_unlike)
