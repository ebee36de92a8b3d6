"""The inner loops of the fast coding, as machine code: what `run_coding` and `given_cells` do, one value at a time.

Compiled by numba when first called and kept on disk. Each function is pure or writes only to what it is given last.
The stack of asymmetric numeral systems is that of `docs/packet-format.md`: a state of 64 bits and words of 32, here an
array of words and `head`, uint64 `[2]`: the state and how many words are left.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from .compiled import machine_code
from .symbols import MAX_DIRECT, NUM_DIRECT

_PRECISION = 24  # bits of probabilities
_LOOKED_UP = 12  # bits of a quantile that are looked up
_Whole = int | np.integer
_NUM_KINDS = 4  # of magnitudes: 0, 1, 2 and above


_compiled = machine_code()


@_compiled
def rounded(
    residual: npt.NDArray[np.float32], lowest: np.float32, width: float, lift: float, largest: float
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64], float, float, bool
]:
    """What is not zero in cells of one width.

    Args:
        residual: `[param]`, finite.
        lowest: magnitude below which everything rounds to 0, or a little less.
        width: of the cells.
        lift: a magnitude of m cells rounds to floor(m + lift).
        largest: integer there may be.

    Returns:
        places `[value]`, values `[value]`, how many of each kind and the sum of what they are above their magnitude,
        in cells, both `[kind]`, the sum of the squares of that, the energy of the coordinates, and whether all
        integers are at most `largest`.
    """
    places = np.empty(len(residual) + 1, np.int64)  # what is not written to takes no memory
    numbers, totals = np.zeros(_NUM_KINDS, np.int64), np.zeros(_NUM_KINDS, np.float64)
    square = energy = 0.0
    count = 0
    for place in range(len(residual)):
        places[count] = place  # without a branch, twice as fast
        count += np.int64(np.abs(residual[place]) >= lowest)
    candidates = places[:count].copy()
    values = np.empty(count, np.int32)
    count = 0
    for place in candidates:
        exact = np.float64(np.abs(residual[place]))
        scaled = exact / width
        integer = np.floor(scaled + lift)
        if integer > 0:
            if scaled > largest:
                return candidates, values, numbers, totals, square, energy, False
            excess = scaled - integer
            kind = int(min(integer, _NUM_KINDS - 1))
            numbers[kind] += 1
            totals[kind] += excess
            square += excess * excess
            energy += exact * exact
            candidates[count] = place
            values[count] = np.int32(-integer if residual[place] < 0 else integer)
            count += 1
    return candidates[:count], values[:count], numbers, totals, square, energy, True


@_compiled
def arranged(
    places: npt.NDArray[np.int64],
    values: npt.NDArray[np.int32],
    pieces: npt.NDArray[np.int64],
    near: npt.NDArray[np.uint8],
    bases: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Values and the distances between them as symbols, group by group.

    Args:
        places: `[value]`, increasing.
        values: `[value]`.
        pieces: of groups: start and stop in the vector, group, and coordinates of the group before it,
            `[piece, 4]`, in the order of the vector.
        near: symbols of the shortest distances, `[distance]`.
        bases: the least distance of each symbol, `[symbol]`.
        numbers: of values in each group, `[group]`; written.
        seen: how often each symbol occurs, `[table, symbol]`, distances of a group before its values; written.

    Returns:
        Symbols of distances, what is left of each distance, symbols of values, all `[value]`, and the values behind
        escapes, `[escape]`.
    """
    ends = np.searchsorted(places, pieces[:, 1])
    begin = 0
    for piece in range(len(pieces)):
        numbers[pieces[piece, 2]] += ends[piece] - begin
        begin = ends[piece]
    next_of = np.zeros(len(numbers), np.int64)
    next_of[1:] = np.cumsum(numbers)[:-1]
    last_of = np.full(len(numbers), -1, np.int64)
    symbols, left = np.empty(len(places), np.uint8), np.empty(len(places), np.int64)
    coded = np.empty(len(places), np.uint8)
    escapes = np.empty(len(places), np.int64)
    begin = 0
    for piece in range(len(pieces)):
        group = pieces[piece, 2]
        shift = pieces[piece, 3] - pieces[piece, 0]
        out, last = next_of[group], last_of[group]
        for index in range(begin, ends[piece]):
            place = places[index] + shift
            distance = place - last - 1
            last = place
            if distance < len(near):
                symbol = np.int64(near[distance])
            else:
                symbol = np.searchsorted(bases, distance, side="right") - 1
            symbols[out], left[out] = symbol, distance - bases[symbol]
            seen[2 * group, symbol] += 1
            value = np.int64(values[index])
            excess = abs(value) - MAX_DIRECT
            symbol = value + MAX_DIRECT
            if excess > 0:
                bucket = np.int64(0)
                while excess >> (bucket + 1):
                    bucket += 1
                symbol = NUM_DIRECT + bucket
            coded[out], escapes[out] = symbol, value
            seen[2 * group + 1, symbol] += 1
            out += 1
        next_of[group], last_of[group] = out, last
        begin = ends[piece]
    far = np.flatnonzero(coded >= NUM_DIRECT)
    return symbols, left, coded, escapes[far]


