"""The methods of the race's grid: recipes of optimiser, schedule, averaging and jumps, and what is tuned of each."""

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...models import closed_form_names, pretrained_names
from ..errors import OptionError

Settings = Mapping[str, float]
RATES = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)
SGD_RATES = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
MUON_RATES = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
AUON_RATES = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
SHARES = (1.0, 0.6, 0.35, 0.2)  # of the steps allowed, at whose end a decay is over
PRETRAINED = "pretrained:"  # before the name of a forecaster that comes with the package
DECAY = "decay"  # stands for whichever decay was tuned best on a problem
BEST = "best"  # stands for whichever baseline was soonest at the hardest target when it was tuned
RELEASED = "released:nino"  # the authors' checkpoint, which the user has to bring
LONGEST = 200  # optimiser steps that the forecasters which come with the package look ahead
RELEASED_LONGEST = 400  # and the authors' NiNo: 40 rows, ten steps apart


@dataclass(frozen=True)
class Jumps:
    """How a method jumps.

    Attributes:
        forecaster: a name in `models`, `pretrained:NAME`, or `released:nino` for that of NiNo's authors.
        rule: see `JumpPolicy`; `always` is blind, on a schedule.
        control: what is put in the forecast's place, see `race_controls`; None for the forecast itself.
        kind: `verified`, `blind`, `evaluated` (the forecast is only looked at) or `oracle`.
        every: optimiser steps between opportunities, where verified.
        horizons: optimiser steps ahead, where verified.
        row_every: optimiser steps between recorded rows.
        moments: see `SkipAhead`.
        options: of the forecaster; none where it is pretrained.
        schedule: whether the learning rate's schedule `stays` where it is or `advances` by the jump.
        longest: optimiser steps; no blind jump goes further.
        published: whose schedule blind jumps are on, `nino` or `wnn`; see `blind_schedule`.
    """

    forecaster: str
    rule: str = "always"
    control: str | None = None
    kind: str = "blind"
    every: int = 50
    horizons: tuple[int, ...] = (20, 50, 100)
    row_every: int = 10
    moments: str = "keep"
    options: Mapping[str, object] = field(default_factory=dict)
    schedule: str = "stays"
    longest: int = LONGEST
    published: str = "nino"


@dataclass(frozen=True)
class Method:
    """A recipe.

    Attributes:
        name: in tables and file names.
        optimizer: see `make_race_optimizer`.
        schedule: `constant`, `linear`, `cosine` or `one_cycle`.
        average: `none`, `ema` or `lawa`: what is evaluated.
        outer: `none` or `snoo`: a slow step over several fast ones; Lookahead is SNOO without momentum.
        choices: what is tuned, and the values it may take.
        fixed: settings that are not tuned.
        base: the method whose tuned settings it takes over; a method with one is not tuned before that one is.
        jumps: how it jumps; None for baselines.
    """

    name: str
    optimizer: str = "adamw"
    schedule: str = "linear"
    average: str = "none"
    outer: str = "none"
    choices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    fixed: Settings = field(default_factory=dict)
    base: str | None = None
    jumps: Jumps | None = None

    @property
    def anytime(self) -> bool:
        """Whether it needs no horizon: it may be stopped anywhere."""
        return self.schedule == "constant"

    def trials(self, seed: int, limit: int) -> list[dict[str, float]]:
        """What to try: all combinations where they are few, else some of them drawn evenly."""
        names = list(self.choices)
        combinations = [dict(zip(names, values, strict=True)) for values in itertools.product(*self.choices.values())]
        if len(combinations) > limit:
            combinations = _spread(self.choices, limit, f"{seed} {self.name}")
        return [{**self.fixed, **chosen} for chosen in combinations]


def _spread(choices: Mapping[str, tuple[float, ...]], count: int, key: str) -> list[dict[str, float]]:
    """A Latin hypercube sample: every value of every setting comes about equally often."""
    shuffler = random.Random(key)
    columns: dict[str, list[float]] = {}
    for name, values in choices.items():
        dealt: list[float] = []
        while len(dealt) < count:
            dealt += shuffler.sample(values, len(values))
        columns[name] = dealt[:count]
    return [{name: column[index] for name, column in columns.items()} for index in range(count)]


