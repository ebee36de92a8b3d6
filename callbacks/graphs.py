"""The neural graph of the network in training: given, or traced once from the first batch."""

from collections.abc import Iterable
from typing import Any, final

import lightning.pytorch as pl

from ..forecast import Forecaster, GraphError, Ledger, layout_of
from ..forecast.graph import NeuralGraph, trace_graph
from ..models.with_graph import bound_graphs
from .errors import UnsupportedTrainerError


@final
class NetworkGraph:
    """What a callback knows of the network's neural graph.

    Not part of checkpoints: a resumed run traces the same graph again.

    Args:
        given: by the user; None to trace it.

    Attributes:
        graph: the graph, or None where no forecaster needs one or no batch was seen yet.
    """

    def __init__(self, given: NeuralGraph | None) -> None:
        self.graph: NeuralGraph | None = None
        self._given = given
        self._wanted = False

    def begin(self, module: pl.LightningModule, forecasters: Iterable[Forecaster], who: str) -> None:
        """Start a run: forget what was traced, and check what was given.

        Raises:
            UnsupportedTrainerError: if the given graph, or one that a forecaster is bound to, is of another network.
        """
        forecasters = list(forecasters)
        self._wanted = any(item.needs_graph for item in forecasters)
        self.graph = self._given
        known = [graph for item in forecasters for graph in bound_graphs(item)]
        known += [self._given] if self._given is not None else []
        if known and any(graph.layout_digest != layout_of(module).digest for graph in known):
            raise UnsupportedTrainerError(
                f"{who} was given the neural graph of another network. Trace the LightningModule itself, whose names "
                "of parameters count: `trace_graph(module, inputs)`."
            )

    def see(self, module: pl.LightningModule, batch: Any, ledger: Ledger, who: str) -> None:
        """Trace the network where a graph is needed and there is none yet; charged as `tracing`.

        The module is called with the batch's first part, where the batch is a tuple or list as usual of inputs and
        labels, else with the batch; a dictionary gives named arguments.

        Raises:
            UnsupportedTrainerError: if that cannot be traced.
        """
        if not self._wanted or self.graph is not None:
            return
        inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
        with ledger.charge("tracing"):
            try:
                self.graph = trace_graph(module, inputs)
            except GraphError as error:
                raise UnsupportedTrainerError(
                    f"{who} has a forecaster that needs the network's neural graph, and the first batch did not give "
                    f"it: {error} Let the module's `forward` take the batch's first part, or pass "
                    f"`{who}(graph=trace_graph(module, inputs))`."
                ) from error
