"""The parameters of a sweep file: which values each can take, in order or at random."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..errors import OptionError
from .options import MAX_CELLS

CONSTANT, CATEGORICAL, WEIGHTED = "constant", "categorical", "categorical_w_probabilities"
INT_UNIFORM, Q_UNIFORM = "int_uniform", "q_uniform"
_DIGITS = 6  # significant, of what is drawn: options stay readable
_RANGE: Mapping[str, float | None] = {"min": None, "max": None}
_BELL: Mapping[str, float | None] = {"mu": 0.0, "sigma": 1.0}


@dataclass(frozen=True)
class Distribution:
    """A distribution of numbers.

    Attributes:
        settings: what the file says of it, with defaults; None where there is none.
        draw: a number, from the settings and a generator.
        logarithmic: whether `min` and `max` have to be above 0.
    """

    settings: Mapping[str, float | None]
    draw: Callable[[Mapping[str, float], random.Random], float]
    logarithmic: bool = False


def _uniform(chosen: Mapping[str, float], generator: random.Random) -> float:
    return generator.uniform(chosen["min"], chosen["max"])


def _whole(chosen: Mapping[str, float], generator: random.Random) -> float:
    return generator.randint(int(chosen["min"]), int(chosen["max"]))


def _exponential(chosen: Mapping[str, float], generator: random.Random) -> float:
    return math.exp(generator.uniform(chosen["min"], chosen["max"]))


def _log_uniform(chosen: Mapping[str, float], generator: random.Random) -> float:
    return math.exp(generator.uniform(math.log(chosen["min"]), math.log(chosen["max"])))


def _normal(chosen: Mapping[str, float], generator: random.Random) -> float:
    return generator.gauss(chosen["mu"], chosen["sigma"])


def _log_normal(chosen: Mapping[str, float], generator: random.Random) -> float:
    return math.exp(generator.gauss(chosen["mu"], chosen["sigma"]))


_STEPS: Mapping[str, float | None] = {"q": 1.0}
# wandb's names. `log_uniform` takes exponents of e, `log_uniform_values` the values themselves.
DISTRIBUTIONS: Mapping[str, Distribution] = {
    INT_UNIFORM: Distribution(_RANGE, _whole),
    "uniform": Distribution(_RANGE, _uniform),
    Q_UNIFORM: Distribution({**_RANGE, **_STEPS}, _uniform),
    "log_uniform": Distribution(_RANGE, _exponential),
    "q_log_uniform": Distribution({**_RANGE, **_STEPS}, _exponential),
    "log_uniform_values": Distribution(_RANGE, _log_uniform, logarithmic=True),
    "q_log_uniform_values": Distribution({**_RANGE, **_STEPS}, _log_uniform, logarithmic=True),
    "normal": Distribution(_BELL, _normal),
    "q_normal": Distribution({**_BELL, **_STEPS}, _normal),
    "log_normal": Distribution(_BELL, _log_normal),
    "q_log_normal": Distribution({**_BELL, **_STEPS}, _log_normal),
}
NAMES = (CONSTANT, CATEGORICAL, WEIGHTED, *DISTRIBUTIONS)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        name: of the option that it sets.
        distribution: one of wandb's names of distributions.
        values: what it can be, where that is a list.
        probabilities: of these; empty for equal ones.
        settings: of a distribution of numbers.
    """

    name: str
    distribution: str
    values: tuple[Any, ...]
    probabilities: tuple[float, ...]
    settings: Mapping[str, float]

    @property
    def varies(self) -> bool:
        """Whether it can take more than one value."""
        return self.distribution in DISTRIBUTIONS or len(self.values) > 1

    def grid(self) -> tuple[Any, ...]:
        """Every value, in order. As with wandb, a grid of `q_uniform` leaves out its `max`.

        Raises:
            OptionError: if there is no end of values.
        """
        if self.distribution in (CONSTANT, CATEGORICAL):
            return self.values
        if self.distribution not in (INT_UNIFORM, Q_UNIFORM):
            raise OptionError(
                f"`parameters.{self.name}` must have values, int_uniform or q_uniform in a grid, got "
                f"{self.distribution}. List its `values`, or set `method` to random."
            )
        low, high, step = self.settings["min"], self.settings["max"], self.settings.get("q", 1.0)
        if (high - low) / step >= MAX_CELLS:
            raise OptionError(f"`parameters.{self.name}` has more than {MAX_CELLS} values. Set `method` to random.")
        if self.distribution == INT_UNIFORM:
            return tuple(range(int(low), int(high) + 1))
        return tuple(self._quantised(low + step * index) for index in range(math.ceil((high - low) / step)))

    def draw(self, generator: random.Random) -> Any:
        """A value at random.

        Raises:
            OptionError: if it is larger than numbers can be.
        """
        if self.distribution not in DISTRIBUTIONS:
            return generator.choices(self.values, self.probabilities or None)[0]
        try:
            value = DISTRIBUTIONS[self.distribution].draw(self.settings, generator)
        except OverflowError as error:
            raise OptionError(
                f"`parameters.{self.name}` gives values that are too large: {self.distribution} takes exponents."
            ) from error
        if self.distribution == INT_UNIFORM:
            return int(value)
        return self._quantised(value) if "q" in self.settings else float(f"{value:.{_DIGITS}g}")

    def _quantised(self, value: float) -> float | int:
        step = self.settings["q"]
        nearest = round(value / step) * step
        return int(nearest) if float(step).is_integer() else float(f"{nearest:.12g}")


