"""What sums, products, normalisations and reductions do to axes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .axes import Dim, cut, extent, forbid_fan, leaves, pin, regroup, unify
from .neural_graph import EdgeKind
from .tracer import Call, Tracer, free_dims, rule
from .values import Value, opaque_dims, tensors_in
from .wiring import root_of

ADDITIVE = ("add", "sub", "rsub", "addcmul", "addcdiv", "lerp", "where", "copy")


def pointwise(trace: Tracer, call: Call) -> None:
    """All elements are treated alike; a parameter that meets neurons here is a bias, a gain or a table of positions."""
    parts = [trace.value(tensor) for tensor in tensors_in([call.args, call.options])]
    for out in call.outs:
        trace.define(out, met(trace, parts, call.name in ADDITIVE))


def met(trace: Tracer, parts: Sequence[Value], additive: bool) -> Value:
    """The result of values that meet element by element."""
    dims = trace.meet(parts)
    named = [part for part in parts if part.tensor is not None and not trace.wiring.neurons(part.dims)]
    others = [part for part in parts if part not in named]
    scores = next((part for part in parts if part.scores is not None), None)
    result = Value(
        dims,
        given=any(part.given for part in parts),
        uniform=all(part.uniform for part in parts),
        scores=scores.scores if scores else None,
        weighs=scores.weighs if scores else False,
    )
    if any(part.given or trace.wiring.neurons(part.dims) for part in others):
        for part in named:
            attach(trace, part, dims, additive)
    elif len(named) == 1:
        result.tensor = named[0].tensor
    return result


def attach(trace: Tracer, part: Value, dims: Sequence[Dim], additive: bool) -> None:
    """Note the edges of a parameter that meets a value element by element."""
    aligned = dims[len(dims) - len(part.dims) :]
    own = {id(factor) for dim in trace.named[part.tensor or ""].dims for factor in dim}
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(part.dims, aligned, strict=True)
        if extent(mine) > 1 and all(id(root_of(leaf)) in own for leaf in leaves(mine))  # else it was expanded
    ]
    with_neurons = [(mine, theirs) for mine, theirs in pairs if trace.wiring.neurons([theirs])]
    links = with_neurons if trace.wiring.neurons(dims) else pairs
    rows = [mine for mine, theirs in pairs if (mine, theirs) not in links]
    kind: EdgeKind = "position" if rows and additive else "bias" if additive else "norm"
    trace.wiring.use(part, kind, links=links, rows=rows)


# what is pointwise but not marked as such by torch
@rule(*"hardswish hardsigmoid hardtanh leaky_relu elu celu selu silu mish softplus gelu relu6 log_sigmoid".split())
@rule(*"log_sigmoid_forward threshold softshrink hardshrink prelu _prelu_kernel rrelu_with_noise dropout copy".split())
@rule(*"masked_fill where clamp addcmul addcdiv lerp nan_to_num".split())
def _plain(trace: Tracer, call: Call) -> None:
    pointwise(trace, call)


@rule("glu")
def _glu(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dim = call.get(1, "dim", -1) % len(source.dims)
    half = extent(source.dims[dim]) // 2
    ends = ((0, half), (half, 2 * half))
    parts = [
        Value([cut(d, *span) if n == dim else d for n, d in enumerate(source.dims)], given=source.given)
        for span in ends
    ]
    trace.define(call.out, met(trace, parts, additive=False))


@rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    count = len(call.args[1])
    weights = [*call.args[2:4]] if call.name == "native_layer_norm" else [call.args[2]]
    dims = source.dims[len(source.dims) - count :]
    forbid_fan(source.dims[: len(source.dims) - count], [leaf for dim in dims for leaf in leaves(dim)])
    for number, tensor in enumerate(weights):
        if tensor is not None:
            _scale_or_shift(trace, trace.value(tensor), dims, shift=number == 1)
    _define_normalised(trace, call, source, [*source.dims])


def _scale_or_shift(trace: Tracer, weight: Value, dims: Sequence[Dim], shift: bool) -> None:
    for mine, theirs in zip(weight.dims, dims, strict=True):
        unify(mine, theirs)
    pairs = [(mine, theirs) for mine, theirs in zip(weight.dims, dims, strict=True) if extent(mine) > 1]
    trace.wiring.use(weight, "bias" if shift else "norm", links=pairs)


def _define_normalised(trace: Tracer, call: Call, source: Value, dims: list[Dim]) -> None:
    trace.define(call.out, Value(dims, given=source.given))
    for statistic in call.outs[1:]:
        trace.define(statistic, Value(opaque_dims(statistic.shape), given=source.given))


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm")
def _batch_norm(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    for tensor in call.args[3:5]:
        if isinstance(tensor, Tensor):
            unify(trace.value(tensor).dims[0], source.dims[1])
    for number, tensor in enumerate(call.args[1:3]):
        if tensor is not None:
            _scale_or_shift(trace, trace.value(tensor), [source.dims[1]], shift=number == 1)
    _define_normalised(trace, call, source, [*source.dims])


@rule("native_group_norm")
def _group_norm(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    groups = call.args[6]
    split = regroup([source.dims[1]], [groups, extent(source.dims[1]) // groups])
    channel = (*split[0], *split[1])
    for number, tensor in enumerate(call.args[1:3]):
        if tensor is not None:
            _scale_or_shift(trace, trace.value(tensor), [channel], shift=number == 1)
    _define_normalised(trace, call, source, [source.dims[0], channel, *source.dims[2:]])


@rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax")
def _softmax(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    dim = call.args[1] % max(1, len(source.dims))
    forbid_fan([d for n, d in enumerate(source.dims) if n != dim], leaves(source.dims[dim] if source.dims else ()))
    scores = source.scores
    if scores is not None and dim == len(source.dims) - 2:
        scores = (scores[1], scores[0])
    weighs = scores is not None and dim >= len(source.dims) - 2
    trace.define(call.out, Value([*source.dims], given=source.given, scores=scores, weighs=weighs))


REDUCTIONS = (
    "sum mean amax amin max min var std var_mean std_mean norm linalg_vector_norm logsumexp prod all any nansum aminmax"
).split()
BY_INDEX = ("argmax", "argmin", "cumsum", "cumprod", "logcumsumexp", "sort", "topk", "argsort", "median", "kthvalue")


@rule(*REDUCTIONS)
def _reduce(trace: Tracer, call: Call) -> None:
    """Reductions treat the positions of what they reduce alike."""
    if len([arg for arg in call.args if isinstance(arg, Tensor)]) > 1:
        return pointwise(trace, call)
    source = trace.value(call.args[0])
    position = 2 if call.name in ("norm", "linalg_vector_norm") else 1
    chosen: Any = call.get(position, "dim", None)
    if call.name in ("max", "min") and len(call.outs) > 1:
        return _by_index(trace, call)
    if call.name in ("var", "std", "var_mean", "std_mean") and isinstance(chosen, bool):
        chosen = None
    numbers = _numbers(chosen, len(source.dims))
    dims: list[Dim]
    if call.out.dim() == len(source.dims):
        dims = [() if n in numbers else d for n, d in enumerate(source.dims)]
    else:
        dims = [d for n, d in enumerate(source.dims) if n not in numbers]
    for out in call.outs:
        trace.define(out, Value([*dims], given=source.given))


@rule(*BY_INDEX)
def _by_index(trace: Tracer, call: Call) -> None:
    """Tells positions apart: what it works along is pinned."""
    source = trace.value(call.args[0])
    position = 2 if call.name in ("topk", "kthvalue") else 1
    chosen: Any = call.get(position, "dim", -1 if call.name in ("sort", "topk", "argsort") else None)
    for dim in _numbers(chosen, len(source.dims)):
        pin(source.dims[dim])
    for out in call.outs:
        if out.dim() == len(source.dims):
            dims = [d if extent(d) == n else opaque_dims([n])[0] for d, n in zip(source.dims, out.shape, strict=True)]
        else:
            numbers = _numbers(chosen, len(source.dims))
            dims = [d for n, d in enumerate(source.dims) if n not in numbers]
        trace.define(out, Value(dims, given=source.given))


def _numbers(chosen: Any, count: int) -> set[int]:
    if chosen is None or (isinstance(chosen, list | tuple) and not chosen):
        return set(range(count))
    values: list[int] = [*chosen] if isinstance(chosen, list | tuple) else [chosen]
    return {value % count for value in values} if count else set()


@rule(
    *(
        f"{name}{count}d{suffix}"
        for name in ("max_pool", "avg_pool", "_adaptive_avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
        for count in (1, 2, 3)
        for suffix in ("", "_with_indices")
    ),
    *(f"upsample_{name}" for name in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d", "bicubic2d", "linear1d")),
)
def _pool(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    count = next(number for number in (3, 2, 1) if f"{number}d" in call.name)
    for dim in source.dims[-count:]:
        pin(dim)
    for out in call.outs:
        dims = [*source.dims[:-count], *opaque_dims(out.shape[-count:])]
        trace.define(out, Value(dims, given=source.given))


@rule("native_dropout", "bernoulli", "rand_like", "randn_like")
def _random(trace: Tracer, call: Call) -> None:
    source = trace.value(call.args[0])
    trace.wiring.note(f"Random numbers were drawn by `{call.name}`: a check can only fail by chance or by them.")
    for out in call.outs:
        trace.define(out, Value(opaque_dims(out.shape), given=source.given))


@rule(
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "zero",
    "fill",
)
def _filled(trace: Tracer, call: Call) -> None:
    trace.define(call.out, Value(free_dims(call.out.shape), uniform=True))
