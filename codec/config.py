"""How a vector is coded: everything both ends of a link must agree on."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..forecast import Forecaster
from .errors import ConfigError
from .lattice import lattice_names
from .predictors import forecaster_digest, predictor_names


@dataclass(frozen=True)
class CodecConfig:
    """Settings of a codec. Both ends need equal ones; their digest is in every packet.

    Attributes:
        predictor: what is subtracted before coding; one of `predictor_names()`, or a forecaster of the coded stream.
            `fitted` is right almost everywhere, because it drops what does not pay; `none` is the reference.
        lattice: `Z` quantises to integers times one cell width; `raw` sends float32 as it is and ignores the rest.
        nmse: the largest ||g - decoded||^2 / ||g||^2 of a packet, kept as a bound. Halving it costs about half a bit a
            coordinate. 0.1 changes the training of small nets little, 0.5 is for error feedback or many workers.
        momentum: decay of the running mean of decoded vectors that the momentum predictors use. Larger remembers
            longer; 0.9 spans about ten packets.
        dead_zone: how much later than plain rounding a magnitude is rounded up, in cells, below 0.5. Wider zeros more
            coordinates and narrows the cells to keep `nmse`. On gradients of two small Fashion-MNIST nets the bits at
            NMSE 0.1 are flat (0.4 %) between 0.15 and 0.3, and at 0.01 between 0.1 and 0.25; 0 costs 1 to 5 % more.

    Raises:
        ConfigError: if a name is unknown or a number is out of range.
    """

    predictor: str | Forecaster = "fitted"
    lattice: str = "Z"
    nmse: float = 0.1
    momentum: float = 0.9
    dead_zone: float = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.predictor, str):
            if self.predictor not in predictor_names():
                raise ConfigError(f"`predictor` must be one of {predictor_names()}, got {self.predictor!r}.")
        elif not isinstance(self.predictor, Forecaster):
            raise ConfigError(f"`predictor` must be a name or a Forecaster, got {type(self.predictor).__name__}.")
        if self.lattice not in lattice_names():
            raise ConfigError(f"`lattice` must be one of {lattice_names()}, got {self.lattice!r}.")
        for name, low, high in (("nmse", 0.0, 1.0), ("momentum", 0.0, 1.0), ("dead_zone", 0.0, 0.5)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"`{name}` must be a finite number, got {value!r}.")
            if not (low < value < high or (value == low and name != "nmse")):
                raise ConfigError(f"`{name}` must be at least {low} and below {high} (`nmse` above), got {value}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the way back.

        Raises:
            ConfigError: if the predictor is an object, which has no name to write down.
        """
        if not isinstance(self.predictor, str):
            raise ConfigError(
                f"A configuration with a {type(self.predictor).__name__} object cannot be written as JSON. "
                "Save the forecaster by itself and put it back with `dataclasses.replace`."
            )
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CodecConfig":
        """A configuration from `to_dict`'s result; missing entries keep their defaults.

        Raises:
            ConfigError: for unknown entries and bad values.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"Unknown entries in a codec configuration: {unknown}. There are: {sorted(known)}.")
        return cls(**data)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all settings, and of everything a learned predictor has learned."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.predictor, Forecaster):
            settings["predictor"] = forecaster_digest(self.predictor)
        settings = {name: value if isinstance(value, str) else float(value) for name, value in settings.items()}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
