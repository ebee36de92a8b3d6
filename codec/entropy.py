"""Entropy coding of a packet's symbols: one ANS stream, one integer table a group.

Coder: asymmetric numeral systems (Duda et al. 2015, Picture Coding Symposium), as `constriction` 0.5 implements it. A
table becomes the exact dyadic fractions count / 2^22 in float64, which constriction turns into 24-bit fixed point by
sums and products, without a call to libm, so both ends get the same model. The stream is a stack: last in, first out.
"""

from typing import Any, NamedTuple

import constriction
import numpy as np
import numpy.typing as npt

from .errors import PacketError
from .groups import Groups
from .symbols import NUM_SYMBOLS
from .tables import ADAPTIVE, FIRST_PRESET, SKIP, TOTAL, adaptive_table, choice_table, preset_costs, preset_tables

_stream = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]  # a submodule without a stub

ZERO = 14  # the symbol of the value 0


class Coded(NamedTuple):
    """Symbols as ANS words.

    Attributes:
        words: little-endian 32-bit words.
        num_choice_bits: how many of their bits name the tables, as far as single bits can be told apart.
        seen: occurrences of each symbol, `[group, symbol]`.
    """

    words: bytes
    num_choice_bits: int
    seen: npt.NDArray[np.int64]


def encode_symbols(symbols: npt.NDArray[np.int32], groups: Groups, counts: npt.NDArray[np.int64]) -> Coded:
    """Symbols as one ANS stream; for each group the cheapest of skipping it, its adaptive table and the presets.

    Args:
        symbols: `[param]`, each below `NUM_SYMBOLS`.
        groups: the partition of the coordinates.
        counts: decayed counts of the groups, `[group, symbol]`.
    """
    seen = np.zeros((len(groups), NUM_SYMBOLS), np.int64)
    choices = np.zeros(len(groups), np.int32)
    choice_costs = np.log2(float(TOTAL)) - np.log2(choice_table())
    coder = _stream.stack.AnsCoder()
    for group in reversed(range(len(groups))):
        members = groups.gather(symbols, group)
        seen[group] = np.bincount(members, minlength=NUM_SYMBOLS)
        if seen[group, ZERO] == len(members):
            continue
        adaptive = adaptive_table(counts[group])
        costs = choice_costs[ADAPTIVE:].copy()
        costs[0] += (np.log2(float(TOTAL)) - np.log2(adaptive)) @ seen[group]
        costs[1:] += preset_costs() @ seen[group]
        choices[group] = ADAPTIVE + int(costs.argmin())
        table = adaptive if choices[group] == ADAPTIVE else preset_tables()[choices[group] - FIRST_PRESET]
        coder.encode_reverse(np.ascontiguousarray(members), _model(table))
    num_symbol_bits = coder.num_valid_bits()
    if len(groups):
        coder.encode_reverse(choices, _model(choice_table()))
    words = coder.get_compressed().astype("<u4")
    return Coded(words.tobytes(), coder.num_valid_bits() - num_symbol_bits, seen)


def decode_symbols(
    data: bytes, groups: Groups, counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The inverse of `encode_symbols`, for any words: memory is bounded by the groups' sizes, never by the data.

    Args:
        data: the words, a multiple of four bytes.
        groups: the partition of the coordinates.
        counts: decayed counts of the groups, `[group, symbol]`, as the encoder had them.

    Returns:
        Symbols, `[param]`, and their occurrences, `[group, symbol]`.

    Raises:
        PacketError: if the words are not what some encoder made.
    """
    words = np.frombuffer(data, "<u4").astype(np.uint32)
    if len(words) and words[-1] == 0:
        raise PacketError("The packet is damaged: its entropy-coded part ends with an empty word.")
    coder = _stream.stack.AnsCoder(words)
    seen = np.zeros((len(groups), NUM_SYMBOLS), np.int64)
    symbols = np.full(sum(groups.sizes), ZERO, np.int32)
    choices = coder.decode(_model(choice_table()), len(groups)) if len(groups) else ()
    for group, choice in enumerate(choices):
        if choice == SKIP:
            seen[group, ZERO] = groups.sizes[group]
            continue
        table = adaptive_table(counts[group]) if choice == ADAPTIVE else preset_tables()[choice - FIRST_PRESET]
        members = coder.decode(_model(table), groups.sizes[group])
        seen[group] = np.bincount(members, minlength=NUM_SYMBOLS)
        groups.scatter(symbols, group, members)
    if not coder.is_empty():
        raise PacketError("The packet is damaged: its entropy-coded part holds more than its symbols.")
    return symbols, seen


def _model(table: npt.NDArray[np.int64]) -> Any:
    return _stream.model.Categorical(table / TOTAL, perfect=False)
