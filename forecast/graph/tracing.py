"""The neural graph of any module, by running it once."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import GraphError
from ..packing import layout_of, plain_name
from . import rules_products as _products
from . import rules_shape as _shape
from .assembly import Assembly
from .axes import Dim, pin, unify
from .neural_graph import NeuralGraph
from .rules_elementwise import pointwise
from .structure import Structure
from .tracer import Tracer
from .values import Value, input_value, named_value, tensors_in

PINNED = "pinned"
_RULES = (_products, _shape)  # importing them registers their rules


def as_arguments(example_inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of one call of a module."""
    if isinstance(example_inputs, dict):
        return (), {str(name): value for name, value in example_inputs.items()}
    if isinstance(example_inputs, tuple):
        return example_inputs, {}
    return (example_inputs,), {}


def evaluate(module: nn.Module, example_inputs: object) -> Any:
    """Run a module once in evaluation mode, without gradients, leaving modes and random state as found."""
    args, options = as_arguments(example_inputs)
    modes = {part: part.training for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    devices = [value.device for value in module.parameters() if value.device.type == "cuda"]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=sorted({device.index or 0 for device in devices})))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        mkldnn = torch._C._get_mkldnn_enabled()
        stack.callback(torch._C._set_mkldnn_enabled, mkldnn)
        torch._C._set_mkldnn_enabled(False)  # its fused recurrent layer hides the gates
        try:
            module.eval()
            return module(*args, **options)
        finally:
            for part, mode in modes.items():
                part.training = mode


def trace_graph(
    module: nn.Module, example_inputs: object, declared: Mapping[str, Sequence[str | None]] | None = None
) -> NeuralGraph:
    """The neural graph of a module, found by following axes through every operation of one run.

    Each dimension of each tensor is a product of axes. Operations tie axes that must be permuted together, split them
    where a tensor is reshaped, cut them where it is sliced, and pin them where positions are treated one by one.
    Nothing is told from names. An operation that is not known pins all it touches and is named in the graph's notes,
    so that a graph may allow too little but is meant never to allow too much: `check_graph` proves that.

    Inputs, outputs and positions of data are pinned. The module runs in evaluation mode, on one path: branches that
    depend on values are not seen. In a fused matrix the parts are found where the module slices it.

    Args:
        module: any module.
        example_inputs: what to call it with: a tensor, a tuple of positional or a dictionary of named arguments. The
            batch should hold at least two items; extents may be equal by chance, nothing is told from them.
        declared: for a tensor's name, what its dimensions are where the trace cannot tell: None to leave one alone,
            "pinned", or any other word, the same for dimensions that are to be permuted alike.

    Returns:
        The graph; `notes` tell what was not understood.

    Raises:
        GraphError: if the module cannot be run, or `declared` names tensors or dimensions that do not exist.

    Examples:
        >>> graph = trace_graph(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4))
        >>> [group.size for group in graph.nodes]
        [4, 8, 1, 2, 1]

    References:
        M. Kofinas, B. Knyazev, Y. Zhang, Y. Chen, G. J. Burghouts, E. Gavves, C. G. M. Snoek and D. W. Zhang, 2024,
        Graph Neural Networks for Learning Equivariant Representations of Neural Networks, arXiv:2403.12143.
        B. Knyazev, A. Moudgil, G. Lajoie, E. Belilovsky and S. Lacoste-Julien, 2025, Accelerating Training with Neuron
        Interaction and Nowcasting Networks, arXiv:2409.04434, section 4.
    """
    layout = layout_of(module)
    tracer = Tracer(pointwise)
    _define_named(tracer, module)
    named = tracer.named
    for tensor in tensors_in(as_arguments(example_inputs)):
        tracer.define(tensor, input_value(tensor))
    try:
        with tracer:
            result = evaluate(module, example_inputs)
    except GraphError:
        raise
    except Exception as error:
        raise GraphError(
            f"The module could not be traced with these inputs: {type(error).__name__}: {error}"
        ) from error
    for tensor in tensors_in(_plain(result)):
        for dim in tracer.value(tensor).dims:
            pin(dim)
    for value in named.values():
        if value not in tracer.seen:  # what takes no part in the run cannot be proved either
            for dim in value.dims:
                pin(dim)
    _apply_declared(named, declared or {})
    notes = [*tracer.wiring.notes]
    if tracer.unknown:
        notes.append(f"Operations without a rule pinned what they touched: {', '.join(sorted(tracer.unknown))}.")
    structure = Structure(tracer.values, named)
    return Assembly(structure, tracer.wiring, layout, notes).graph()


def _define_named(tracer: Tracer, module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, nn.UninitializedParameter):
            raise GraphError(f"{name!r} is not initialised. Run the module once first.")
        tracer.named[plain_name(name)] = tracer.define(tensor, named_value(plain_name(name), tensor))


def _plain(result: Any) -> Any:
    """A module's result as nested plain containers."""
    if isinstance(result, Tensor | tuple | list | dict):
        return result
    return dict(getattr(result, "__dict__", {}))


def _apply_declared(named: Mapping[str, Value], declared: Mapping[str, Sequence[str | None]]) -> None:
    words: dict[str, Dim] = {}
    for name, marks in declared.items():
        if name not in named:
            raise GraphError(f"`declared` names {name!r}, which is no parameter or buffer of the module.")
        dims = named[name].dims
        if len(marks) != len(dims):
            raise GraphError(f"`declared` must say something of {len(dims)} dimensions of {name!r}, got {len(marks)}.")
        for mark, dim in zip(marks, dims, strict=True):
            if mark == PINNED:
                pin(dim)
            elif mark is not None and mark in words:
                if [factor.size for factor in words[mark]] != [factor.size for factor in dim]:
                    raise GraphError(f"`declared` calls dimensions of different extent {mark!r}.")
                unify(words[mark], dim)
            elif mark is not None:
                words[mark] = dim