def read_parameter(name: str, content: Any) -> Parameter:
    """One entry of a sweep file's `parameters`.

    Args:
        name: its name.
        content: what stands there.

    Raises:
        OptionError: saying what is wrong with it.
    """
    place = f"`parameters.{name}`"
    if not isinstance(content, Mapping):
        raise OptionError(f"{place} must be a mapping such as {{values: [1, 2]}}, got {content!r:.80}.")
    if "parameters" in content:
        raise OptionError(f"{place} must not hold parameters itself: options of commands are flat. Name the options.")
    given = {key: value for key, value in content.items() if key != "distribution"}
    distribution = content.get("distribution", _usual(given))
    if distribution is None:
        raise OptionError(
            f"{place} must have value, values, or min and max, got {', '.join(map(str, given)) or 'none'}."
        )
    if distribution not in NAMES:
        raise OptionError(
            f"{place} has the distribution {distribution!r:.40}, which does not run here. Take one of "
            f"{', '.join(NAMES)}, or run the file with `wandb sweep`."
        )
    if distribution in DISTRIBUTIONS:
        return Parameter(name, distribution, (), (), _settings(place, distribution, given))
    values, probabilities = _choices(place, distribution, given)
    return Parameter(name, distribution, values, probabilities, {})


def _usual(given: Mapping[str, Any]) -> str | None:
    """The distribution that wandb assumes where none is named."""
    if "value" in given:
        return CONSTANT
    if "values" in given:
        return WEIGHTED if "probabilities" in given else CATEGORICAL
    if {"min", "max"} <= given.keys():
        return INT_UNIFORM if all(type(given[name]) is int for name in ("min", "max")) else "uniform"
    return None


def _choices(place: str, distribution: str, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    wanted = {CONSTANT: {"value"}, CATEGORICAL: {"values"}, WEIGHTED: {"values", "probabilities"}}[distribution]
    if given.keys() != wanted:
        raise OptionError(
            f"{place} must have {' and '.join(sorted(wanted))} for {distribution}, got {', '.join(map(str, given))}."
        )
    values = [given["value"]] if distribution == CONSTANT else given["values"]
    if not isinstance(values, list) or not values:
        raise OptionError(f"{place}: `values` must be a list with something in it, got {values!r:.80}.")
    weights = given.get("probabilities", [])
    if distribution == WEIGHTED:
        if not isinstance(weights, list) or not all(_is_number(item) and item >= 0 for item in weights):
            raise OptionError(f"{place}: `probabilities` must be numbers of at least 0, got {weights!r:.80}.")
        if len(weights) != len(values) or not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise OptionError(f"{place}: `probabilities` must be one for each value and sum up to 1, got {weights}.")
    return tuple(values), tuple(weights)


def _settings(place: str, distribution: str, given: Mapping[str, Any]) -> dict[str, float]:
    own = DISTRIBUTIONS[distribution]
    unknown = [str(key) for key in given if key not in own.settings]
    if unknown:
        raise OptionError(f"{place}: {distribution} takes {', '.join(own.settings)}, got {unknown[0]!r}. Leave it out.")
    chosen: dict[str, float] = {}
    for name, default in own.settings.items():
        value = given.get(name, default)
        if value is None:
            raise OptionError(f"{place} must have {name!r} for {distribution}.")
        if not _is_number(value):
            hint = " YAML takes 1e-3 for text: write 0.001." if isinstance(value, str) else ""
            raise OptionError(f"{place}: {name!r} must be a finite number, got {value!r:.80}.{hint}")
        chosen[name] = value
    if "min" in chosen and chosen["min"] >= chosen["max"]:
        raise OptionError(f"{place}: `min` must be below `max`, got {chosen['min']} and {chosen['max']}.")
    if own.logarithmic and chosen["min"] <= 0:
        raise OptionError(f"{place}: `min` must be above 0 for {distribution}, got {chosen['min']}.")
    if distribution == INT_UNIFORM and not all(float(chosen[name]).is_integer() for name in ("min", "max")):
        raise OptionError(f"{place}: `min` and `max` must be whole numbers for {distribution}.")
    if chosen.get("q", 1.0) <= 0 or chosen.get("sigma", 0.0) < 0:
        raise OptionError(f"{place}: `q` must be above 0 and `sigma` at least 0.")
    return chosen


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))