_RATE = {"rate": RATES}
_BASELINES = (
    Method("adamw_constant", schedule="constant", choices=_RATE),
    Method("adamw_linear", choices=_RATE),
    Method("adamw_cosine", schedule="cosine", choices=_RATE),
    Method("ema", schedule="constant", average="ema", choices={"rate": RATES, "decay": (0.98, 0.99, 0.995)}),
    Method("lawa", schedule="constant", average="lawa", choices={"rate": RATES, "window": (0.1, 0.2)}),
    Method("linear_ema", average="ema", choices={"rate": RATES, "decay": (0.95, 0.98, 0.99)}),
    Method(
        "schedule_free",
        optimizer="schedule_free",
        schedule="constant",
        choices={"rate": (0.002, 0.004, 0.008, 0.016, 0.032), "beta": (0.9, 0.95), "warmup": (0.02, 0.1)},
    ),
    Method(
        "lookahead",
        outer="snoo",
        choices={"rate": RATES, "outer_rate": (0.5, 0.8)},
        fixed={"outer_every": 5, "mu": 0.0},
    ),
    Method(
        "snoo",
        outer="snoo",
        choices={"rate": RATES, "outer_every": (10, 20, 50), "outer_rate": (0.6, 0.8), "mu": (0.5, 0.75)},
    ),
    Method("sgd_one_cycle", optimizer="sgd", schedule="one_cycle", choices={"rate": SGD_RATES}),
    Method("muon", optimizer="muon", choices={"rate": MUON_RATES, "adam_rate": (0.002, 0.008)}),
    Method(
        "muon_ema",
        optimizer="muon",
        average="ema",
        choices={"rate": MUON_RATES, "adam_rate": (0.002, 0.008), "decay": (0.9, 0.95, 0.98)},
    ),
    Method(
        "muon_snoo",
        optimizer="muon",
        outer="snoo",
        choices={
            "rate": MUON_RATES,
            "adam_rate": (0.002, 0.008),
            "outer_every": (5, 10, 20),
            "outer_rate": (0.6, 0.8),
            "mu": (0.5, 0.75),
        },
    ),
    Method("auon", optimizer="auon", choices={"rate": AUON_RATES, "adam_rate": (0.002, 0.008)}),
    Method("adaptive_memory", optimizer="adaptive_memory", choices={"rate": MUON_RATES, "pull": (0.1, 1.0)}),
    Method("adan", optimizer="adan", choices={"rate": (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)}),
    Method("adamp", optimizer="adamp", choices=_RATE),
)


def _jump(name: str, forecaster: str, base: str = DECAY, **options: Any) -> Method:
    return Method(name, base=base, jumps=Jumps(forecaster, **options))


_VERIFIED: dict[str, Any] = {"rule": "worth_it", "kind": "verified"}
_FORECASTERS = {  # all that need no fitting to the run; `hold` goes nowhere
    **{name: name for name in closed_form_names() if name != "hold"},
    **{name: f"{PRETRAINED}{name}" for name in pretrained_names()},
}
_PUBLISHED: dict[str, dict[str, Any]] = {"wnn": {"published": "wnn"}, "wnn_plus": {"published": "wnn"}}
_TREND: dict[str, Any] = {"options": {"extrapolate": True, "history": 8}, "every": 20, "horizons": (10, 20, 40)}
_AVERAGE: dict[str, Any] = {"options": {"history": 4}, "every": 20, "horizons": (10,), "row_every": 5}
_RELEASED: dict[str, Any] = {"longest": RELEASED_LONGEST}
_JUMPING = (
    *(_jump(f"blind_{name}", source, **_PUBLISHED.get(name, {})) for name, source in _FORECASTERS.items()),
    *(_jump(f"verified_{name}", source, **_VERIFIED) for name, source in _FORECASTERS.items()),
    _jump("blind_nino_released", RELEASED, **_RELEASED),
    _jump("verified_nino_released", RELEASED, **_VERIFIED, **_RELEASED),
    _jump("best_verified_nino_released", RELEASED, base=BEST, **_VERIFIED, **_RELEASED),
    _jump("blind_advancing", "pretrained:adaptive_linear", schedule="advances"),
    _jump("verified_advancing", "pretrained:adaptive_linear", schedule="advances", **_VERIFIED),
    _jump("strict_adaptive_linear", "pretrained:adaptive_linear", rule="strict", kind="verified"),
    _jump("best_verified_adaptive_linear", "pretrained:adaptive_linear", base=BEST, **_VERIFIED),
    _jump("best_verified_linear", "linear", base=BEST, **_VERIFIED),
    _jump("best_verified_outer_momentum", "outer_momentum", base=BEST, **_VERIFIED),
    _jump("best_verified_nino_long", "pretrained:nino_long", base=BEST, **_VERIFIED),
    _jump("best_verified_average", "lawa", base=BEST, **_VERIFIED, **_AVERAGE),
    _jump("best_strict_average", "lawa", base=BEST, rule="strict", kind="verified", **_AVERAGE),
    _jump("best_strict_trend", "lawa", base=BEST, rule="strict", kind="verified", **_TREND),
)
_CONTROLLED = "pretrained:adaptive_linear"
_CONTROLS = (
    *(_jump(f"control_{name}", _CONTROLLED, control=name) for name in ("random", "momentum", "shuffled")),
    _jump("control_random_nino_released", RELEASED, control="random", **_RELEASED),
    _jump("control_evaluation_only", _CONTROLLED, kind="evaluated"),
    _jump("control_oracle", _CONTROLLED, kind="oracle"),
    _jump("control_oracle_advancing", _CONTROLLED, kind="oracle", schedule="advances"),
    Method("control_rate_bump", base=DECAY, fixed={"bump": 1.0}),
)
METHODS: Mapping[str, Method] = {method.name: method for method in (*_BASELINES, *_JUMPING, *_CONTROLS)}
BASELINES = tuple(method.name for method in _BASELINES)
DECAYS = ("adamw_linear", "adamw_cosine")  # the best of these gives the hardest target


def find_method(name: str) -> Method:
    """A method by name.

    Raises:
        OptionError: if there is none; it lists what there is.
    """
    if name not in METHODS:
        raise OptionError(f"`methods` must be of {', '.join(METHODS)}, got {name!r}.")
    return METHODS[name]
