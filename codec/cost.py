"""When compression pays: seconds and bytes of a step against the speed of the link.

A step's exchange takes about

    seconds = work + 8 bytes / link

with `work` what encoding and decoding take on this machine, `bytes` what one rank sends (and, at the same time,
receives), and `link` its bits a second. Compression pays below the link speed at which both ways take as long. This
counts nothing for latency, and nothing for the work of float32's own all-reduce or for its overlap with the backward
pass: real break-even speeds are lower on machines where the latter counts.
"""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Layout
from .codec import Codec
from .errors import ConfigError

_MEASURED_SIZE = 2**20  # coordinates of a measurement, at most
FLOAT32 = "float32"


class CodecCost(NamedTuple):
    """What one packet of a whole vector takes.

    Attributes:
        size: coordinates.
        bits: a coordinate.
        encode_seconds: of one packet.
        decode_seconds: of one packet.
    """

    size: int
    bits: float
    encode_seconds: float
    decode_seconds: float


class ExchangeCost(NamedTuple):
    """What one step's exchange takes of one rank.

    Attributes:
        work_seconds: of encoding, decoding and the like, by the clock.
        num_bytes: sent; as many are received.
    """

    work_seconds: float
    num_bytes: float

    def seconds(self, bits_per_second: float) -> float:
        """Of a step's exchange over a link of this speed.

        Raises:
            ConfigError: if the speed is not above 0.
        """
        if not bits_per_second > 0:
            raise ConfigError(f"The speed of a link must be above 0 bit/s, got {bits_per_second!r}.")
        return self.work_seconds + 8 * self.num_bytes / bits_per_second


def measure_codec(codec: Codec, num_packets: int = 3, vectors: list[Tensor] | None = None) -> CodecCost:
    """What a codec's packets take on this machine now, with as many threads as torch has.

    Args:
        codec: to be measured. Of more than a million coordinates, a part is measured and the rest inferred.
        num_packets: that are timed, after two that warm up; the fastest counts.
        vectors: what to code, `[param]` each, at least `num_packets` + 2; synthetic gradients if not given: Laplace
            noise with another scale for each tensor. Real gradients may take more or fewer bits.
    """
    size = codec.layout.size
    part = codec.derived(codec.layout.slice(0, min(size, _MEASURED_SIZE)))
    encoder, decoder = part.encoder(), part.decoder()
    encoding, decoding, num_bits = [], [], 0
    rows = vectors if vectors is not None else synthetic_gradients(part.layout, num_packets + 2)
    for number in range(num_packets + 2):
        row = rows[number][: part.layout.size]
        begun = time.perf_counter()
        packet = encoder.encode(row, number)
        encoded = time.perf_counter()
        decoder.decode(packet)
        encoding.append(encoded - begun)
        decoding.append(time.perf_counter() - encoded)
        num_bits = 8 * len(packet)
    share = size / max(part.layout.size, 1)
    bits = num_bits / max(part.layout.size, 1)
    return CodecCost(size, bits, share * min(encoding[2:]), share * min(decoding[2:]))


def synthetic_gradients(layout: Layout, number: int, seed: int = 0) -> list[Tensor]:
    """Vectors a little like gradients, `[param]` each: Laplace noise, scales spread over two decades of tensors."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.exp(torch.randn(len(layout), generator=generator) - 6)
    spread = scales.repeat_interleave(torch.tensor([spec.numel for spec in layout]))
    rows: list[Tensor] = []
    for _ in range(number):
        uniform = torch.rand(layout.size, generator=generator).sub_(0.5).mul_(1.999)
        rows.append(uniform.sign() * -torch.log1p(-uniform.abs()) * spread)
    return rows


def exchange_costs(
    up: CodecCost, down: CodecCost, lattice_bits: float, lattice_seconds: float, num_ranks: int
) -> dict[str, ExchangeCost]:
    """What each way to aggregate takes a step, by name, and plain float32 for comparison.

    Args:
        up: of the ranks' vectors.
        down: of the mean, where it is encoded once more.
        lattice_bits: a coordinate, of integers that are summed.
        lattice_seconds: of making and reading those of one vector.
        num_ranks: W.

    Raises:
        ConfigError: if there is no rank.
    """
    if num_ranks < 1:
        raise ConfigError(f"`num_ranks` must be at least 1, got {num_ranks}.")
    others, size = num_ranks - 1, up.size
    share = others / num_ranks
    shards = share * (up.encode_seconds + up.decode_seconds) + down.encode_seconds / num_ranks
    return {
        FLOAT32: ExchangeCost(0.0, 2 * share * 4 * size),
        "all_gather": ExchangeCost(up.encode_seconds + others * up.decode_seconds, others * up.bits * size / 8),
        "sharded": ExchangeCost(shards + share * down.decode_seconds, share * (up.bits + down.bits) * size / 8),
        "lattice_sum": ExchangeCost(lattice_seconds, 2 * share * lattice_bits * size / 8),
    }


def break_even(plain: ExchangeCost, compressed: ExchangeCost) -> float:
    """The speed of a link, in bits a second, below which the compressed exchange is the faster one.

    0 where it never is, infinite where it always is.
    """
    saved_bits = 8 * (plain.num_bytes - compressed.num_bytes)
    more_work = compressed.work_seconds - plain.work_seconds
    if saved_bits <= 0:
        return 0.0 if more_work >= 0 else math.inf
    return saved_bits / more_work if more_work > 0 else math.inf


def fastest(costs: Mapping[str, ExchangeCost], bits_per_second: float) -> str:
    """The name of the exchange that takes least over a link of this speed, plain float32 left out."""
    named = {name: cost for name, cost in costs.items() if name != FLOAT32}
    return min(named, key=lambda name: named[name].seconds(bits_per_second))


def speed_text(bits_per_second: float) -> str:
    """A link's speed for people."""
    if math.isinf(bits_per_second):
        return "any speed"
    for unit, scale in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits_per_second >= scale:
            return f"{bits_per_second / scale:.3g} {unit}"
    return f"{bits_per_second:.3g} bit/s"
