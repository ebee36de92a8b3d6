"""The codec's settings that follow from what a stream is like, and whether they hold what they promise.

Three findings decide, each against a threshold in bits or correlation:

    mean    a causal prediction saves at least `MEAN_PAYS` bit: predictor `fitted`, else `none`
    scale   knowing each coordinate's scale saves at least `SCALE_PAYS` bit over knowing its tensor's: `scale_classes`,
            else `tensor_tables`
    vector  values of neighbours are correlated by at least `VECTOR_PAYS`, and scales are known: lattice `E8`, else `Z`

Then the stream is coded with these settings, with the defaults, and with two that leave one thing out.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch

from ...codec import Codec, CodecConfig
from ...forecast import Layout
from .rows import Values
from .scales import Rung
from .space import Space
from .time import Dependence

MEAN_PAYS = 0.02  # bits at fine resolution; at the codec's error it is less
SCALE_PAYS = 0.05
VECTOR_PAYS = 0.3
TABLES, SCALES, DEFAULT, RECOMMENDED = "one table a tensor", "predicted scales", "default", "recommended"


@dataclass(frozen=True)
class Advice:
    """Recommended settings and the findings that they rest on.

    Attributes:
        config: the settings.
        mean_bits: what causal prediction of values saves.
        scale_bits: what knowing each coordinate's scale saves over knowing its tensor's.
        neighbours: correlation of neighbouring values; None where there are no matrices.
    """

    config: CodecConfig
    mean_bits: float
    scale_bits: float
    neighbours: float | None


@dataclass(frozen=True)
class Check:
    """What coding with some settings took.

    Attributes:
        name: `TABLES`, `SCALES`, `DEFAULT` or `RECOMMENDED`.
        config: the settings.
        bits: a coordinate, packets and all; the first quarter, from which the coder learns, is left out.
        nmse: squared error over squared norm, of the same packets.
        seconds: encoding and decoding of one packet.
        packets: that are counted.
    """

    name: str
    config: CodecConfig
    bits: float
    nmse: float
    seconds: float
    packets: int


def advise(
    ladders: Sequence[Sequence[Rung]], times: Sequence[Dependence], spaces: Sequence[Space], nmse: float
) -> Advice:
    """Settings for a stream, from what its phases are like on average.

    Args:
        ladders: of each phase, at least one.
        times: likewise.
        spaces: likewise.
        nmse: the wanted error.
    """
    known = [{rung.level: rung.best_bits for rung in rungs} for rungs in ladders]
    scale = sum(item["tensor"] - item["packet"] for item in known) / len(known)
    mean = sum(item.bits for item in times) / len(times)
    found = [item.value["neighbours"] for item in spaces if item.value["neighbours"] is not None]
    neighbours = sum(found) / len(found) if found else None
    entropy = "scale_classes" if scale >= SCALE_PAYS else "tensor_tables"
    alike = neighbours is not None and neighbours >= VECTOR_PAYS
    config = CodecConfig(
        "fitted" if mean >= MEAN_PAYS else "none",
        lattice="E8" if alike and entropy == "scale_classes" else "Z",
        nmse=nmse,
        entropy=entropy,
    )
    return Advice(config, mean, scale, neighbours)


def contestants(advice: Advice) -> dict[str, CodecConfig]:
    """What the recommendation is compared with, and itself, by name."""
    nmse = advice.config.nmse
    return {
        TABLES: CodecConfig("none", nmse=nmse, entropy="tensor_tables"),
        SCALES: CodecConfig("none", lattice="Z", nmse=nmse),
        DEFAULT: CodecConfig(lattice="Z", nmse=nmse),
        RECOMMENDED: advice.config,
    }


def check(advice: Advice, layout: Layout, stream: str, values: Values, steps: Sequence[int]) -> Iterator[Check]:
    """Code rows with the recommended settings and with the others; equal settings are coded once.

    Args:
        advice: whose settings.
        layout: of the rows.
        stream: their name.
        values: `[time, param]`.
        steps: of each row.
    """
    done: dict[str, Check] = {}
    for name, config in contestants(advice).items():
        if config.digest not in done:
            done[config.digest] = _coded(name, config, layout, stream, values, steps)
        found = done[config.digest]
        yield Check(name, config, found.bits, found.nmse, found.seconds, found.packets)


def setting_text(config: CodecConfig) -> str:
    """A configuration as one would write it, with what differs from the defaults."""
    plain = CodecConfig()
    own = [
        f"{item.name}={getattr(config, item.name)!r}"
        for item in fields(config)
        if getattr(config, item.name) != getattr(plain, item.name)
    ]
    return f"CodecConfig({', '.join(own)})"


def _coded(name: str, config: CodecConfig, layout: Layout, stream: str, values: Values, steps: Sequence[int]) -> Check:
    codec = Codec(layout, config, stream=stream)
    encoder, decoder = codec.encoder(), codec.decoder()
    skipped = len(values) // 4
    num_bytes, error, energy = 0, 0.0, 0.0
    began = time.perf_counter()
    for row, (vector, step) in enumerate(zip(values, steps, strict=True)):
        sent = torch.from_numpy(vector.copy())
        packet = encoder.encode(sent, int(step))
        received = decoder.decode(packet)
        if row >= skipped:
            num_bytes += len(packet)
            error += float((received - sent).double().square().sum())
            energy += float(sent.double().square().sum())
    count = len(values) - skipped
    seconds = (time.perf_counter() - began) / len(values)
    bits = 8 * num_bytes / (count * layout.size)
    return Check(name, config, bits, error / energy if energy > 0 else 0.0, seconds, count)
