"""A slow decoder of packets of format version 2, written from `docs/packet-format.md` in plain Python.

It shares no code with the library: integers, floats rounded by `struct`, loops over coordinates, and entropy coding of
its own. It reads the committed tables, which belong to the format.
"""

import hashlib
import hmac
import math
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

import deadreckon.codec

TABLES = Path(deadreckon.codec.__path__[0])
NUM_SYMBOLS, NUM_CLASSES, NUM_CHOICES = 60, 34, 65
PRECISION = 2**24
TOTAL = 2**22
MAGNITUDES = [abs(symbol - 14) for symbol in range(29)] + [min(14 + 3 * 2**b // 2, 4096) for b in range(31)]
LAGS = {"previous": 1, "ef21": 1, "fitted": 1, "adaptive_momentum": 1}
LAGS |= {"second_last": 2, "third_last": 3, "fourth_last": 4}  # how far back a predictor's row is
HALVES = [1, 1, 1, 1, 2, 2, 4, 6, 9, 14, 21, 30, 41, 55, 70, 84, 96, 106, 113, 118, 122, 124, 125, 126, *[127] * 10]
HALVES_OF_PAIRS = [*[1] * 14, 6, 19, 38, 60, 79, 94, 104, 112, 117, 120, 122, 124, 125, 126, *[127] * 4, 128, 128]
ODD_VECTORS = [*[1] * 12, 3, 4, 5, 9, 18, 27, 45, 63, 76, 90, 100, 109, 115, 120, 124, 127, *[128] * 6]
ODD_DIGITS = [*[3] * 9, 4, 4, 7, 13, 22, 31, 44, 62, 77, 91, 105, 110, 115, 120, 122, 124, 126, *[128] * 8]
GOLAY_LINES = (
    "111110100100 111001001110 110100011101 110011111000 101100111010 101011100011 "
    "100111010110 011101101001 011011010101 010110110011 001110001111 000001111111"
).split()
PASS_OF_SLOT = [0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]


class Refused(Exception):
    """A packet that a decoder must not take."""


class Matrix(NamedTuple):
    """Where a tensor lies and how it is a matrix."""

    start: int
    num_rows: int
    num_columns: int
    num_dimensions: int

    @property
    def places(self) -> range:
        return range(self.start, self.start + self.num_rows * self.num_columns)


def float32(value: float) -> float:
    """The nearest float32."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def lg(value: float) -> int:
    """Sixteen times log2, piecewise linear, plus 2032: the bits of a float32 without the last 19."""
    return struct.unpack("<i", struct.pack("<f", value))[0] >> 19


def committed(name: str) -> list[list[int]]:
    """The lines of one of the format's files."""
    return [[int(count) for count in line.split()] for line in (TABLES / name).read_text().splitlines()]


def table_of(weights: Sequence[int]) -> list[int]:
    """Counts in proportion to weights, which sum to 2^22."""
    shift = max(sum(weights).bit_length() - 40, 0)
    weights = [weight >> shift for weight in weights]
    total = sum(weights)
    counts = [1 + weight * (TOTAL - NUM_SYMBOLS) // total for weight in weights]
    counts[counts.index(max(counts))] += TOTAL - sum(counts)
    return counts


def cumulative(counts: Sequence[int]) -> list[int]:
    """F of a table."""
    before, starts = 0, []
    for symbol, count in enumerate(counts):
        starts.append((before * (PRECISION - len(counts)) >> 22) + symbol)
        before += count
    return [*starts, PRECISION]


def uniform(size: int) -> list[int]:
    """F of equally likely symbols."""
    return [symbol * (PRECISION // size) for symbol in range(size)] + [PRECISION]


class Bits:
    """A row of bits."""

    def __init__(self, data: bytes) -> None:
        self.digits = "".join(f"{byte:08b}" for byte in data)
        self.place = 0

    def read(self, width: int) -> int:
        if self.place + width > len(self.digits):
            raise Refused("the parameters end too early")
        self.place += width
        return int(self.digits[self.place - width : self.place] or "0", 2)

    def number(self, order: int) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 40:
                raise Refused("a number is too long")
        zigzag = (1 << zeros + order) + self.read(zeros + order) - (1 << order)
        return -(zigzag + 1) // 2 if zigzag % 2 else zigzag // 2

    def rest(self) -> bytes:
        if self.read(-self.place % 8):
            raise Refused("padding is not zero")
        left = self.digits[self.place :]
        return bytes(int(left[start : start + 8], 2) for start in range(0, len(left), 8))


class Stack:
    """Asymmetric numeral systems."""

    def __init__(self, data: bytes) -> None:
        if data.endswith(b"\0"):
            raise Refused("the stack ends with an empty byte")
        data += bytes(-len(data) % 4)
        self.words = list(struct.unpack(f"<{len(data) // 4}I", data))
        self.state = 0
        while self.words and self.state < 2**32:
            self._take()

    def _take(self) -> None:
        self.state = self.state * 2**32 + self.words.pop()

    def decode(self, starts: Sequence[int]) -> int:
        remainder = self.state % PRECISION
        symbol = bisect_right(starts, remainder, hi=len(starts) - 1) - 1
        self.state = self.state // PRECISION * (starts[symbol + 1] - starts[symbol]) + remainder - starts[symbol]
        if self.state < 2**32 and self.words:
            self._take()
        return symbol

    def finish(self) -> None:
        if self.words or self.state:
            raise Refused("the stack holds more than its symbols")


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """A LEB128 number and the place behind it."""
    value = 0
    for shift in range(0, 63, 7):
        if place >= len(data):
            raise Refused("a varint ends too early")
        byte = data[place]
        place += 1
        value += (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                raise Refused("a varint is too long for its value")
            return value, place
    raise Refused("a varint is too long")


class TensorTables:
    """Symbols by tensor tables."""

    def __init__(self, matrices: Sequence[Matrix], size: int) -> None:
        large = [[part] for part in matrices if len(part.places) >= 4096]
        small = [part for part in matrices if len(part.places) < 4096]
        matrices_together = [part for part in small if part.num_dimensions >= 2]
        others_together = [part for part in small if part.num_dimensions < 2]
        parts = [group for group in (*large, matrices_together, others_together) if group]
        self.groups = [[place for part in group for place in part.places] for group in parts]
        self.size = size
        self.order = range(size)  # in which escapes come
        self.presets = committed("preset_tables.txt")
        self.counts = [[0] * NUM_SYMBOLS for _ in self.groups]
        self.activity: list[int] = []

    def decode(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        shares = [2**20, 0] + [16644] * 63
        shares[1] = TOTAL - sum(shares)
        choices = [stack.decode(cumulative(shares)) for _ in self.groups]
        symbols = [14] * self.size
        for which, (group, choice) in enumerate(zip(self.groups, choices, strict=True)):
            counts = self.counts[which]
            if choice:
                table = table_of([count + 1 for count in counts]) if choice == 1 else self.presets[choice - 2]
                starts = cumulative(table)
                for place in group:
                    symbols[place] = stack.decode(starts)
            seen = [0] * NUM_SYMBOLS
            for place in group:
                seen[symbols[place]] += 1
            self.counts[which] = [old - (old >> 2) + 16 * new for old, new in zip(counts, seen, strict=True)]
        return symbols


class Runs(TensorTables):
    """Symbols by runs: distances between values that are not zero, and those."""

    def __init__(self, matrices: Sequence[Matrix], size: int) -> None:
        super().__init__(matrices, size)
        self.counts = [[0] * NUM_SYMBOLS for _ in self.groups for _ in range(2)]
        self.bases, self.widths = list(range(8)), [0] * 8
        for octave in range(3, 28):
            for half in range(2):
                self.bases.append((2 + half) * 2 ** (octave - 1))
                self.widths.append(octave - 1)
        self.bases += [2**28, 2**29]
        self.widths += [28, 29]
        distances = [1 + 2 ** (e + 12) // (base + 8) ** 2 for base, e in zip(self.bases, self.widths, strict=True)]
        values = [0 if symbol == 14 else 1 + 2**8 // 2 ** min(abs(symbol - 14), 8) for symbol in range(29)] + [2] * 31
        self.priors = (distances, values)
        self.order: list[int] = []

    @override
    def decode(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        numbers = self._numbers(stack, len(self.groups), 32)
        if any(number > len(group) for number, group in zip(numbers, self.groups, strict=True)):
            raise Refused("more values than coordinates")
        seen = [[0] * NUM_SYMBOLS for _ in self.counts]
        far = [self._symbols(stack, 2 * group, number, seen) for group, number in enumerate(numbers)]
        distances = [[self.bases[symbol] for symbol in symbols] for symbols in far]
        for width in range(1, 30):
            here = [
                (group, place)
                for group, symbols in enumerate(far)
                for place, symbol in enumerate(symbols)
                if self.widths[symbol] == width
            ]
            for (group, place), rest in zip(here, self._numbers(stack, len(here), width), strict=True):
                distances[group][place] += rest
        result = [14] * self.size
        self.order = []
        for group, number in enumerate(numbers):
            inside = -1
            for distance, symbol in zip(
                distances[group], self._symbols(stack, 2 * group + 1, number, seen), strict=True
            ):
                inside += distance + 1
                if symbol == 14 or inside >= len(self.groups[group]):
                    raise Refused("a value of 0, or beyond its group")
                self.order.append(self.groups[group][inside])
                result[self.order[-1]] = symbol
        for counts, occurrences in zip(self.counts, seen, strict=True):
            counts[:] = [old - (old >> 2) + 16 * new for old, new in zip(counts, occurrences, strict=True)]
        return result

    def _symbols(self, stack: Stack, table: int, number: int, seen: list[list[int]]) -> list[int]:
        starts = cumulative(table_of([n + p for n, p in zip(self.counts[table], self.priors[table % 2], strict=True)]))
        found = [stack.decode(starts) for _ in range(number)]
        for symbol in found:
            seen[table][symbol] += 1
        return found

    def _numbers(self, stack: Stack, number: int, width: int) -> list[int]:
        low = min(width, 16)
        starts = range(0, PRECISION + 1, PRECISION >> low)
        found = [stack.decode(starts) for _ in range(number)]
        if width > low:
            starts = range(0, PRECISION + 1, PRECISION >> width - low)
            found = [value + 2**low * stack.decode(starts) for value in found]
        return found


Lines = tuple[list[list[int]], list[list[int]]]  # e and g of each row, and of each column


class ScaleClasses:
    """Symbols by scale classes."""

    def __init__(self, matrices: Sequence[Matrix], size: int) -> None:
        self.matrices = matrices
        self.order = range(size)
        self.priors = committed("class_tables.txt")
        self.counts = [[0] * NUM_SYMBOLS for _ in range(NUM_CLASSES)]
        self.activity = [0] * size
        self.num_coded = 0
        self.last_cell = 0
        self.lines: list[tuple[int, int, int]] = []  # matrix, row and column of each coordinate, counted through
        first_row = first_column = 0
        for which, part in enumerate(matrices):
            for number in range(len(part.places)):
                row, column = divmod(number, part.num_columns)
                self.lines.append((which, first_row + row, first_column + column))
            first_row += part.num_rows
            first_column += part.num_columns
        self.num_rows, self.num_columns = first_row, first_column

    def decode(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        tables = self._tables()
        starts = [cumulative(table) for table in tables]
        means = self._means(tables)
        logs = self._logs(stack, cell_index, levels)
        symbols = [14] * len(logs)
        seen = [[0] * NUM_SYMBOLS for _ in range(NUM_CLASSES)]
        lines = self._no_lines()
        for number in range(5):
            members = [place for place in self._pass(number) if levels[self.lines[place][0]] != 3]
            class_of = self._classes(members, logs, lines)
            for place in sorted(members, key=class_of.__getitem__):
                which = class_of[place]
                symbols[place] = stack.decode(starts[which])
                seen[which][symbols[place]] += 1
            self._see(members, logs, means, {place: 1024 * MAGNITUDES[symbols[place]] for place in members}, lines)
        cells = [MAGNITUDES[symbol] for symbol in symbols]
        self._update(cells, [[16 * new for new in row] for row in seen], cell_index, levels)
        return symbols

    def _tables(self) -> list[list[int]]:
        return [
            table_of([1024 * count + prior for count, prior in zip(counts, priors, strict=True)])
            for counts, priors in zip(self.counts[:NUM_CLASSES], self.priors, strict=True)
        ]

    def _means(self, tables: list[list[int]]) -> list[int]:
        return [sum(f * m for f, m in zip(table, MAGNITUDES, strict=True)) // 4096 for table in tables]

    def _logs(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        if self.num_coded:
            self._rescale(cell_index)
            return self._expected(cell_index, levels)
        classes = [stack.decode(uniform(NUM_CLASSES)) for _ in self.matrices]
        return [8 * classes[which] - 156 for which, _, _ in self.lines]

    def _no_lines(self) -> Lines:
        return [[0, 0] for _ in range(self.num_rows)], [[0, 0] for _ in range(self.num_columns)]

    def _classes(self, members: list[int], logs: list[int], lines: Lines) -> dict[int, int]:
        of_rows, of_columns = self._corrections(*lines)
        found = {}
        for place in members:
            _, row, column = self.lines[place]
            found[place] = clipped(logs[place] + of_rows[row] + of_columns[column])
        return found

    def _see(self, members: list[int], logs: list[int], means: list[int], shown: dict[int, int], lines: Lines) -> None:
        for place in members:
            _, row, column = self.lines[place]
            for line in (lines[0][row], lines[1][column]):
                line[0] += means[clipped(logs[place])]
                line[1] += shown[place]

    def _pass(self, number: int) -> list[int]:
        found = []
        for part in self.matrices:
            for place in part.places:
                row, column = divmod(place - part.start, part.num_columns)
                slot = (3242174889 * row + 2447445414 * column) % 2**32 // 2**28
                if PASS_OF_SLOT[slot] == number:
                    found.append(place)
        return found

    def _rescale(self, cell_index: int) -> None:
        octaves = cell_index // 128 - self.last_cell // 128
        if octaves >= 0:
            self.activity = [value >> min(octaves, 31) for value in self.activity]
        else:
            shift = min(-octaves, 26)
            self.activity = [min(value, 2**26 >> shift) << shift for value in self.activity]

    def _expected(self, cell_index: int, levels: Sequence[int]) -> list[int]:
        own_share = min(self.num_coded, 5) / 8
        rows, columns, matrices = [0] * self.num_rows, [0] * self.num_columns, [0] * len(self.matrices)
        for value, (which, row, column) in zip(self.activity, self.lines, strict=True):
            rows[row] += value
            columns[column] += value
            matrices[which] += value
        logs = []
        for value, (which, row, column) in zip(self.activity, self.lines, strict=True):
            share = columns[column] * ((1 - own_share) / max(matrices[which], 1))
            mixed = rows[row] * share + value * own_share + 1
            logs.append(lg(mixed) - lg(32 * (128 + cell_index % 128)) - 16 * levels[which])
        return logs

    def _corrections(self, rows: list[list[int]], columns: list[list[int]]) -> tuple[list[int], list[int]]:
        matrix_of_row = {row: which for which, row, _ in self.lines}
        matrix_of_column = {column: which for which, _, column in self.lines}
        sums = [[0, 0] for _ in self.matrices]
        for row, (expected, seen) in enumerate(rows):
            sums[matrix_of_row[row]][0] += expected
            sums[matrix_of_row[row]][1] += seen
        overall = (sum(seen for _, seen in sums) + 4096) / (sum(expected for expected, _ in sums) + 4096)
        ratios = [(seen + 4096 * overall) / (expected + 4096) for expected, seen in sums]

        def of_line(line: list[int], ratio: float) -> int:
            return lg(line[1] + 1024) - lg(line[0] * ratio + 1024)

        of_rows = [
            of_line(line, ratios[matrix_of_row[row]]) + lg(ratios[matrix_of_row[row]]) - 2032
            for row, line in enumerate(rows)
        ]
        return of_rows, [of_line(line, ratios[matrix_of_column[column]]) for column, line in enumerate(columns)]

    def _update(
        self, magnitudes: Sequence[float], seen: list[list[int]], cell_index: int, levels: Sequence[int]
    ) -> None:
        slowness = min(int(math.log2(self.num_coded + 1)), 4)
        for place, (which, _, _) in enumerate(self.lines):
            if levels[which] != 3:
                cells = magnitudes[place] * 2 ** levels[which]
                shown = min(self._shown(place, cells, cell_index), 2**26)
                self.activity[place] += (shown - self.activity[place]) >> slowness
        for counts, occurrences in zip(self.counts, seen, strict=False):  # those of contexts stay after a packet in Z
            counts[:] = [old - (old >> 3) + new for old, new in zip(counts, occurrences, strict=True)]
        self.num_coded += 1
        self.last_cell = cell_index

    def _shown(self, place: int, cells: float, cell_index: int) -> int:
        return int(cells * 32 * (128 + cell_index % 128))


class LatticePoints(ScaleClasses):
    """Points of D4 and E8, doubled; also symbols by scale classes with the same state.

    Args:
        matrices: of the layout.
        size: coordinates.
        dimension: 4 or 8.
    """

    def __init__(self, matrices: Sequence[Matrix], size: int, dimension: int) -> None:
        super().__init__(matrices, size)
        self.dimension = dimension
        self.num_contexts = 31 if dimension == 8 else 15
        self.counts += [[0] * NUM_SYMBOLS for _ in range(NUM_CLASSES * self.num_contexts)]
        self.num_escapes = 0

    def decode_points(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        tables = self._tables()
        means = self._means(tables)
        self.context_starts: dict[int, list[int]] = {}
        self.seen = [[0] * NUM_SYMBOLS for _ in self.counts]
        self.num_escapes = 0
        logs = self._logs(stack, cell_index, levels)
        points = [0] * len(logs)
        lines = self._no_lines()
        for number in range(5):
            vectors = [
                [place if place in part.places else None for place in range(first, first + self.dimension)]
                for which, part in enumerate(self.matrices)
                for first in part.places[:: self.dimension]
                if levels[which] != 3 and self._is_in_pass(part, first, number)
            ]
            members = [place for vector in vectors for place in vector if place is not None]
            class_of = self._classes(members, logs, lines)
            for vector, found in zip(vectors, self._vectors(stack, vectors, class_of, tables, means), strict=True):
                for place, doubled in zip(vector, found, strict=True):
                    if place is not None:
                        points[place] = doubled
                        for integer in (doubled // 2, (doubled + 1) // 2):
                            self.seen[class_of[place]][symbol_of(integer)] += 8
            shown = {place: 512 * min(abs(points[place]), 8192) for place in members}
            self._see(members, logs, means, shown, lines)
        self._update([min(abs(doubled) / 2, 4096) for doubled in points], self.seen, cell_index, levels)
        return points

    def _is_in_pass(self, part: Matrix, first: int, number: int) -> bool:
        row, column = divmod(first - part.start, part.num_columns)
        slot = (3242174889 * row + 2447445414 * (column // self.dimension)) % 2**32 // 2**28
        return PASS_OF_SLOT[slot] == number

    def _vectors(
        self,
        stack: Stack,
        vectors: list[list[int | None]],
        class_of: dict[int, int],
        tables: list[list[int]],
        means: list[int],
    ) -> list[list[int]]:
        """Doubled coordinates of a pass's vectors."""
        cosets = [0] * len(vectors)
        if self.dimension == 8:
            which = []
            for vector in vectors:
                own = [class_of[place] for place in vector if place is not None]
                which.append((sum(own) // len(own), 30))
            cosets = self._values(stack, which, tables)
            if not set(cosets) <= {0, 1}:
                raise Refused("a coset that is neither 0 nor 1")
        walks = [
            Walk([0 if place is None else class_of[place] for place in vector], means, coset)
            for vector, coset in zip(vectors, cosets, strict=True)
        ]
        for place in range(self.dimension):
            left = self.dimension - 1 - place
            values = self._values(stack, [walk.context(place, left) for walk in walks], tables)
            for walk, value in zip(walks, values, strict=True):
                walk.take(place, left, value)
        return [[2 * digit + walk.coset for digit in walk.digits] for walk in walks]

    def _values(self, stack: Stack, which: list[tuple[int, int]], tables: list[list[int]]) -> list[int]:
        """One value for each class and context."""
        values = [0] * len(which)
        for place in sorted(range(len(which)), key=which.__getitem__):
            table = NUM_CLASSES + which[place][0] * self.num_contexts + which[place][1]
            if table not in self.context_starts:
                weights = self._weights(tables[which[place][0]], *which[place])
                pairs = zip(self.counts[table], weights, strict=True)
                self.context_starts[table] = cumulative(table_of([4096 * n + u for n, u in pairs]))
            values[place] = stack.decode(self.context_starts[table])
            self.seen[table][values[place]] += 16
        for place, symbol in enumerate(values):
            bits = [stack.decode(uniform(2)) for _ in range(max(symbol - 28, 0))]
            values[place] = symbol - 14
            if bits:
                self.num_escapes += 1
                magnitude = 1
                for bit in bits[1:]:
                    magnitude = 2 * magnitude + bit
                values[place] = -14 - magnitude if bits[0] else 14 + magnitude
        return values

    def _weights(self, census: Sequence[int], which: int, context: int) -> list[int]:
        return weights_of(census, which, context)


class TrellisPoints(LatticePoints):
    """Points of trellis paths, doubled.

    Args:
        matrices: of the layout.
        size: coordinates.
        polynomials: bits of a state, h0 and h1.
    """

    def __init__(self, matrices: Sequence[Matrix], size: int, polynomials: tuple[int, int, int]) -> None:
        super().__init__(matrices, size, 8)
        self.num_contexts = 9
        self.counts = [[0] * NUM_SYMBOLS for _ in range(NUM_CLASSES * 10)]
        self.polynomials = polynomials
        num_vectors = sum(-(-len(part.places) // 8) for part in matrices)
        self.num_paths = max(-(-num_vectors // 16), 1)

    @override
    def decode_points(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        self.states = [[0] * self.polynomials[0] for _ in range(self.num_paths)]
        return super().decode_points(stack, cell_index, levels)

    @override
    def _vectors(
        self,
        stack: Stack,
        vectors: list[list[int | None]],
        class_of: dict[int, int],
        tables: list[list[int]],
        means: list[int],
    ) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(vectors), self.num_paths):
            walks = [
                PathWalk([None if place is None else class_of[place] for place in vector], means, state)
                for vector, state in zip(vectors[first : first + self.num_paths], self.states, strict=False)
            ]
            for place in range(8):
                coded = [walk for walk in walks if walk.classes[place] is not None]
                values = iter(self._values(stack, [walk.context(place) for walk in coded], tables))
                for walk in walks:
                    walk.take(place, 0 if walk.classes[place] is None else next(values), self.polynomials)
            found += [walk.points for walk in walks]
        return found

    @override
    def _weights(self, census: Sequence[int], which: int, context: int) -> list[int]:
        if context < 6:
            return list(census)
        found = [0] * 14 + [census[14] // 2 + census[14] // 8] + [0] * 14 + list(census[29:])
        for k in range(1, 15):
            for sign in (-1, 1):
                inner = census[14] // 8 + census[14] // 16 if k == 1 else census[14 + sign * (k - 1)] // 2
                found[14 + sign * k] = inner + census[14 + sign * k] // 2
        return found


class PairPoints(LatticePoints):
    """Points of A2, doubled, each coordinate in its own steps."""

    def __init__(self, matrices: Sequence[Matrix], size: int) -> None:
        super().__init__(matrices, size, 2)
        self.num_contexts = 7
        self.counts = [[0] * NUM_SYMBOLS for _ in range(NUM_CLASSES * 8)]
        self.is_second = [place % 2 == 1 for part in matrices for place in range(len(part.places))]

    @override
    def _logs(self, stack: Stack, cell_index: int, levels: Sequence[int]) -> list[int]:
        logs = super()._logs(stack, cell_index, levels)
        return [log - 13 * second for log, second in zip(logs, self.is_second, strict=True)]

    @override
    def _shown(self, place: int, cells: float, cell_index: int) -> int:
        shown = super()._shown(place, cells, cell_index)
        return shown * 222 // 128 if self.is_second[place] else shown

    @override
    def _vectors(
        self,
        stack: Stack,
        vectors: list[list[int | None]],
        class_of: dict[int, int],
        tables: list[list[int]],
        means: list[int],
    ) -> list[list[int]]:
        owns = [[class_of[place] for place in vector if place is not None] for vector in vectors]
        cosets = self._values(stack, [(sum(own) // len(own), 6) for own in owns], tables)
        if not set(cosets) <= {0, 1}:
            raise Refused("a coset that is neither 0 nor 1")
        walks = [
            PairWalk([0 if place is None else class_of[place] for place in vector], means, coset)
            for vector, coset in zip(vectors, cosets, strict=True)
        ]
        for place in (0, 1):
            values = self._values(stack, [walk.context(place, 2) for walk in walks], tables)
            for walk, value in zip(walks, values, strict=True):
                walk.take(place, 2, value)
        return [[2 * digit + walk.coset for digit in walk.digits] for walk in walks]

    @override
    def _weights(self, census: Sequence[int], which: int, context: int) -> list[int]:
        if context == 6:
            share = HALVES_OF_PAIRS[which]
            return [0] * 14 + [(256 - share) * 2**14, share * 2**14] + [0] * 44
        return weights_of(census, which, 15 * (context // 3))


class WordPoints(LatticePoints):
    """Points of the Leech lattice, doubled."""

    def __init__(self, matrices: Sequence[Matrix], size: int) -> None:
        super().__init__(matrices, size, 24)
        self.num_contexts = 29
        self.counts = [[0] * NUM_SYMBOLS for _ in range(NUM_CLASSES * 30)]

    @override
    def _vectors(
        self,
        stack: Stack,
        vectors: list[list[int | None]],
        class_of: dict[int, int],
        tables: list[list[int]],
        means: list[int],
    ) -> list[list[int]]:
        owns = [[class_of[place] for place in vector if place is not None] for vector in vectors]
        cosets = self._values(stack, [(sum(own) // len(own), 28) for own in owns], tables)
        if not set(cosets) <= {0, 1}:
            raise Refused("a coset that is neither 0 nor 1")
        walks = [
            WordWalk([0 if place is None else class_of[place] for place in vector], means, coset)
            for vector, coset in zip(vectors, cosets, strict=True)
        ]
        for place in range(24):
            values = self._values(stack, [walk.word_context(place) for walk in walks], tables)
            for walk, value in zip(walks, values, strict=True):
                walk.take_word(place, value)
        return [[2 * digit + walk.coset for digit in walk.digits] for walk in walks]

    @override
    def _weights(self, census: Sequence[int], which: int, context: int) -> list[int]:
        if context == 28:
            return [0] * 14 + [(256 - ODD_VECTORS[which]) * 2**14, ODD_VECTORS[which] * 2**14] + [0] * 44
        if context < 6:
            odd = ODD_DIGITS[which]
            odd = [odd, odd // 2, odd // 4, odd // 2, max(odd, 96), max(odd, 96)][context]
            shares = {0: 256 - odd, 1: odd}
            sums = {parity: sum(census[v + 14] for v in range(-14, 15) if v % 2 == parity) for parity in (0, 1)}
            numbers = [census[v + 14] * 2**14 * shares[v % 2] // sums[v % 2] for v in range(-14, 15)]
            return numbers + list(census[29:])
        if context < 20:
            of_e8 = [9, 9, 9, 12, 12, 12, 9, 15, 15, 15, 24, 24, 27, 27][context - 6]
            return weights_of(census, which, of_e8)
        coset, residue = divmod(context - 20, 4)
        g = weights_of(census, which, 15 * coset)
        found = []
        for v in range(-14, 15):
            x = 4 * v + residue
            bucket = (abs(x) - 14).bit_length() - 1
            found.append(g[x + 14] if abs(x) <= 14 else g[29 + bucket] >> bucket + 1)
        return found + [g[symbol + 2] // 4 for symbol in range(29, 58)] + [0, 0]


class PathWalk:
    """What a vector on a path has shown, place by place; `state` moves on in place."""

    def __init__(self, classes: list[int | None], means: list[int], state: list[int]) -> None:
        self.classes, self.state = classes, state
        self.means = [means[which or 0] for which in classes]
        self.total = self.lean = 0
        self.shown = self.expected = 1024 + sum(self.means) // 8
        self.points: list[int] = []

    def context(self, place: int) -> tuple[int, int]:
        """Class and context of the next k."""
        which = (self.classes[place] or 0) + (lg(self.shown) - lg(self.expected) + 4) // 8
        return min(max(which, 0), NUM_CLASSES - 1), 3 * (1 + self.state[0] if any(self.state) else 0) + self.total

    def take(self, place: int, value: int, polynomials: tuple[int, int, int]) -> None:
        k = -value if self.lean < 0 else value
        if abs(k) > 2**30 - 1:
            raise Refused("a coordinate that is too large")
        odd, (num_bits, h0, h1) = self.state[0], polynomials
        size = 2 * abs(k) - odd if k else 0
        self.points.append(-size if k < 0 else size)
        self.total = min(self.total + abs(k), 2)
        self.lean = self.lean // 2 + 4 * min(max(self.points[-1], -8), 8)
        self.expected += self.means[place]
        self.shown += 512 * min(size, 8192)
        shifted = [*self.state[1:], 0]
        for bit in range(num_bits):
            shifted[bit] ^= (h0 >> bit + 1 & 1) * odd ^ (h1 >> bit + 1 & 1) * (k % 2)
        self.state[:] = shifted


class Walk:
    """What a vector has shown, place by place."""

    def __init__(self, classes: list[int], means: list[int], coset: int) -> None:
        self.classes, self.coset = classes, coset
        self.means = [max(means[which], 512 * coset) for which in classes]
        self.parity = self.total = self.lean = 0
        self.shown = self.expected = 1024 + sum(self.means) // len(classes)
        self.digits: list[int] = []

    def context(self, place: int, left: int) -> tuple[int, int]:
        """Class and context of the next value."""
        self.turned = self.lean < 0
        self.odd = self.parity ^ (self.coset if self.turned else 0)
        which = self.classes[place] + (lg(self.shown) - lg(self.expected) + 4) // 8
        context = 15 * self.coset + self.total
        if left < 2:
            context += 3 * self.odd + (3 if left else 9)
        return min(max(which, 0), NUM_CLASSES - 1), context

    def take(self, place: int, left: int, value: int) -> None:
        z = value if left else 2 * value + self.odd
        digit = -z - self.coset if self.turned else z
        if abs(digit) > 2**30 - 1:
            raise Refused("a digit that is too large")
        self.digits.append(digit)
        doubled = 2 * digit + self.coset
        self.total = min(self.total + abs(doubled) // 2, 2)
        self.parity ^= digit % 2
        self.lean = self.lean // 2 + 4 * min(max(doubled, -8), 8)
        self.expected += self.means[place]
        self.shown += 1024 * min(abs(doubled) // 2, 4096) + 512 * self.coset


class WordWalk(Walk):
    """The same in the Leech lattice, where digits spell a word."""

    def __init__(self, classes: list[int], means: list[int], coset: int) -> None:
        super().__init__(classes, means, coset)
        self.needed = self.beyond = coset
        self.word: list[int] = []

    def word_context(self, place: int) -> tuple[int, int]:
        """Class and context of the next value; `factor` and `residue` say what it stands for."""
        which, _ = super().context(place, 2)
        y = self.coset
        self.factor, self.residue = 1, 0
        if place < 12:
            odd = sum(digit % 2 for digit in self.digits)
            if y:
                return which, 13 + self.total
            if odd:
                return which, 4 if odd == 1 else 5
            return which, 3 if self.total else place // 4
        bit = self.word[place]
        if place == 23:
            self.factor, self.residue = 4, bit + 2 * self.needed
            if self.turned:
                self.residue = (-self.residue - y) % 4
            return which, 20 + 4 * y + self.residue
        self.factor, self.residue = 2, bit ^ y if self.turned else bit
        if y:
            return which, 16 + 2 * self.residue + self.beyond
        if self.total == 0:
            return which, 12
        if any(self.word[place + 1 :]):
            return which, 6 + 3 * self.residue
        return which, 7 + 3 * self.residue + (self.needed ^ (1 if self.turned and bit else 0))

    def take_word(self, place: int, value: int) -> None:
        """One more value."""
        self.take(place, 2, self.factor * value + self.residue)
        digit = self.digits[-1]
        self.needed ^= digit // 2 % 2
        if self.coset:
            self.beyond ^= (abs(2 * digit + 1) // 2 + 1) // 2 % 2
        if place == 11:
            bits = [digit % 2 for digit in self.digits]
            lines = [line for bit, line in zip(bits, GOLAY_LINES, strict=True) if bit]
            self.word = bits + [sum(line[j] == "1" for line in lines) % 2 for j in range(12)]


class PairWalk(Walk):
    """What a pair has shown."""

    @override
    def context(self, place: int, left: int) -> tuple[int, int]:
        which, _ = super().context(place, left)
        return which, 3 * self.coset + self.total


def weights_of(census: Sequence[int], which: int, context: int) -> list[int]:
    """What the census of a class says of one of its contexts."""
    if context == 30:
        return [0] * 14 + [(256 - HALVES[which]) * 2**14, HALVES[which] * 2**14] + [0] * 44
    coset, x = divmod(context, 15)
    g = list(census)
    if coset:
        g[:28] = [census[symbol] + census[symbol + 1] for symbol in range(28)]
    numbers, escapes = range(-14, 15), range(29, NUM_SYMBOLS)
    if x < 3:
        return g
    odd = (x // 3 - 1) % 2
    if x < 9:
        halved = sum(g[29:]) // 2
        masses = [halved + sum(g[v + 14] for v in numbers if v % 2 == parity) for parity in (0, 1)]
        return [g[v + 14] * masses[(v + odd) % 2] // 2**22 for v in numbers] + [g[symbol] // 2 for symbol in escapes]
    found = []
    for v in numbers:
        z = abs(2 * v + odd)
        bucket = (z - 14).bit_length() - 1
        found.append(g[2 * v + odd + 14] if z <= 14 else g[29 + bucket] >> bucket + 1)
    return found + [g[symbol + 1] // 2 for symbol in escapes[:-1]] + [0]


def symbol_of(value: int) -> int:
    """The symbol that stands for a value, alone or with escape bits."""
    return value + 14 if abs(value) <= 14 else 28 + (abs(value) - 14).bit_length()


def clipped(log: int) -> int:
    """The class of an expected magnitude."""
    return min(max((log + 160) // 8, 0), NUM_CLASSES - 1)


TRELLISES = {5: ("T8", (3, 0b1011, 0b100)), 6: ("T64", (6, 0b1000011, 0b10100))}
CODERS = {"tensor_tables": TensorTables, "scale_classes": ScaleClasses, "runs": Runs}


class ReferenceDecoder:
    """Decodes one link's packets, for every lattice and every predictor that is not a forecaster.

    Args:
        shapes: of the layout's tensors.
        identity: coder and the digests of configuration, layout and stream, 17 bytes.
        predictors: their names; several for a combination.
        entropy: "scale_classes", "tensor_tables" or "runs".
        momentum: the decay.
        metric_decay: of the metric `adam`; `None` for the plain one.
        key: of the message authentication code.

    Attributes:
        levels: of the last coded packet.
        num_escapes: in the last coded packet.
        lattices: of the coded packets: "Z", "A2", "D4", "E8", "Leech", "T8" or "T64".
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        identity: bytes,
        predictors: Sequence[str] = ("none",),
        entropy: str = "scale_classes",
        momentum: float = 0.9,
        metric_decay: float | None = None,
        key: bytes | None = None,
    ) -> None:
        self.matrices, start = [], 0
        for shape in shapes:
            size = math.prod(shape)
            num_rows = shape[0] if len(shape) > 1 else 1
            if size:
                self.matrices.append(Matrix(start, num_rows, size // num_rows, len(shape)))
            start += size
        self.size = start
        self.identity, self.predictors, self.entropy, self.key = identity, predictors, entropy, key
        self.is_raw = identity[0] == 1
        self.decay = float32(momentum)
        self.metric_decay = None if self.is_raw else metric_decay
        self.first_chain = hashlib.blake2b(b"DR\x02" + identity, digest_size=16).digest()
        self.last_step = -1
        self.sequence = 0
        self.levels: list[int] = []
        self.num_escapes = 0
        self.lattices: list[str] = []
        self._restart()

    def _restart(self) -> None:
        self.coder = CODERS[self.entropy](self.matrices, self.size)
        if self.identity[0] in (2, 3, 4):
            self.coder = LatticePoints(self.matrices, self.size, 4 if self.identity[0] == 2 else 8)
        if self.identity[0] in TRELLISES:
            self.coder = TrellisPoints(self.matrices, self.size, TRELLISES[self.identity[0]][1])
        if self.identity[0] == 7:
            self.coder = PairPoints(self.matrices, self.size)
        if self.identity[0] == 8:
            self.coder = WordPoints(self.matrices, self.size)
        self.rows: list[list[float]] = []
        self.memory = [0.0] * self.size
        self.squares = [0.0] * self.size
        self.num_entered = 0
        self.chain = self.first_chain
        self.cell_index = 19200
        self.offsets = [0] * 12
        self.coefficients: list[list[int]] = []

    def decode(self, packet: bytes) -> list[float]:
        """The vector of the packet that is due."""
        content, checksum = packet[:-4], packet[-4:]
        is_key_frame = packet[:1] == b"D"
        chain = b"" if is_key_frame else self.chain
        if zlib.crc32(chain + content).to_bytes(4, "little") != checksum:
            raise Refused("the checksum does not fit")
        flags = content[3] if is_key_frame else content[0] - 64
        if bool(flags & 16) != (self.key is not None):
            raise Refused("the key does not fit")
        if self.key is not None:
            code, content = content[-16:], content[:-16]
            if not hmac.compare_digest(hashlib.blake2b(chain + content, key=self.key, digest_size=16).digest(), code):
                raise Refused("the authentication code does not fit")
        if is_key_frame:
            step, body = self._open_key_frame(content)
        else:
            step, body = self._open(content, flags)
        values = self._raw(body) if flags & 2 else self._coded(body)
        finite = all(math.isfinite(value) for value in values)
        if finite == bool(flags & 4):
            raise Refused("the flag for NaN does not fit")
        digest = hashlib.blake2b(self.chain + packet, digest_size=16)
        counts = [] if self.is_raw else [count for table in self.coder.counts for count in table]
        digest.update(struct.pack(f"<{len(counts)}q", *counts))
        self.chain = digest.digest()
        if finite:
            self._enter(values, coded=not flags & 2)
        self.last_step = step
        self.sequence = (self.sequence + 1) % 2**32
        return values

    def _open_key_frame(self, content: bytes) -> tuple[int, bytes]:
        if content[:3] != b"DR\x02" or content[3] & ~22 != 1:
            raise Refused("no key frame of version 2")
        if content[4:21] != self.identity:
            raise Refused("another link")
        step, place = read_varint(content, 21)
        sequence, place = read_varint(content, place)
        length, place = read_varint(content, place)
        if place + length != len(content) or not self.last_step < step <= 2**62 or sequence >= 2**32:
            raise Refused("lengths or numbers are out of range")
        self._restart()
        self.sequence = sequence
        return step, content[place:]

    def _open(self, content: bytes, flags: int) -> tuple[int, bytes]:
        if not 0 <= flags < 32 or flags & 1 or self.last_step < 0 or content[1] != self.sequence % 256:
            raise Refused("not the packet that is due")
        ahead, place = read_varint(content, 2)
        if not ahead or self.last_step + ahead > 2**62:
            raise Refused("the step is out of range")
        if bool(flags & 8) != (self.sequence % 64 == 0):
            raise Refused("a state digest at the wrong place")
        if flags & 8:
            if content[place : place + 8] != self.state_digest():
                raise Refused("another state")
            place += 16
        return self.last_step + ahead, content[place:]

    def state_digest(self) -> bytes:
        """What a packet with a state digest must say."""
        vectors = [value for row in self.rows for value in row]
        vectors += self.memory if self._keeps_momentum() else []
        vectors += [] if self.metric_decay is None else self.squares
        activity = [] if self.is_raw else self.coder.activity
        data = struct.pack(f"<{len(vectors)}f{len(activity)}i", *vectors, *activity)
        return hashlib.blake2b(data, digest_size=8).digest()

    def _raw(self, body: bytes) -> list[float]:
        if len(body) != 4 * self.size:
            raise Refused("a raw body of another size")
        return list(struct.unpack(f"<{self.size}f", body))

    def _coded(self, body: bytes) -> list[float]:
        bits = Bits(body)
        lattice = {2: "D4", 3: "E8", 5: "T8", 6: "T64", 7: "A2", 8: "Leech"}.get(self.identity[0], "Z")
        if self.identity[0] == 4 and bits.read(1):
            lattice = "E8"
        cell_index = self.cell_index + bits.number(5)
        told = {"Z": 3, "D4": 3, "A2": 12}.get(lattice, 6)
        offsets = [before + bits.number(2) for before in self.offsets[:told]] + self.offsets[told:]
        if not 0 <= cell_index < 38400 or not all(-128 <= offset <= 127 for offset in offsets):
            raise Refused("the quantiser is out of range")
        weights = None
        if self.metric_decay is not None and self.num_entered:
            floor = bits.number(5)
            if not -126 <= floor <= 126:
                raise Refused("the floor is out of range")
            weights = self._weights(floor)
        levels = [0] * len(self.matrices)
        if bits.read(1):
            levels = [bits.read(2) for _ in levels]
            if not any(levels):
                raise Refused("levels that are all 0")
        basis, blocks = self._basis(), self._blocks()
        coefficients = [0] * (len(basis) * len(blocks))
        if coefficients and bits.read(1):
            present = [bits.read(1) for _ in coefficients]
            for place in [place for place, here in enumerate(present) if here]:
                coefficients[place] = bits.number(6)
                if not 1 <= abs(coefficients[place]) <= 32767:
                    raise Refused("a coefficient is out of range")
        stack = Stack(bits.rest())
        if lattice == "Z":
            values = [2 * value for value in self._integers(self.coder.decode(stack, cell_index, levels), stack)]
        else:
            assert isinstance(self.coder, LatticePoints)
            values = self.coder.decode_points(stack, cell_index, levels)
            self.num_escapes = self.coder.num_escapes
        stack.finish()
        self.lattices.append(lattice)

        self.coefficients = [
            coefficients[start : start + len(basis)] for start in range(0, len(coefficients), max(len(basis), 1))
        ]
        self.prediction = self._combined(basis)
        decoded = list(self.prediction)
        if weights:
            decoded = self._combined(
                [[float32(value / weight) for value, weight in zip(column, weights, strict=True)] for column in basis]
            )
        self.cell_index, self.offsets, self.levels = cell_index, offsets, levels
        width = math.ldexp(128 + cell_index % 128, cell_index // 128 - 167)
        steps = {"D4": (215 / 256,), "A2": (275 / 256, 476 / 256), "Leech": (181 / 256,)}.get(lattice, (1,))
        for part, level in zip(self.matrices, levels, strict=True):
            for place in part.places:
                doubled, sign = abs(values[place]), (values[place] > 0) - (values[place] < 0)
                axis = (place - part.start) % len(steps)
                own = offsets[6 * axis : 6 * axis + 6]
                centroid = own[min(doubled // 2 + 3, 5)] if doubled % 2 else [0, *own][min(doubled // 2, 3)]
                residual = float32(sign * (doubled / 2 + centroid / 128) * (width * steps[axis]))
                decoded[place] = float32(decoded[place] + float32(residual * 2**level))
        if weights:
            decoded = [float32(value * weight) for value, weight in zip(decoded, weights, strict=True)]
        return decoded

    def _combined(self, basis: list[list[float]]) -> list[float]:
        prediction = [0.0] * self.size
        for block, row in zip(self._blocks(), self.coefficients, strict=False):
            for column, units in zip(basis, row, strict=True):
                for place in block if units else ():
                    prediction[place] = float32(prediction[place] + float32(column[place] * (units / 256)))
        return prediction

    def _weights(self, floor: int) -> list[float]:
        assert self.metric_decay is not None
        lacking = float32(1 - self.metric_decay**self.num_entered)
        return [
            float32(math.sqrt(float32(min(float32(mean / lacking), 2.0**126) + 2.0**floor))) for mean in self.squares
        ]

    def _integers(self, symbols: list[int], stack: Stack) -> list[int]:
        num_bits = sum(max(symbol - 28, 0) for symbol in symbols)
        self.num_escapes = sum(symbol > 28 for symbol in symbols)
        bits = Bits(bytes(stack.decode(uniform(256)) for _ in range((num_bits + 7) // 8)))
        values = [symbol - 14 for symbol in symbols]
        for place in self.coder.order:
            if symbols[place] > 28:
                negative = bits.read(1)
                magnitude = 14 + (1 << symbols[place] - 29) + bits.read(symbols[place] - 29)
                values[place] = -magnitude if negative else magnitude
        bits.rest()
        return values

    def _blocks(self) -> list[range]:
        if self.predictors[0] in ("momentum_norm", "momentum_projected", "ef21"):
            return [range(self.size)]
        return [part.places for part in self.matrices]

    def _keeps_momentum(self) -> bool:
        with_momentum = {"momentum", "fitted", "adaptive_momentum", "momentum_norm", "momentum_projected"}
        return not self.is_raw and not with_momentum.isdisjoint(self.predictors)

    def _basis(self) -> list[list[float]]:
        found = []
        for name in self.predictors:
            if name in LAGS and len(self.rows) >= LAGS[name]:
                found.append(self.rows[-LAGS[name]])
            if name in ("momentum", "momentum_norm", "momentum_projected") and self.num_entered:
                found.append(self.memory)
            if name in ("fitted", "adaptive_momentum") and self.num_entered > 1:
                found.append(self.memory)
        return found

    def _enter(self, values: list[float], coded: bool) -> None:
        num_rows = 0 if self.is_raw else max(LAGS.get(name, 0) for name in self.predictors)
        self.rows = [*self.rows, values][-num_rows:] if num_rows else []
        self.num_entered += 1
        rest = float32(1 - self.decay)
        self.memory = [
            float32(float32(mean * self.decay) + float32(value * rest))
            for mean, value in zip(self.memory, values, strict=True)
        ]
        if self.metric_decay is not None:
            decay = float32(self.metric_decay)
            rest = float32(1 - decay)
            self.squares = [
                min(float32(float32(float32(value * value) * rest) + float32(mean * decay)), 2.0**126)
                for mean, value in zip(self.squares, values, strict=True)
            ]
        if self.predictors[0] == "adaptive_momentum" and coded:
            for block, row in zip(self._blocks(), self.coefficients, strict=False):
                if any(row):
                    for place in block:
                        self.memory[place] = self.prediction[place]
