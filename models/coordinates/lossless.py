"""Checkpoints compressed without loss: exponents entropy-coded, all other bits as they are."""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import constriction
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import ModelFileError

_stream = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]  # a submodule without a stub

MAGIC = b"DRLF\x01"
TOTAL = 2**20  # of a table's integer probabilities
MAX_HEADER = 2**26
Bytes = npt.NDArray[np.uint8]


class _Form(NamedTuple):
    """How numbers of a type are taken apart.

    Attributes:
        dtype: of the same bits as whole numbers.
        shift: the symbol is 8 bits from here up; what is left, in whole bytes, is kept as it is.
    """

    dtype: str
    shift: int


FORMS = {"float32": _Form("<u4", 23), "bfloat16": _Form("<u2", 7), "float16": _Form("<u2", 8)}


def compress_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as few bytes, without loss; `decompress_tensors` is the way back, to the last bit, NaNs included.

    The exponents of large language models take about 2.6 of their 8 bits (Zhang et al. 2025, "70% Size, 100% Accuracy:
    Lossless LLM Compression for Efficient GPU Inference via Dynamic-Length Float", arXiv 2504.11651: bfloat16 in about
    11 bits). They write Huffman codes that a GPU reads during inference; here it is asymmetric numeral systems with a
    table of counts for each tensor, for files only. Sign and mantissa are kept as they are: they are as good as random.
    float32, bfloat16, and of float16 the upper byte; all other types are kept.

    Raises:
        ModelFileError: if a tensor is sparse or quantised.
    """
    entries: list[dict[str, Any]] = []
    payload: list[bytes] = []
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized:
            raise ModelFileError(f"{name!r} must be a plain dense tensor.")
        dtype = str(value.dtype).removeprefix("torch.")
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        entry: dict[str, Any] = {"name": name, "dtype": dtype, "shape": list(value.shape)}
        form = FORMS.get(dtype)
        coded = _encode(raw, form) if form is not None and raw.size else None
        if coded is None:
            payload.append(raw.tobytes())
        else:
            entry |= coded[0]
            payload.append(coded[1])
        entries.append(entry)
    header = zlib.compress(json.dumps(entries, separators=(",", ":")).encode(), 9)
    return MAGIC + len(header).to_bytes(4, "little") + header + b"".join(payload)


def _encode(raw: Bytes, form: _Form) -> tuple[dict[str, Any], bytes] | None:
    """Table and bytes; None where that is not less than the numbers themselves."""
    bits = raw.view(form.dtype).astype(np.uint32)
    symbols = (bits >> form.shift & 255).astype(np.int32)
    first, last = int(symbols.min()), int(symbols.max())
    counts = np.bincount(symbols - first, minlength=last - first + 1)
    stack = _stream.stack.AnsCoder()
    if last > first:
        stack.encode_reverse(symbols - first, _model(counts))
    words = stack.get_compressed().astype("<u4")
    entry = {"first": first, "counts": counts.tolist(), "words": len(words)}
    low, high = bits & ((1 << form.shift) - 1), bits >> (form.shift + 8)
    rest = (low | high << form.shift).astype("<u4")
    data = words.tobytes() + rest.view(np.uint8).reshape(-1, 4)[:, : _rest_bytes(form)].tobytes()
    return (entry, data) if len(data) + len(json.dumps(entry)) < raw.size else None


def decompress_tensors(data: bytes) -> dict[str, Tensor]:
    """What `compress_tensors` was given, treating the bytes as untrusted.

    Raises:
        ModelFileError: if they are damaged or of another format.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ModelFileError("These are not compressed tensors of this format version.")
    start = len(MAGIC) + 4
    stop = start + int.from_bytes(data[len(MAGIC) : start], "little")
    try:
        inflate = zlib.decompressobj()
        entries = json.loads(inflate.decompress(data[start:stop], MAX_HEADER))
        tensors: dict[str, Tensor] = {}
        for entry in entries:
            values, stop = _decode(entry, data, stop)
            tensors[entry["name"]] = values
    except (zlib.error, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"The compressed tensors are damaged: {error}.") from error
    if stop != len(data):
        raise ModelFileError("The compressed tensors are damaged: bytes are left over.")
    return tensors


def _decode(entry: Mapping[str, Any], data: bytes, start: int) -> tuple[Tensor, int]:
    """One tensor, and where the next one begins."""
    shape = tuple(entry["shape"])
    if not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"shape {shape}")
    numel = math.prod(shape)
    dtype = getattr(torch, str(entry["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"type {entry['dtype']!r}")
    if numel == 0:
        return torch.empty(shape, dtype=dtype), start
    if "counts" not in entry:
        raw, stop = _take(data, start, numel * dtype.itemsize)
    else:
        form = FORMS[entry["dtype"]]
        words, middle = _take(data, start, 4 * _whole(entry["words"]))
        rest, stop = _take(data, middle, numel * _rest_bytes(form))
        symbols = _symbols(words.view("<u4"), entry, numel)
        wide = np.zeros((numel, 4), np.uint8)
        wide[:, : _rest_bytes(form)] = rest.reshape(numel, -1)
        kept = wide.view("<u4").reshape(-1)
        low, high = kept & ((1 << form.shift) - 1), kept >> form.shift
        raw = (low | symbols << form.shift | high << (form.shift + 8)).astype(form.dtype).view(np.uint8)
    return torch.from_numpy(raw.copy()).view(dtype).reshape(shape), stop


def _symbols(words: npt.NDArray[np.uint32], entry: Mapping[str, Any], numel: int) -> npt.NDArray[np.uint32]:
    counts = np.array([_whole(count) for count in entry["counts"]], np.int64)
    first = _whole(entry["first"])
    if not 1 <= len(counts) <= 256 - first or int(counts.sum()) != numel:
        raise ValueError("a table of counts does not fit its tensor")
    if len(counts) == 1:
        return np.full(numel, first, np.uint32)
    decoded = _stream.stack.AnsCoder(words.astype(np.uint32)).decode(_model(counts), numel)
    return (decoded + first).astype(np.uint32)


def _model(counts: npt.NDArray[np.int64]) -> Any:
    """constriction's model of integer probabilities that sum to `TOTAL`, at least 1 each."""
    table = 1 + counts.astype(np.int64) * (TOTAL - len(counts)) // int(counts.sum())
    table[int(table.argmax())] += TOTAL - int(table.sum())
    return _stream.model.Categorical(table / TOTAL, perfect=False)


def _rest_bytes(form: _Form) -> int:
    """Bytes that sign and mantissa take."""
    return np.dtype(form.dtype).itemsize - 1


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError(f"{value!r} is no count")
    return value


def _take(data: bytes, start: int, count: int) -> tuple[Bytes, int]:
    if start + count > len(data):
        raise ValueError("it ends too early")
    return np.frombuffer(data, np.uint8, count, start), start + count