@_compiled
def _push(
    words: npt.NDArray[np.uint32], state: np.uint64, number: _Whole, start: np.uint64, size: np.uint64
) -> tuple[np.uint64, _Whole]:
    """One symbol whose share of 2^24 is from `start` on, `size` wide; the state, and how many words there are."""
    if state >> np.uint64(64 - _PRECISION) >= size:
        words[number] = np.uint32(state & np.uint64(0xFFFFFFFF))
        number += 1
        state >>= np.uint64(32)
    quotient = state // size
    return (quotient << np.uint64(_PRECISION)) | (state - quotient * size + start), number


@_compiled
def _push_bits(
    words: npt.NDArray[np.uint32], state: np.uint64, number: _Whole, value: Any, width: _Whole
) -> tuple[np.uint64, _Whole]:
    """A number of at most 16 bits, as it is."""
    if state >> np.uint64(64 - width):
        words[number] = np.uint32(state & np.uint64(0xFFFFFFFF))
        number += 1
        state >>= np.uint64(32)
    shift = np.uint64(_PRECISION - width)
    inside = state & ((np.uint64(1) << shift) - np.uint64(1))
    return (state >> shift << np.uint64(_PRECISION)) | (np.uint64(value) << shift) | inside, number


@_compiled
def pushed(
    words: npt.NDArray[np.uint32],
    escapes: npt.NDArray[np.uint8],
    numbers: npt.NDArray[np.int64],
    symbols: npt.NDArray[np.uint8],
    left: npt.NDArray[np.int64],
    coded: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.uint32],
    widths: npt.NDArray[np.int64],
) -> int:
    """All of a packet's runs on an empty stack; gives how many words it has.

    Args:
        words: room for the stack; written.
        escapes: bytes behind the values' escapes.
        numbers: of values, `[group]`.
        symbols: of distances, `[value]`, group by group.
        left: of distances, `[value]`.
        coded: symbols of values, `[value]`.
        starts: cumulative shares of 2^24, `[table, symbol + 1]`.
        widths: bits of what is left behind each symbol of a distance, `[symbol]`.
    """
    state, count = np.uint64(0), 0
    for index in range(len(escapes) - 1, -1, -1):
        state, count = _push_bits(words, state, count, escapes[index], 8)
    end = len(coded)
    for group in range(len(numbers) - 1, -1, -1):
        table = starts[2 * group + 1].astype(np.uint64)
        for index in range(end - 1, end - numbers[group] - 1, -1):
            start = table[coded[index]]
            state, count = _push(words, state, count, start, table[coded[index] + 1] - start)
        end -= numbers[group]
    order, firsts = _by_width(symbols, widths)
    for width in range(len(firsts) - 2, 0, -1):
        low = min(width, 16)
        if width > 16:
            for index in range(firsts[width + 1] - 1, firsts[width] - 1, -1):
                state, count = _push_bits(words, state, count, left[order[index]] >> 16, width - 16)
        for index in range(firsts[width + 1] - 1, firsts[width] - 1, -1):
            state, count = _push_bits(words, state, count, left[order[index]] & ((1 << low) - 1), low)
    end = len(symbols)
    for group in range(len(numbers) - 1, -1, -1):
        table = starts[2 * group].astype(np.uint64)
        for index in range(end - 1, end - numbers[group] - 1, -1):
            start = table[symbols[index]]
            state, count = _push(words, state, count, start, table[symbols[index] + 1] - start)
        end -= numbers[group]
    for group in range(len(numbers) - 1, -1, -1):
        state, count = _push_bits(words, state, count, numbers[group] >> 16, 16)
    for group in range(len(numbers) - 1, -1, -1):
        state, count = _push_bits(words, state, count, numbers[group] & 0xFFFF, 16)
    words[count] = np.uint32(state & np.uint64(0xFFFFFFFF))
    words[count + 1] = np.uint32(state >> np.uint64(32))
    return count + 2


