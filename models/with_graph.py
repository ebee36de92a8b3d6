"""A forecaster bound to one network's neural graph, so that windows need not carry it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast, final

from typing_extensions import override

from ..forecast import Case, Forecast, Forecaster, GraphError, Window
from ..forecast.graph import NeuralGraph
from .errors import FittingError, ModelError
from .fitting import Examples
from .inverted_optimizer import InvertedOptimizer
from .saved_options import describe
from .wrapper import Member, Wrapper


@final
class WithGraph(Wrapper):
    """The member's forecasts, for windows of one network that carry no graph.

    What the codec needs, whose decoder has nothing but a layout, and convenient wherever there is one network only. It
    forecasts what the member forecasts of the same window with the graph in it. Saved and loaded with the graph, about
    300 bytes a block of edges; its options, and so the digest of a codec's configuration, cover the graph.

    It is bound to the network: windows of another layout are refused. A window's own graph is not looked at.

    Args:
        member: a forecaster with `needs_graph`. It is the wrapper's own from now on: fitting it changes the member.
        graph: of the network, as from `trace_graph`; or what its `to_dict` gave.
        stream: the stream it forecasts; the member's if not given.

    Raises:
        ModelError: if the member needs no graph or is of another stream, or `graph` is none.
        WindowError: (on forecasting) if the window is of another network.

    Examples:
        >>> import torch
        >>> from deadreckon.forecast.graph import trace_graph
        >>> from deadreckon.models import NiNo
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> bound = WithGraph(NiNo(stream="gradients"), trace_graph(network, torch.zeros(2, 4)))
        >>> bound.needs_graph, bound.stream
        (False, 'gradients')
    """

    name: ClassVar[str] = "with_graph"

    def __init__(self, member: Member, graph: NeuralGraph | Mapping[str, object], stream: str | None = None) -> None:
        if not isinstance(member, Forecaster) or not member.needs_graph:
            raise ModelError(
                f"`member` must be a forecaster that needs a neural graph, such as 'nino', got {member!r}."
            )
        super().__init__([member], member.stream if stream is None else stream)
        self.graph = _graph(graph)
        self.needs_graph = False

    @property
    @override
    def options(self) -> dict[str, object]:
        # Lists in place of tuples, as JSON gives them back.
        plain = cast(dict[str, object], json.loads(json.dumps(self.graph.to_dict())))
        return {"member": describe(self.members[0]), "graph": plain, "stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        return self.members[0].forecast(replace(window, graph=self.graph), horizons)

    @override
    def _examples_of(self, member: Member, examples: Examples) -> Examples:
        bound = []
        for index, case in enumerate(examples.cases):
            if case.window.layout.digest != self.graph.layout_digest:
                raise FittingError(
                    f"Case {index} is of another network than the graph of {self.name!r}. Fit {member.name!r} itself "
                    "to windows that carry their graphs, and bind it afterwards."
                )
            bound.append(Case(replace(case.window, graph=self.graph), case.targets))
        return Examples.of(bound[examples.training], member, bound[examples.validation])

    @override
    def _fit_own(self, examples: Examples) -> None:
        return None


def bound_graphs(forecaster: Forecaster) -> tuple[NeuralGraph, ...]:
    """The neural graphs that a forecaster, or one that it is made of, is bound to."""
    if isinstance(forecaster, WithGraph):
        return (forecaster.graph,)
    if isinstance(forecaster, InvertedOptimizer):
        return bound_graphs(forecaster.member)
    members = forecaster.members if isinstance(forecaster, Wrapper) else ()
    return tuple(graph for member in members for graph in bound_graphs(member))


def _graph(given: object) -> NeuralGraph:
    if isinstance(given, NeuralGraph):
        return given
    if isinstance(given, Mapping):
        try:
            return NeuralGraph.from_dict(given)
        except GraphError as error:
            raise ModelError(f"`graph` is no stored neural graph: {error}") from error
    raise ModelError(f"`graph` must be a NeuralGraph, as from `trace_graph`, got {type(given).__name__}.")
