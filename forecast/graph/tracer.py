"""Runs a network once and follows the axes of every tensor through every operation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from .axes import Dim, extent, new_dim, pin, regroup, unify
from .values import Value, constant_value, opaque_dims, tensors_in
from .wiring import Wiring


@dataclass(frozen=True)
class Call:
    """One operation that was run.

    Attributes:
        name: of the operation, without namespace and overload.
        args: positional arguments.
        options: arguments by name.
        outs: the tensors it returned.
    """

    name: str
    args: Sequence[Any]
    options: dict[str, Any]
    outs: list[Tensor]

    @property
    def out(self) -> Tensor:
        """The only, or first, tensor it returned."""
        return self.outs[0]

    def get(self, position: int, name: str, default: Any) -> Any:
        """An argument that may have been given by position or by name."""
        return self.args[position] if len(self.args) > position else self.options.get(name, default)


Rule = Callable[["Tracer", Call], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register what some operations do to axes."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


class Tracer(TorchDispatchMode):
    """Notes the axes of every tensor while a network runs.

    Args:
        pointwise: the rule of operations that treat all elements alike.
    """

    def __init__(self, pointwise: Rule) -> None:
        super().__init__()
        self.wiring = Wiring()
        self.unknown: dict[str, None] = {}
        self.named: dict[str, Value] = {}
        self.values: list[Value] = []
        self.seen: set[Value] = set()
        self._by_tensor: dict[int, Value] = {}
        self._alive: list[Tensor] = []
        self._pointwise = pointwise

    def define(self, tensor: Tensor, value: Value) -> Value:
        """Say what a tensor is.

        Raises:
            RuntimeError: if the extents differ, which is a defect of a rule.
        """
        if value.shape != tuple(tensor.shape):
            raise RuntimeError(f"A rule made {value.shape} of a tensor of {tuple(tensor.shape)}.")
        self._by_tensor[id(tensor)] = value
        self._alive.append(tensor)  # so that no other tensor gets its number
        self.values.append(value)
        return value

    def value(self, tensor: Tensor) -> Value:
        """What is known of a tensor; one never seen before is a constant."""
        if id(tensor) not in self._by_tensor:
            with torch._C._DisableTorchDispatch():
                self.define(tensor, constant_value(tensor.detach()))
        return self._by_tensor[id(tensor)]

    def meet(self, parts: Sequence[Value], skip: int | None = None) -> list[Dim]:
        """Tie the dimensions of values that meet element by element, and settle which neurons the result has.

        Args:
            parts: values; shorter shapes are aligned at their end, extents of 1 meet any.
            skip: a dimension that does not meet.

        Returns:
            The dimensions of the result.
        """
        count = max((len(part.dims) for part in parts), default=0)
        aligned = [[()] * (count - len(part.dims)) + [d if extent(d) > 1 else () for d in part.dims] for part in parts]
        dims: list[Dim] = [()] * count
        for number in range(count):
            if number == skip:
                continue
            present = [row[number] for row in aligned if row[number]]
            dims[number] = present[0] if present else ()
            for other in present[1:]:
                unify(present[0], other)
        makers = [
            (part, row) for part, row in zip(parts, aligned, strict=True) if self.wiring.neurons(_without(row, skip))
        ]
        if makers:
            numbers = [n for n in range(count) if n != skip and any(self.wiring.neurons([row[n]]) for _, row in makers)]
            chosen = [self._first(n, makers) for n in numbers]
            for _, row in makers[1:]:
                mine = [n for n in numbers if self.wiring.neurons([row[n]])]
                if [self.wiring.neurons([dim]) != [] for dim in chosen] == [n in mine for n in numbers]:
                    flat = self.wiring.add(_flat(chosen), _flat([row[n] for n in numbers]))
                    chosen = self._spread(flat, chosen, [row[n] for n in numbers])
            for number, dim in zip(numbers, chosen, strict=True):
                dims[number] = dim
        return dims

    def _first(self, number: int, makers: list[tuple[Value, list[Dim]]]) -> Dim:
        rows = [row[number] for _, row in makers if self.wiring.neurons([row[number]])]
        return makers[0][1][number] if self.wiring.neurons([makers[0][1][number]]) else rows[0]

    def _spread(self, flat: Dim, first: list[Dim], second: list[Dim]) -> list[Dim]:
        if flat == _flat(first):
            return first
        if flat == _flat(second):
            return second
        return regroup([flat], [extent(dim) for dim in first])

    def opaque(self, name: str, inputs: Sequence[Any], outs: Sequence[Tensor]) -> None:
        """An operation that is not understood: all it touches is pinned, and its name is noted."""
        self.unknown[name] = None
        for tensor in tensors_in(list(inputs)):
            for dim in self.value(tensor).dims:
                pin(dim)
        for out in outs:
            self.define(out, Value(opaque_dims(out.shape), given=True))

    @classmethod
    @override
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes many seconds

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        name = func._schema.name.partition("::")[2]
        inputs = tensors_in([args, options])
        for tensor in inputs:
            self.seen.add(self.value(tensor))
        result = func(*args, **options)
        outs = tensors_in(result)
        if not outs:
            for tensor in inputs if name != "_assert_async" else ():
                self._require_alike(tensor)
            return result
        before = {id(out): self._by_tensor[id(out)] for out in outs if id(out) in self._by_tensor}
        plain = name.removesuffix("_") if func._schema.is_mutable and not name.startswith("_") else name
        call = Call(plain, args, options, outs)
        if plain in RULES:
            RULES[plain](self, call)
        elif torch.Tag.pointwise in func.tags:
            self._pointwise(self, call)
        elif not inputs:
            for out in outs:
                self.define(out, constant_value(out))
        else:
            self.opaque(plain, inputs, outs)
        for out in outs:
            if id(out) in before:
                _write_through(before[id(out)], self._by_tensor[id(out)])
        return result

    def _require_alike(self, tensor: Tensor) -> None:
        """A number was read out of a tensor: whatever it had is treated index by index."""
        for dim in self.value(tensor).dims:
            pin(dim)


def _without(row: list[Dim], skip: int | None) -> list[Dim]:
    return [dim for number, dim in enumerate(row) if number != skip]


def _flat(dims: Sequence[Dim]) -> Dim:
    return tuple(factor for dim in dims for factor in dim)


def _write_through(old: Value, new: Value) -> None:
    """What was written into a view is in its base."""
    base = old.base
    while base is not None:
        for before, after in zip(old.dims, new.dims, strict=False):
            for number, dim in enumerate(base.dims):
                if dim and [*map(id, dim)] == [*map(id, before)]:
                    base.dims[number] = after
        base.uniform &= new.uniform
        base.given |= new.given
        base = base.base


def free_dims(shape: Sequence[int]) -> list[Dim]:
    """Dimensions that nothing ties yet."""
    return [new_dim(size) for size in shape]
