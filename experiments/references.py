"""What `deadreckon compare` measures the codec against: coders from the literature, and ours without what is new."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from ..codec import Codec, CodecConfig
from ..codec.baselines import make_baseline
from ..forecast import Layout
from .measures import OUR_DEFAULT


class Sender(Protocol):
    """The sending end of a link."""

    def encode(self, vector: Tensor, step: int, /) -> bytes:
        """One vector as a packet."""
        ...


class Receiver(Protocol):
    """The receiving end of a link."""

    def decode(self, packet: bytes, /) -> Tensor:
        """The vector of a packet."""
        ...


Ends = tuple[Sender, Receiver]


@dataclass(frozen=True)
class Reference:
    """A coder at one setting.

    Attributes:
        name: one of `reference_names()`.
        setting: what tells it from the others of this name; empty where only the error asked for does.
        nmse_target: the error asked for; `None` where the setting fixes the bits instead.
        ends: makes both ends of a link for a layout and a stream's name.
    """

    name: str
    setting: str
    nmse_target: float | None
    ends: Callable[[Layout, str], Ends]


# Error feedback is off, and EDEN's scale the one of least error: what is compared is the error of single packets.
_OFF: Mapping[str, Any] = {"feedback": "off"}
_SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "eden": {"1 bit": {"bits": 1}, "2 bits": {"bits": 2}, "4 bits": {"bits": 4}},
    "topk": {"1 %": {"fraction": 0.01}, "10 %": {"fraction": 0.1}},
    "powersgd": {"rank 1": {"rank": 1}, "rank 4": {"rank": 4}},
    "qsgd": {"1 level": {"levels": 1}, "7 levels": {"levels": 7}},
    "terngrad": {"clip 2.5": {}},
    "companded": {"7 levels": {"levels": 7}, "31 levels": {"levels": 31}},
    "sign": {"1 bit": {}},
    "int8": {"8 bits": {}},
    "float16": {"16 bits": {}},
    "bfloat16": {"16 bits": {}},
}
_COMMON: Mapping[str, Mapping[str, Any]] = {"eden": {"scale": "mse"}, "topk": {"values": "float16"}}
TENSOR_TABLES, DITHERED, ROTATED = "tensor_tables", "dithered", "rotated"


def reference_names() -> tuple[str, ...]:
    """Names that `references` takes.

    `default` is our codec with the settings it has when none are given. `tensor_tables` is our codec without prediction
    and with a probability table for each tensor: the honest baseline of anything that predicts. `dithered` is a
    subtractively dithered integer lattice with Wiener's factor, `rotated` the integer lattice behind a random rotation.
    The others are of `deadreckon.codec.baselines`. Left out are methods whose decoded vector is no estimate of the
    encoded one.
    """
    return (OUR_DEFAULT, TENSOR_TABLES, *_SETTINGS, DITHERED, ROTATED)


def references(name: str, nmse: Sequence[float]) -> list[Reference]:
    """A coder at each of its settings.

    Args:
        name: one of `reference_names()`.
        nmse: errors to ask for, of coders that can be asked.
    """
    if name == OUR_DEFAULT:
        plain = CodecConfig()
        return [Reference(name, f"{plain.predictor}, {plain.lattice}", at, _codec(CodecConfig(nmse=at))) for at in nmse]
    if name == TENSOR_TABLES:
        plain = CodecConfig("none", entropy="tensor_tables")
        return [Reference(name, "", at, _codec(replace(plain, nmse=at))) for at in nmse]
    if name == DITHERED:
        return [Reference(name, "", target, _baseline(name, {"nmse": target, "wiener": True})) for target in nmse]
    if name == ROTATED:
        return [Reference(name, "", target, _baseline(name, {"nmse": target})) for target in nmse]
    return [
        Reference(name, setting, None, _baseline(name, {**_COMMON.get(name, {}), **options}))
        for setting, options in _SETTINGS[name].items()
    ]


def _codec(config: CodecConfig) -> Callable[[Layout, str], Ends]:
    def ends(layout: Layout, stream: str) -> Ends:
        codec = Codec(layout, config, stream)
        return codec.encoder(), codec.decoder()

    return ends


def _baseline(name: str, options: Mapping[str, Any]) -> Callable[[Layout, str], Ends]:
    def ends(layout: Layout, stream: str) -> Ends:
        baseline = make_baseline(name, **options, **_OFF)
        return baseline.encoder(layout), baseline.decoder(layout)

    return ends
