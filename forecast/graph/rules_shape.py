"""What reshapes, slices and joins do to axes."""

from typing import Any

from torch import Tensor

from .axes import Dim, Factor, copy_at, cut, extent, factors, join, leaves, lies_within, new_dim, new_leaf, pin, regroup
from .rules_elementwise import attach
from .tracer import Call, Tracer, rule
from .values import Value, opaque_dims


def _moved(trace: Tracer, source: Value, out: Tensor, dims: list[Dim]) -> None:
    """The result holds the source's elements in another order."""
    trace.define(
        out,
        Value(
            dims,
            tensor=source.tensor,
            given=source.given,
            uniform=source.uniform,
            base=source,
            scores=source.scores,
            weighs=source.weighs,
        ),
    )


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "unflatten", "flatten")
def _view(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    if call.out.numel() == 0:
        return _moved(trace, source, call.out, opaque_dims(call.out.shape))
    _moved(trace, source, call.out, regroup(source.dims, call.out.shape))


@rule("clone", "_to_copy", "alias", "detach", "lift_fresh", "lift_fresh_copy", "contiguous", "view_as")
def _same(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    _moved(trace, source, call.out, [*source.dims])


@rule("t", "transpose", "permute", "transpose_copy", "movedim")
def _permute(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    count = len(source.dims)
    if len(call.args) == 1:
        order = [*range(count)][::-1]
    elif len(call.args) == 2:
        order = [dim % count for dim in call.args[1]]
    else:
        order = [*range(count)]
        first, second = (call.args[1] % count, call.args[2] % count) if count else (0, 0)
        if count:
            order[first], order[second] = order[second], order[first]
    _moved(trace, source, call.out, [source.dims[dim] for dim in order])


@rule("unsqueeze")
def _unsqueeze(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dims = [*source.dims]
    dims.insert(call.args[1] % (len(dims) + 1), ())
    _moved(trace, source, call.out, dims)


@rule("squeeze")
def _squeeze(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    count = len(source.dims)
    if len(call.args) == 1:
        chosen = set(range(count))
    else:
        chosen = (
            {dim % count for dim in (call.args[1] if isinstance(call.args[1], list | tuple) else [call.args[1]])}
            if count
            else set()
        )
    _moved(trace, source, call.out, [d for n, d in enumerate(source.dims) if n not in chosen or extent(d) != 1])


@rule("expand", "expand_copy", "broadcast_to")
def _expand(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dims: list[Dim] = [() for _ in range(call.out.dim() - len(source.dims))] + [*source.dims]
    _moved(
        trace,
        source,
        call.out,
        [d if extent(d) == n else new_dim(n) for d, n in zip(dims, call.out.shape, strict=True)],
    )


@rule("repeat")
def _repeat(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dims: list[Dim] = [() for _ in range(call.out.dim() - len(source.dims))] + [*source.dims]
    _moved(trace, source, call.out, [(*new_dim(n), *d) for d, n in zip(dims, call.args[1], strict=True)])


@rule("slice", "narrow")
def _slice(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dim = (call.args[1] if len(call.args) > 1 else 0) % len(source.dims)
    size = extent(source.dims[dim])
    begin = call.args[2] if len(call.args) > 2 and call.args[2] is not None else 0
    begin = max(0, min(size, begin + size if begin < 0 else begin))
    step = call.args[4] if len(call.args) > 4 else call.options.get("step", 1)
    length = call.out.shape[dim]
    if length == size:
        return _moved(trace, source, call.out, [*source.dims])
    if step != 1 or length == 0:
        return _picked(trace, source, call.out, dim)
    _moved(trace, source, call.out, _range(source, dim, begin, begin + length))


def _range(source: Value, dim: int, begin: int, end: int) -> list[Dim]:
    """The dimensions of a slice; a single position of a leaf is looked at apart from the others."""
    if end - begin == 1 and extent(source.dims[dim]) > 1:
        dims = _position(source, dim, begin)
        dims.insert(dim, ())
        return dims
    return [cut(d, begin, end) if n == dim else d for n, d in enumerate(source.dims)]


def _position(source: Value, dim: int, position: int) -> list[Dim]:
    """The other dimensions at one position of a dimension."""
    found = [factor for factor in factors(source.dims[dim]) if factor.size > 1]
    others = [d for n, d in enumerate(source.dims) if n != dim]
    pin(found)
    if len(found) != 1 or found[0].tie is None:
        return others
    outer = found[0]

    def at(factor: Factor) -> Factor:
        return copy_at(factor, outer, position) if factor.tie is not None and lies_within(factor, outer) else factor

    chosen: list[Dim] = []
    for d in others:
        chosen.append(tuple(at(factor) for factor in factors(d)))
    return chosen


def _picked(trace: Tracer, source: Value, out: Tensor, dim: int) -> None:
    """Single positions of a dimension are treated one by one: it is pinned, and so is what was picked."""
    pin(source.dims[dim])
    kept = source.dims[:dim], source.dims[dim + 1 :]
    middle = out.dim() - len(source.dims) + 1
    dims = [*kept[0], *opaque_dims(out.shape[dim : dim + middle]), *kept[1]]
    trace.define(out, Value(dims, given=source.given, uniform=source.uniform))


@rule("select")
def _select(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dim = call.args[1] % len(source.dims)
    position = call.args[2] % max(1, extent(source.dims[dim]))
    _moved(trace, source, call.out, _position(source, dim, position))


@rule("unbind")
def _unbind(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dim = (call.args[1] if len(call.args) > 1 else 0) % len(source.dims)
    for position, part in enumerate(call.outs):
        _moved(trace, source, part, _position(source, dim, position))


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk", "split_copy")
def _split(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dim = (call.args[2] if len(call.args) > 2 else call.options.get("dim", 0)) % len(source.dims)
    offset = 0
    for part in call.outs:
        length = part.shape[dim]
        if length == extent(source.dims[dim]):
            dims = [*source.dims]
        else:
            dims = _range(source, dim, offset, offset + length)
        _moved(trace, source, part, dims)
        offset += length


@rule("cat", "concat", "concatenate")
def _cat(trace: Tracer, call: Call) -> None:
    parts = [trace.value(part) for part in call.args[0] if part.numel() or part.dim() == call.out.dim()]
    dim = (call.args[1] if len(call.args) > 1 else call.options.get("dim", 0)) % max(1, call.out.dim())
    dims = trace.meet(parts, skip=dim)
    for part in parts:
        if part.tensor is not None and trace.wiring.neurons(dims) and not trace.wiring.neurons(part.dims):
            attach(trace, part, [part.dims[dim] if n == dim else d for n, d in enumerate(dims)], additive=True)
    data = all(leaf.leaf.data for part in parts for leaf in leaves(part.dims[dim]))
    if len(parts) == 1:
        dims[dim] = parts[0].dims[dim]
    elif data or not any(trace.wiring.neurons([part.dims[dim]]) or part.tensor for part in parts):
        for part in parts:
            pin(part.dims[dim])
        dims[dim] = new_dim(call.out.shape[dim], pinned=True, data=True)
    else:
        dims[dim] = join([_index(part, dim) for part in parts if extent(part.dims[dim])])
    trace.define(call.out, Value(dims, given=any(part.given for part in parts)))


def _index(part: Value, dim: int) -> Dim:
    """A dimension to lay beside others; a single index has no leaf of its own and gets a pinned one."""
    return part.dims[dim] or (new_leaf(1, pinned=True, data=True),)


@rule("stack")
def _stack(trace: Tracer, call: Call) -> None:
    parts = [trace.value(part) for part in call.args[0]]
    dim = (call.args[1] if len(call.args) > 1 else call.options.get("dim", 0)) % call.out.dim()
    dims = trace.meet(parts)
    dims.insert(dim, new_dim(call.out.shape[dim], pinned=True, data=True))
    trace.define(call.out, Value(dims, given=any(part.given for part in parts)))


@rule("flip", "roll", "rot90", "tril", "triu")
def _reordered(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    name = call.name
    chosen: Any = call.args[2] if name == "roll" and len(call.args) > 2 else call.args[1] if len(call.args) > 1 else []
    chosen = [-2, -1] if name in ("tril", "triu") else chosen if isinstance(chosen, list | tuple) else [chosen]
    numbers: list[int] = [number % len(source.dims) for number in chosen] or [*range(len(source.dims))]
    for dim in numbers:
        pin(source.dims[dim])
    trace.define(call.out, Value([*source.dims], given=source.given, scores=source.scores, weighs=source.weighs))


@rule("index_select", "gather", "index")
def _index_select(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    name = call.name
    if name == "index_select":
        return _lookup(trace, source, trace.value(call.args[2]), call.out, call.args[1] % len(source.dims))
    if name == "index":
        chosen = [number for number, index in enumerate(call.args[1]) if index is not None]
        if (
            len(chosen) == 1
            and call.args[1][chosen[0]].dtype != call.out.dtype
            and str(call.args[1][chosen[0]].dtype) != "torch.bool"
        ):
            return _lookup(trace, source, trace.value(call.args[1][chosen[0]]), call.out, chosen[0])
    trace.opaque(name, [call.args[0]], [call.out])


def _lookup(trace: Tracer, source: Value, index: Value, out: Tensor, dim: int) -> None:
    _picked(trace, source, out, dim)
    for d in index.dims:
        pin(d)
    if source.tensor is not None:
        kept = [d for n, d in enumerate(source.dims) if n != dim]
        kind = "embedding" if index.given else "position"
        trace.wiring.use(source, kind, out=kept, rows=[source.dims[dim]])
    middle = len(index.dims)
    made = trace.value(out)
    made.dims[dim : dim + middle] = [*index.dims] if middle else []
    made.given |= index.given


@rule("embedding")
def _embedding(trace: Tracer, call: Call) -> None:
    weight, index = trace.value(call.args[0]), trace.value(call.args[1])
    pin(weight.dims[0])
    for dim in index.dims:
        pin(dim)
    kind = "embedding" if index.given else "position"
    trace.wiring.use(weight, kind, out=[weight.dims[1]], rows=[weight.dims[0]])
    trace.define(call.out, Value([*index.dims, weight.dims[1]], given=index.given))


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def _pad(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    amounts: list[int] = [*call.args[1]]
    dims = [*source.dims]
    for number in range(len(amounts) // 2):
        if amounts[2 * number] or amounts[2 * number + 1]:
            dim = len(dims) - 1 - number
            pin(dims[dim])
            dims[dim] = new_dim(call.out.shape[dim], pinned=True, data=True)
    trace.define(call.out, Value(dims, given=source.given))


@rule("view_as_complex", "view_as_real", "real", "imag")
def _complex(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    if call.out.dim() == len(source.dims) - 1:
        pin(source.dims[-1])
        return _moved(trace, source, call.out, [*source.dims[:-1]])
    _moved(trace, source, call.out, [*source.dims, *opaque_dims(call.out.shape[len(source.dims) :])])


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def _shuffle(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    factor = int(call.args[1])
    sizes = source.shape
    *batch, channels, height, width = range(len(sizes))
    if call.name == "pixel_shuffle":
        shape = [sizes[channels] // factor**2, factor, factor, sizes[height], sizes[width]]
        order = (0, 3, 1, 4, 2)
    elif call.name == "pixel_unshuffle":
        shape = [sizes[channels], sizes[height] // factor, factor, sizes[width] // factor, factor]
        order = (0, 2, 4, 1, 3)
    else:
        channels, shape = 1, [factor, sizes[1] // factor, *sizes[2:]]
        batch, order = [0], (1, 0, *range(2, len(shape)))
    split = regroup(source.dims[channels:], shape)
    flat = [*(source.dims[n] for n in batch), *(split[n] for n in order)]
    _moved(trace, source, call.out, regroup(flat, call.out.shape))