@_compiled
def _by_width(
    symbols: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of symbols by how many bits stand behind them, and where those of each number begin, `[width + 1]`."""
    firsts = np.zeros(np.max(widths) + 2, np.int64)
    for symbol in symbols:
        firsts[widths[symbol] + 1] += 1
    firsts = np.cumsum(firsts)
    order, out = np.empty(len(symbols), np.int64), firsts.copy()
    for index in range(len(symbols)):
        width = widths[symbols[index]]
        order[out[width]] = index
        out[width] += 1
    return order, firsts


@_compiled
def _refilled(words: npt.NDArray[np.uint32], state: np.uint64, number: _Whole) -> tuple[np.uint64, _Whole]:
    """The state with another word where it has room for it; and how many words are left."""
    if state >> np.uint64(32) == np.uint64(0) and number > 0:
        return (state << np.uint64(32)) | np.uint64(words[number - 1]), number - 1
    return state, number


@_compiled
def _pop_bits(
    words: npt.NDArray[np.uint32], state: np.uint64, number: _Whole, width: int
) -> tuple[np.int64, np.uint64, _Whole]:
    """A number of at most 16 bits, as it is."""
    quantile = state & np.uint64((1 << _PRECISION) - 1)
    shift = np.uint64(_PRECISION - width)
    value = quantile >> shift
    state = (state >> np.uint64(_PRECISION) << shift) | (quantile - (value << shift))
    state, number = _refilled(words, state, number)
    return np.int64(value), state, number


@_compiled
def _pop_symbols(
    words: npt.NDArray[np.uint32],
    head: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.uint32],
    found: npt.NDArray[np.uint8],
    seen: npt.NDArray[np.int64],
) -> None:
    """Symbols of one table, written to `found`, and how often each occurs."""
    bits = _PRECISION - _LOOKED_UP
    first, symbol = np.empty(1 << _LOOKED_UP, np.uint8), 0  # that a quantile with these leading bits may mean
    for leading in range(1 << _LOOKED_UP):
        while starts[symbol + 1] <= leading << bits:
            symbol += 1
        first[leading] = symbol
    table = starts.astype(np.uint64)
    state, number = head[0], np.int64(head[1])
    for index in range(len(found)):
        quantile = state & np.uint64((1 << _PRECISION) - 1)
        here = np.int64(first[np.int64(quantile >> np.uint64(bits))])
        while table[here + 1] <= quantile:
            here += 1
        start = table[here]
        state = (state >> np.uint64(_PRECISION)) * (table[here + 1] - start) + (quantile - start)
        state, number = _refilled(words, state, number)
        found[index] = here
        seen[here] += 1
    head[0], head[1] = state, np.uint64(number)


@_compiled
def opened(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """The head of a stack of these words."""
    state, number = np.uint64(0), len(words)
    while number > 0 and state >> np.uint64(32) == 0:
        state, number = _refilled(words, state, number)
    return np.array([state, np.uint64(number)], np.uint64)


@_compiled
def popped_numbers(
    words: npt.NDArray[np.uint32], head: npt.NDArray[np.uint64], count: int, width: int
) -> npt.NDArray[np.int64]:
    """As many numbers of at most 32 bits, as they are."""
    found = np.zeros(count, np.int64)
    state, number = head[0], np.int64(head[1])
    for index in range(count):
        found[index], state, number = _pop_bits(words, state, number, min(width, 16))
    if width > 16:
        for index in range(count):
            high, state, number = _pop_bits(words, state, number, width - 16)
            found[index] |= high << 16
    head[0], head[1] = state, np.uint64(number)
    return found


@_compiled
def popped(
    words: npt.NDArray[np.uint32],
    head: npt.NDArray[np.uint64],
    numbers: npt.NDArray[np.int64],
    starts: npt.NDArray[np.uint32],
    widths: npt.NDArray[np.int64],
    bases: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """What `pushed` put below the numbers and above the escapes: distances and symbols of values, `[value]` each.

    Args:
        words: of the stack.
        head: of the stack, from which `numbers` have been taken; written.
        numbers: of values, `[group]`.
        starts: cumulative shares of 2^24, `[table, symbol + 1]`.
        widths: bits of what is left behind each symbol of a distance, `[symbol]`.
        bases: the least distance of each symbol, `[symbol]`.
        seen: how often each symbol occurs, `[table, symbol]`; written.
    """
    ends = np.cumsum(numbers)
    symbols, coded = np.empty(numbers.sum(), np.uint8), np.empty(numbers.sum(), np.uint8)
    for group in range(len(numbers)):
        found = symbols[ends[group] - numbers[group] : ends[group]]
        _pop_symbols(words, head, starts[2 * group], found, seen[2 * group])
    distances = bases[symbols]
    order, firsts = _by_width(symbols, widths)
    for width in range(1, len(firsts) - 1):
        here = order[firsts[width] : firsts[width + 1]]
        left = popped_numbers(words, head, len(here), width)
        for index in range(len(here)):
            distances[here[index]] += left[index]
    for group in range(len(numbers)):
        found = coded[ends[group] - numbers[group] : ends[group]]
        _pop_symbols(words, head, starts[2 * group + 1], found, seen[2 * group + 1])
    return distances, coded


@_compiled
def placed(
    distances: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    pieces: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], bool]:
    """Where values lie in the vector, `[value]`, group by group, and whether all lie within their groups.

    Args:
        distances: `[value]`, group by group.
        numbers: of values, `[group]`.
        pieces: see `arranged`.
        sizes: coordinates of each group, `[group]`.
    """
    places = np.empty(len(distances), np.int64)
    begin = 0
    for group in range(len(numbers)):
        inside = np.int64(-1)
        piece = 0
        while pieces[piece, 2] != group:
            piece += 1
        for index in range(begin, begin + numbers[group]):
            inside += distances[index] + 1
            if not 0 <= inside < sizes[group]:
                return places, False
            while inside >= pieces[piece, 3] + pieces[piece, 1] - pieces[piece, 0]:
                piece += 1
                while pieces[piece, 2] != group:
                    piece += 1
            places[index] = inside - pieces[piece, 3] + pieces[piece, 0]
        begin += numbers[group]
    return places, True
