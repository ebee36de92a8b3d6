"""The neural graph of a recorded run's network: read from the run's folder, or traced anew."""

import json
from functools import cache
from pathlib import Path

from ..forecast import GraphError, Layout
from ..forecast.graph import NeuralGraph, trace_graph
from .classifier import Classifier
from .errors import DataError, OptionError
from .runs import RecordedRun
from .tasks import load_task, make_network

GRAPH_FILE = "graph.json"  # as `deadreckon graph` writes it
MAX_GRAPH_BYTES = 2**28
TRACED_SAMPLES = 2  # what a trace needs; their values do not matter
_ADVICE = (
    f"Leave the run out, take forecasters that need no neural graph, or put the {GRAPH_FILE} of its network into its "
    "folder, with the names of parameters that the recorder saw."
)


def graph_of_run(run: RecordedRun, layout: Layout, data: str | None = None) -> NeuralGraph:
    """The neural graph of the network that a run trained.

    Where the run's folder holds `graph.json`, that is it. Else the network is made anew from task, name and width, as
    the recorder saw it, and traced; once for each network.

    Args:
        run: which run.
        layout: of its trajectory.
        data: a folder with the task's files; without it they are looked for as in `load_task`.

    Raises:
        OptionError: if there is no such network any more, it cannot be traced, or is not the one that was recorded; it
            names the run and says what to do.
    """
    place = run.folder / GRAPH_FILE
    if place.is_file():
        graph = read_graph(place)
    else:
        try:
            graph = task_graph(run.task, run.network, run.width, data)
        except (OptionError, DataError, GraphError) as error:
            raise OptionError(f"The network of {run.folder} cannot be traced: {error} {_ADVICE}") from error
    if graph.layout_digest != layout.digest:
        made = str(place) if place.is_file() else f"{run.network!r} of width {run.width:g} for the task {run.task}"
        raise OptionError(f"The network recorded in {run.folder} is another than that of {made}. {_ADVICE}")
    return graph


@cache
def task_graph(task: str, network: str, width: float, data: str | None = None) -> NeuralGraph:
    """The neural graph of a task's network, with the names that a recorder gives its parameters.

    Args:
        task: as in `load_task`.
        network: as in `make_network`.
        width: what its hidden widths are multiplied by.
        data: a folder with the task's files.

    Raises:
        OptionError: if there is no such task or network.
        DataError: if the task's files cannot be had.
        GraphError: if the network cannot be traced.
    """
    made = load_task(task, data)
    module = Classifier(make_network(network, made, 0, width))
    return trace_graph(module, made.train.inputs[:TRACED_SAMPLES])


def read_graph(path: Path) -> NeuralGraph:
    """A neural graph from a file that `deadreckon graph` wrote, treating it as untrusted.

    Raises:
        OptionError: if it is too large, no JSON, or no neural graph.
    """
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise OptionError(f"{path} has more than {MAX_GRAPH_BYTES} bytes, which no neural graph has. Remove it.")
    try:
        return NeuralGraph.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError, GraphError) as error:
        raise OptionError(
            f"{path} is no stored neural graph: {error} Write it anew with `deadreckon graph`."
        ) from error
