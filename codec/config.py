"""How a vector is coded: everything both ends of a link must agree on."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .feedback import ErrorFeedback, make_feedback
from .lattice import lattice_names
from .lattice_choice import CHOICES
from .metric import metric_names
from .modes import ModePolicy, Uniform, policy_from_dict, policy_to_dict
from .predictor_choice import Choice, check_predictor, predictor_digest
from .rate_control import ErrorBound, MeanError, MeanRate, RateControl

ENTROPY_NAMES = ("scale_classes", "tensor_tables", "runs")
ROUNDING_NAMES = ("nearest", "stochastic")
HOLD_NAMES = ("bound", "mean_error", "mean_rate")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class CodecConfig:
    """Settings of a codec. Both ends need equal ones; their digest is in every packet.

    Attributes:
        predictor: what is subtracted before coding; one of `predictor_names()`, or a forecaster of the coded stream.
            `fitted` is right almost everywhere, because it drops what does not pay; `none` is the reference. A tuple of
            up to four names or forecasters is weighed together for each tensor, as `fitted` does with two.
        lattice: `auto` is Z or E8, packet by packet, whichever was cheaper at the last trial, at this stream's rate; Z
            alone where `entropy` or `rounding` leaves no other. `Z` quantises to integers times one cell width and is
            two to six times as fast as E8; take it by name where seconds count more than bits. `D4` and `E8` quantise
            vectors of four and eight neighbouring coordinates. At NMSE 0.1 and below E8 takes 0.83 to 0.99 times the
            bits of Z in transformers, 0.5 to 0.9 in networks that look at images, whose neighbouring weights are alike;
            where packets are below a hundred bytes, NMSE 0.5 of gradients, up to a tenth more. `D4` was never the best
            of the three. `T8` and `T64` are trellises, for residuals without structure above one bit: 0.15 and 0.12 bit
            from the bound at worst, where Z is 0.26 and E8 0.16, for ten times the time of Z; see `docs/lattices.md`.
            `A2` quantises pairs, `Leech` 24 coordinates at a time, for comparison: `auto` tries neither.
            `raw` sends float32 as it is and ignores the rest.
        nmse: the largest ||g - decoded||^2 / ||g||^2 of a packet, kept as a bound. Halving it costs about half a bit a
            coordinate. 0.1 changes the training of small nets little, 0.5 is for error feedback or many workers.
        momentum: decay of the running mean of decoded vectors that the momentum predictors use. Larger remembers
            longer; 0.9 spans about ten packets.
        dead_zone: how much later than plain rounding a magnitude is rounded up, in cells, below 0.5; `None` leaves it
            to the entropy coder, which knows what each symbol costs. In other lattices than Z it is a pull towards
            zero, see `lattice_points.nearest`. Wider zeros more coordinates and narrows the cells to keep `nmse`.
        entropy: what chooses a coordinate's probability table. `scale_classes`: how large its residual is expected to
            be, from earlier packets and from the part of this one that is decoded already. `tensor_tables`: its tensor;
            the reference to compare with. On gradients of small nets the former takes 0.5 to 0.85 times the bits.
            `runs`: as `tensor_tables`, with runs of zeros as one symbol: many times faster below one bit a coordinate.
        hold: what `nmse` or `bits` mean. `bound`: every packet's error is at most `nmse`, found by a search.
            `mean_error`: the mean over packets is `nmse`. `mean_rate`: the mean is `bits` a coordinate, and only the
            first packet looks at `nmse`. The means are held by following the packets, without a search.
        bits: a coordinate, for `mean_rate`.
        modes: which tensors get coarser cells or no vector at all, `codec.modes`.
        feedback: what becomes of the error: `off`, `classic` (all of it is added to the next vector) or `leaky`
            (`feedback_decay` of it). Without it a coordinate that always rounds to zero never moves: needed for NMSE
            above about 0.3.
        feedback_decay: for `leaky`.
        metric: of `nmse`: `plain`, or `adam`: squared errors over v + floor, v the running mean of squared decoded
            vectors, which is what counts where Adam makes the step. On gradients of three small nets a plain NMSE of
            0.5 leaves Adam's step next to nothing (0.99 of its energy is error), because few coordinates hold most of a
            gradient's energy; so at equal `nmse` this takes many times the bits.
        metric_decay: of that mean, as Adam's second beta; below 1.
        rounding: `nearest`, or `stochastic`: unbiased, for vectors of many workers that are averaged. `nmse` then is
            the expected error. Takes far more bits for one vector's error. Only for lattice Z with tables.

    Raises:
        ConfigError: if a name is unknown or a number is out of range.
    """

    predictor: Choice = "fitted"
    lattice: str = "auto"
    nmse: float = 0.1
    momentum: float = 0.9
    dead_zone: float | None = None
    entropy: str = "scale_classes"
    hold: str = "bound"
    bits: float | None = None
    modes: ModePolicy = field(default_factory=Uniform)
    feedback: str = "off"
    feedback_decay: float = 0.9
    metric: str = "plain"
    metric_decay: float = 0.98
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        check_predictor(self.predictor)
        if self.lattice not in lattice_names():
            raise ConfigError(f"`lattice` must be one of {lattice_names()}, got {self.lattice!r}.")
        if self.entropy not in ENTROPY_NAMES:
            raise ConfigError(f"`entropy` must be one of {ENTROPY_NAMES}, got {self.entropy!r}.")
        if self.lattice not in ("Z", "raw", "auto") and self.entropy != "scale_classes":
            raise ConfigError(f"`lattice={self.lattice!r}` needs `entropy='scale_classes'`, got {self.entropy!r}.")
        low, highest = 0.0, {"nmse": 1.0, "momentum": 1.0, "dead_zone": 0.5, "metric_decay": 1.0}
        for name, high in highest.items():
            value = getattr(self, name)
            if name == "dead_zone" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"`{name}` must be a finite number, got {value!r}.")
            if not (low < value < high or (value == low and name != "nmse")):
                raise ConfigError(f"`{name}` must be at least {low} and below {high} (`nmse` above), got {value}.")

        if self.hold not in HOLD_NAMES:
            raise ConfigError(f"`hold` must be one of {HOLD_NAMES}, got {self.hold!r}.")
        if (self.bits is not None) != (self.hold == "mean_rate"):
            raise ConfigError(
                f"`bits` is for `hold='mean_rate'`, which needs it; got {self.bits!r} with {self.hold!r}."
            )
        if self.bits is not None and not (_is_number(self.bits) and 0 < self.bits <= 32):
            raise ConfigError(f"`bits` must be above 0 and at most 32 a coordinate, got {self.bits!r}.")
        if not isinstance(self.modes, ModePolicy):
            raise ConfigError(f"`modes` must be a policy of `codec.modes`, got {self.modes!r}.")
        self.make_feedback()
        if self.metric not in metric_names():
            raise ConfigError(f"`metric` must be one of {metric_names()}, got {self.metric!r}.")
        if self.rounding not in ROUNDING_NAMES:
            raise ConfigError(f"`rounding` must be one of {ROUNDING_NAMES}, got {self.rounding!r}.")
        if self.rounding == "stochastic" and (
            self.lattice not in ("Z", "auto")
            or self.entropy == "runs"
            or self.dead_zone is not None
            or self.feedback != "off"
        ):
            raise ConfigError(
                "Stochastic rounding is for lattice Z with `scale_classes` or `tensor_tables`, without a dead zone or "
                "error feedback, which would make it biased."
            )
        if self.predictor == "ef21" and self.feedback != "off":
            raise ConfigError(
                "`ef21` already makes up for each packet's error in the next one; with `feedback` both would claim the "
                "same error. Leave `feedback` off."
            )

    @classmethod
    def fast(cls, bits: float = 0.3, feedback: str = "leaky") -> "CodecConfig":
        """Settings for a training step that waits for the packet: no prediction, no search, runs of zeros.

        A million coordinates of a gradient take about 6 ms to encode and 2 to decode on one core as machine code
        (`pip install deadreckon[compiled]`), 12 and 6 without, and 1700 with the default settings, which spend them on
        fewer bits for the same error.

        How many bits: on small networks under Adam, one bit with `classic` trained as well as PowerSGD of rank 4 and
        nearly as plain averaging does; 0.3 is for links that are slow enough for the rest not to matter.

        Args:
            bits: a coordinate, the mean over packets.
            feedback: what becomes of the error. `leaky` is for Adam and its like, to whose second moment errors that
                arrive late do harm; `classic`, which loses nothing, is for SGD.

        Raises:
            ConfigError: if the rate is out of range or the rule unknown.
        """
        return cls("none", entropy="runs", hold="mean_rate", bits=bits, feedback=feedback)

    @property
    def lattices(self) -> tuple[str, ...]:
        """The lattices that packets may be in; more than one only where `auto` has a choice."""
        if self.lattice != "auto":
            return (self.lattice,)
        only_z = self.entropy != "scale_classes" or self.rounding != "nearest"
        return CHOICES[:1] if only_z else CHOICES

    def make_feedback(self) -> ErrorFeedback:
        """The rule of error feedback."""
        return make_feedback(self.feedback, self.feedback_decay)

    def make_control(self) -> RateControl:
        """The rule for the width of cells."""
        if self.hold == "mean_rate":
            assert self.bits is not None  # checked above
            return MeanRate(self.bits)
        return MeanError(self.nmse) if self.hold == "mean_error" else ErrorBound()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the way back.

        Raises:
            ConfigError: if the predictor is an object, which has no name to write down.
        """
        for member in self.predictor if isinstance(self.predictor, tuple) else (self.predictor,):
            if not isinstance(member, str):
                raise ConfigError(
                    f"A configuration with a {type(member).__name__} object cannot be written as JSON. "
                    "Save the forecaster by itself and put it back with `dataclasses.replace`."
                )
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        if isinstance(self.predictor, tuple):
            plain["predictor"] = list(self.predictor)
        return plain | {"modes": policy_to_dict(self.modes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CodecConfig":
        """A configuration from `to_dict`'s result; missing entries keep their defaults.

        Raises:
            ConfigError: for unknown entries and bad values.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"Unknown entries in a codec configuration: {unknown}. There are: {sorted(known)}.")
        if isinstance(data.get("modes"), Mapping):
            data = {**data, "modes": policy_from_dict(data["modes"])}
        if isinstance(data.get("predictor"), list):
            data = {**data, "predictor": tuple(data["predictor"])}
        return cls(**data)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all settings, and of everything a learned predictor has learned."""
        settings: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        if len(self.lattices) == 1:  # `auto` without a choice makes the packets of Z
            settings["lattice"] = self.lattices[0]
        settings["modes"] = policy_to_dict(self.modes)
        settings["predictor"] = predictor_digest(self.predictor)
        settings = {name: float(value) if isinstance(value, int) else value for name, value in settings.items()}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
