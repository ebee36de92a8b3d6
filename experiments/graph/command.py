"""`deadreckon graph`: the neural graph of a network, proved and drawn."""

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from ...forecast.graph import GraphCheck, NeuralGraph, check_graph, trace_graph
from ..errors import OptionError
from ..files import write_whole
from ..tasks import load_task, make_network
from .figure import draw_graph
from .options import GraphOptions

EXAMPLES = 4  # samples that are traced and checked with


def run(options: GraphOptions) -> int:
    """Write `graph.svg` and `graph.json` into the folder, and say what was found; 1 if the proof failed."""
    module, inputs = named_module(options) if ":" in options.module else task_network(options)
    graph = trace_graph(module, inputs)
    check = check_graph(module, graph, inputs, options.seed)
    out = Path(options.out)
    title = f"{options.module} ({type(module).__name__})"
    write_whole(out / "graph.svg", draw_graph(graph, title, fold=options.fold))
    write_whole(out / "graph.json", json.dumps(graph.to_dict()))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in summary(graph, check):
        console.print(line)
    console.print(f"Written to {out / 'graph.svg'} and {out / 'graph.json'}.")
    return 0 if check.passed else 1


def task_network(options: GraphOptions) -> tuple[nn.Module, Any]:
    """A network by name, and a few samples of its task."""
    task = load_task(options.task, options.data)
    return make_network(options.module, task, options.seed, options.width), task.verify.inputs[:EXAMPLES]


def named_module(options: GraphOptions) -> tuple[nn.Module, Any]:
    """What a function of the user's returns.

    Raises:
        OptionError: if it cannot be found or returns something else.
    """
    place, _, name = options.module.partition(":")
    try:
        function = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"`module` is {options.module!r}, which cannot be found: {error}.") from error
    made = function()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise OptionError(f"{options.module} must return a module and its inputs, got {type(made).__name__}.")
    return made


def summary(graph: NeuralGraph, check: GraphCheck) -> list[str]:
    """What a person wants to know of a graph, line by line."""
    counts = Counter[str]()
    for block in graph.blocks:
        counts[block.kind] += block.num_edges
    free = [axis for axis in graph.axes if not axis.pinned and axis.size > 1]
    inner = sum(axis.within is not None for axis in free)
    lines = [
        f"{graph.num_nodes:,} nodes in {len(graph.nodes)} groups, "
        f"{graph.num_edges:,} edges in {len(graph.blocks)} blocks:",
        "  " + ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()),
        f"{len(free)} axes may be permuted, {inner} of them differently at each position of another one.",
        f"Proof: {'passed' if check.passed else 'FAILED'}. {check.changed:.0%} of the scalars moved, outputs by "
        f"{check.deviation:.1e} of the largest (allowed {check.tolerance:.0e}); "
        f"every edge {'kept' if check.ends_kept else 'did NOT keep'} its ends.",
    ]
    return lines + [f"Note: {note}" for note in graph.notes]
