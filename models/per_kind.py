"""A forecaster of its own for each kind of tensor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, final, get_args

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Case, Forecast, Forecaster, Layout, Window
from ..forecast.layout import Kind
from .errors import ModelError
from .fitting import Examples
from .hold import Hold
from .linear import Linear
from .saved_options import describe
from .with_graph import bound_graphs
from .wrapper import Member, Members, Wrapper


@final
class PerKind(Wrapper):
    """Convolutions by one forecaster, biases by another: each sees, and is fitted to, the tensors of its kinds only.

    Args:
        members: the forecaster for each kind, of `weight`, `convolution`, `bias`, `norm`, `embedding` and `other`;
            `{"bias": hold}` if not given.
        default: the forecaster for all other kinds; `linear` if not given.
        stream: the stream it forecasts.

    Raises:
        ModelError: if there is no such kind, or a member is of another stream or needs the network's neural graph.
    """

    name: ClassVar[str] = "per_kind"

    def __init__(
        self,
        members: Mapping[str, Member] | Members | None = None,
        default: Member | None = None,
        stream: str = "weights",
    ) -> None:
        members = {"bias": Hold(stream=stream)} if members is None else members
        if not isinstance(members, Mapping):
            raise ModelError(f"`members` must name the forecaster for each kind of tensor, got {members!r}.")
        if strange := [kind for kind in members if kind not in get_args(Kind)]:
            raise ModelError(f"There is no kind of tensor {strange[0]!r}. There are: {', '.join(get_args(Kind))}.")
        others = default if default is not None else Linear(stream=stream)
        for member in (others, *members.values()):
            if isinstance(member, Forecaster) and (member.needs_graph or bound_graphs(member)):
                raise ModelError(
                    f"{member.name!r} needs the graph of all tensors, and would be given those of some kinds."
                )
        super().__init__([others, *members.values()], stream)
        self._kinds = tuple(members)

    @property
    @override
    def options(self) -> dict[str, object]:
        members = {kind: describe(member) for kind, member in zip(self._kinds, self.members[1:], strict=True)}
        return {"members": members, "default": describe(self.members[0]), "stream": self.stream}

    def _positions(self, layout: Layout) -> list[int]:
        """For each tensor the position of its member."""
        position_of = {kind: position for position, kind in enumerate(self._kinds, start=1)}
        return [position_of.get(spec.kind, 0) for spec in layout]

    def _parts(self, layout: Layout) -> list[tuple[Member, Tensor, Layout]]:
        """Members with the coordinates they forecast, and the layout of these; members without any are left out."""
        positions = self._positions(layout)
        parts: list[tuple[Member, Tensor, Layout]] = []
        for position, member in enumerate(self.members):
            own = [spec for spec, wanted in zip(layout, positions, strict=True) if wanted == position]
            if own:
                indices = torch.cat([torch.arange(spec.span.start, spec.span.stop) for spec in own])
                parts.append((member, indices, _layout_of(own)))
        return parts

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        parts = [
            (member, indices, _window_of(window, indices, layout))
            for member, indices, layout in self._parts(window.layout)
        ]
        for horizon in horizons:
            mean, scale = torch.empty_like(window.last), torch.empty_like(window.last)
            for member, indices, part in parts:
                forecast = next(iter(member.forecast(part, [horizon])))
                mean[indices], scale[indices] = forecast.mean, forecast.scale
            yield Forecast(horizon, mean, scale)

    @override
    def _examples_of(self, member: Member, examples: Examples) -> Examples:
        kept: list[list[Case]] = []
        for part in (examples.training, examples.validation):
            kept.append([])
            for case in examples.cases[part]:
                for own, indices, layout in self._parts(case.window.layout):
                    if own is member:
                        targets = {horizon: row[indices] for horizon, row in case.targets.items()}
                        kept[-1].append(Case(_window_of(case.window, indices, layout), targets))
        return Examples.of(kept[0], member, kept[1])

    @override
    def _fit_own(self, examples: Examples) -> None:
        return None


def _layout_of(specs: Sequence) -> Layout:
    """A layout of some tensors of another one, side by side."""
    moved, offset = [], 0
    for spec in specs:
        moved.append(replace(spec, offset=offset))
        offset += spec.numel
    return Layout(tuple(moved))


def _window_of(window: Window, indices: Tensor, layout: Layout) -> Window:
    """A window of some of the coordinates."""
    moments = window.moments
    if moments is not None:
        rate = moments.learning_rate
        moments = replace(
            moments,
            exp_avg=moments.exp_avg[indices],
            exp_avg_sq=moments.exp_avg_sq[indices],
            learning_rate=rate[indices] if rate.ndim else rate,
        )
    return replace(window, values=window.values[:, indices], layout=layout, moments=moments, graph=None)
