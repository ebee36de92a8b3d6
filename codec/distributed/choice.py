"""Which way to aggregate, from what codec and link are measured to take at the start of a run."""

import time
from dataclasses import dataclass

import torch

from ..codec import Codec
from ..config import CodecConfig
from ..cost import (
    FLOAT32,
    ExchangeCost,
    break_even,
    exchange_costs,
    fastest,
    measure_codec,
    speed_text,
    synthetic_gradients,
)
from .lattice_sum import LatticeSum
from .sharded import down_config
from .wire import Alone, Wire

_FIRST_PROBE, _LAST_PROBE = 2**16, 2**22  # bytes
_LONG_ENOUGH = 0.02  # seconds


@dataclass(frozen=True)
class AggregationChoice:
    """What was measured, the same on all ranks: the slowest rank counts.

    Attributes:
        best: name of the fastest way to aggregate over the measured link.
        link: its speed, bits a second, each way.
        costs: of a step, by way to aggregate, `float32` among them.
        num_ranks: that exchange.
    """

    best: str
    link: float
    costs: dict[str, ExchangeCost]
    num_ranks: int

    def break_even(self, name: str) -> float:
        """The link speed below which a way to aggregate beats float32, bits a second."""
        return break_even(self.costs[FLOAT32], self.costs[name])

    def text(self, name: str) -> str:
        """Two sentences for people on a way to aggregate."""
        cost, plain = self.costs[name], self.costs[FLOAT32]
        return (
            f"Gradients by {name} over {self.num_ranks} ranks: {cost.num_bytes:,.0f} bytes a step and rank instead of "
            f"{plain.num_bytes:,.0f}, {1e3 * cost.work_seconds:.3g} ms of work. It pays below "
            f"{speed_text(self.break_even(name))}; the link measures {speed_text(self.link)}, where a step's exchange "
            f"takes about {1e3 * cost.seconds(self.link):.3g} ms instead of {1e3 * plain.seconds(self.link):.3g} ms."
        )


def choose_aggregation(codec: Codec, wire: Wire, down: CodecConfig | None = None, levels: int = 7) -> AggregationChoice:
    """Measure codec and link, and choose. Every rank must call this at the same time; takes about a second.

    Args:
        codec: of the vectors.
        wire: to the other ranks.
        down: as in `ShardedExchange`.
        levels: as in `LatticeSum`.

    Raises:
        PeerLostError: if a rank is gone.
    """
    layout = codec.layout
    up = measure_codec(codec)
    on_way_down = measure_codec(codec.derived(layout, down_config(codec.config) if down is None else down))
    alone = LatticeSum(codec, Alone(), levels)
    seconds: list[float] = []
    for row in synthetic_gradients(layout, 3):
        begun = time.perf_counter()
        alone.average(row)
        seconds.append(time.perf_counter() - begun)
    link = measure_link(wire)
    mine = torch.tensor([*up, *on_way_down, min(seconds), -link], dtype=torch.float64)
    slowest = wire.largest(mine).tolist()
    up = up._replace(bits=slowest[1], encode_seconds=slowest[2], decode_seconds=slowest[3])
    on_way_down = on_way_down._replace(bits=slowest[5], encode_seconds=slowest[6], decode_seconds=slowest[7])
    per_coordinate = LatticeSum.bits_on_wire(levels, wire.size)
    costs = exchange_costs(up, on_way_down, per_coordinate, slowest[8], wire.size)
    link = -slowest[9]
    return AggregationChoice(fastest(costs, link), link, costs, wire.size)


def measure_link(wire: Wire) -> float:
    """Bits a second that each rank sends and receives while all do, from gathers of up to four megabytes."""
    if wire.size == 1:
        return float("inf")
    num_bytes = _FIRST_PROBE
    while True:
        probe = torch.zeros(num_bytes, dtype=torch.uint8)
        wire.gather(probe[:8])  # all begin together
        begun = time.perf_counter()
        wire.gather(probe)
        elapsed = torch.tensor([time.perf_counter() - begun], dtype=torch.float64)
        seconds = float(wire.largest(elapsed))
        if seconds >= _LONG_ENOUGH or num_bytes >= _LAST_PROBE:
            return 8 * (wire.size - 1) * num_bytes / seconds
        num_bytes *= 4
