"""A neural graph as a picture: columns of neurons in computing order, a ribbon for each block of edges."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from ...forecast.graph import EdgeBlock, NeuralGraph
from ..plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION

COLOURS = {
    "dense": BLUE,
    "conv": SKY,
    "query": ORANGE,
    "key": VERMILION,
    "value": GREEN,
    "embedding": PURPLE,
    "position": "#a6761d",
    "norm": "#c9a800",
    "bias": GREY,
    "residual": INK,
    "head": "#7f3c8d",
}
STEP, LANE, MARGIN = 118, 150, 46  # pixels between columns, between lanes, around everything
BAR, TALLEST = 16, 92  # width of a column and height of the largest
MAX_COLUMNS = 60  # more cannot be read; the rest is left out and said


@dataclass(frozen=True)
class Place:
    """Where a column is drawn: its middle and its height."""

    x: float
    y: float
    height: float


@dataclass(frozen=True)
class Fold:
    """A run of columns that repeats.

    Attributes:
        begin: first column of the first repeat.
        length: columns of one repeat.
        count: how often it comes.
    """

    begin: int
    length: int
    count: int


def draw_graph(graph: NeuralGraph, title: str, *, fold: bool = True) -> str:
    """The SVG text of a neural graph.

    Groups of neurons are bars whose height grows with the logarithm of their number. Bias and norm nodes are dots below
    the neurons they lead to. Residual connections are arcs above. Runs of blocks that repeat are drawn once.

    Args:
        graph: what to draw.
        title: the headline.
        fold: whether to draw repeats once.
    """
    columns = [n for n, group in enumerate(graph.nodes) if group.kind not in ("constant", "heads")]
    found = find_fold(graph, columns) if fold else None
    hidden: set[int] = set()
    if found is not None:
        hidden |= set(columns[found.begin + found.length : found.begin + found.length * found.count])
    shown = [n for n in columns if n not in hidden]
    left_out = len(shown) - MAX_COLUMNS
    shown = shown[:MAX_COLUMNS]
    alias = _aliases(columns, found)
    places = _places(graph, shown, alias)
    width = max(place.x for place in places.values()) + STEP
    top = min(place.y - place.height / 2 for place in places.values())
    bottom = max(place.y + place.height / 2 for place in places.values())
    arcs, lines, seen = list[str](), list[str](), set[tuple[int, int, str]]()
    arc_top = top
    for block in graph.blocks:
        source, target = block.source, block.target
        if (source if block.kind == "key" else target) in alias:
            continue  # into a repeat that is not drawn
        source, target = alias.get(source, source), alias.get(target, target)
        if source not in places or target not in places or (source, target, block.kind) in seen:
            continue
        seen.add((source, target, block.kind))
        if block.kind == "residual" and abs(places[source].x - places[target].x) > STEP:
            text, height = _arc(places[source], places[target], top)
            arcs.append(text)
            arc_top = min(arc_top, height)
        else:
            lines.append(_ribbon(block, places[source], places[target]))
    dots = _dots(graph, places)
    bars = [_bar(graph, number, place) for number, place in places.items()]
    frame = _fold_frame(found, columns, places, arc_top) if found is not None else ""
    remarks = [f"{left_out} more columns are not drawn"] if left_out > 0 else []
    legend, legend_height = _legend(graph, remarks, bottom + 92, width)
    first_y = arc_top - 74
    height = bottom + 92 + legend_height + 20 - first_y
    head = (
        f'<text x="{MARGIN}" y="{first_y + 26:.0f}" font-size="17" font-weight="bold">{escape(title)}</text>'
        f'<text x="{MARGIN}" y="{first_y + 45:.0f}" font-size="12" fill="{GREY}">{graph.num_nodes:,} nodes, '
        f"{graph.num_edges:,} edges; computed from left to right</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {first_y:.0f} {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="DejaVu Sans, Arial, sans-serif" fill="{INK}">'
        f'<rect x="0" y="{first_y:.0f}" width="{width:.0f}" height="{height:.0f}" fill="white"/>'
        + "\n".join([head, frame, *lines, *arcs, *dots, *bars, legend])
        + "</svg>\n"
    )


def find_fold(graph: NeuralGraph, columns: Sequence[int]) -> Fold | None:
    """The repeating run of columns that saves most, told from sizes and kinds of edges; None if nothing repeats."""
    edges: dict[int, list[str]] = {}
    for block in graph.blocks:
        target, other = (block.source, block.target) if block.kind == "key" else (block.target, block.source)
        edges.setdefault(target, []).append(f"{block.kind}{block.slots}{graph.nodes[other].size}")
    marks = [f"{graph.nodes[n].kind}{graph.nodes[n].size}{sorted(edges.get(n, []))}" for n in columns]
    best: Fold | None = None
    for length in range(1, len(marks) // 2 + 1):
        for begin in range(len(marks) - 2 * length + 1):
            count = 1
            while marks[begin + count * length : begin + (count + 1) * length] == marks[begin : begin + length]:
                count += 1
            saved = (count - 1) * length
            if count > 1 and saved > 2 and (best is None or saved > (best.count - 1) * best.length):
                best = Fold(begin, length, count)
    return best


def _aliases(columns: Sequence[int], fold: Fold | None) -> dict[int, int]:
    """Which drawn column stands for each hidden one: the same one of the first repeat."""
    if fold is None:
        return {}
    first = columns[fold.begin : fold.begin + fold.length]
    hidden = columns[fold.begin + fold.length : fold.begin + fold.length * fold.count]
    return {number: first[place % fold.length] for place, number in enumerate(hidden)}


def _places(graph: NeuralGraph, shown: Sequence[int], alias: dict[int, int]) -> dict[int, Place]:
    """Columns from left to right by the longest way to them, side by side in lanes where they are computed together."""
    ranks = dict.fromkeys(shown, 0)
    for _ in shown:
        before = dict(ranks)
        for block in graph.blocks:
            source, target = (block.source, block.target) if block.kind != "key" else (block.target, block.source)
            source, target = alias.get(source, source), alias.get(target, target)
            if source in ranks and target in ranks and source < target:
                ranks[target] = max(ranks[target], ranks[source] + 1)
        if before == ranks:
            break
    for number in shown:  # sources that are read late stand just before their first reader
        readers = [ranks[b.target] for b in graph.blocks if b.source == number and ranks.get(b.target, 0) > 0]
        if readers and not any(b.target == number for b in graph.blocks):
            ranks[number] = max(0, min(readers) - 1)
    lanes: dict[int, list[int]] = {}
    for number in shown:
        lanes.setdefault(ranks[number], []).append(number)
    largest = max(graph.nodes[n].size for n in shown)
    places: dict[int, Place] = {}
    for rank, members in lanes.items():
        for lane, number in enumerate(members):
            share = math.log2(1 + graph.nodes[number].size) / math.log2(1 + largest)
            y = (lane - (len(members) - 1) / 2) * LANE
            places[number] = Place(MARGIN + STEP / 2 + rank * STEP, y, max(12.0, TALLEST * share))
    return {number: places[number] for number in shown}


def _ribbon(block: EdgeBlock, source: Place, target: Place) -> str:
    colour = COLOURS[block.kind]
    about = f"<title>{escape(_about(block))}</title>"
    if source is target:  # recurrent
        x, y, high = source.x, source.y - source.height / 2, source.height / 2
        return (
            f'<path d="M {x + 4} {y} C {x + 46} {y - high - 26}, {x - 46} {y - high - 26}, {x - 4} {y}" fill="none" '
            f'stroke="{colour}" stroke-width="5" stroke-opacity="0.55">{about}</path>'
        )
    if block.kind == "residual":
        return (
            f'<path d="M {source.x:.1f} {source.y:.1f} L {target.x:.1f} {target.y:.1f}" stroke="{colour}" '
            f'stroke-width="1.6" stroke-dasharray="6 3">{about}</path>'
        )
    side = 1 if target.x >= source.x else -1
    x1, x2 = source.x + side * BAR / 2, target.x - side * BAR / 2
    if source.x == target.x:
        x1 = x2 = source.x + BAR / 2
    middle = (x1 + x2) / 2 if x1 != x2 else x1 + 40
    narrow = 0.42 if block.kind in ("query", "key", "value") else 0.5
    shift = {"query": -0.2, "key": 0.2}.get(block.kind, 0.0)
    top1, end1 = source.y + source.height * (shift - narrow / 2), source.y + source.height * (shift + narrow / 2)
    top2, end2 = target.y + target.height * (shift - narrow / 2), target.y + target.height * (shift + narrow / 2)
    # what passes other columns at their own height goes below them
    bend = 1.3 * TALLEST if abs(x2 - x1) > STEP and abs(source.y - target.y) < 1 else 0.0
    there = f"C {middle:.1f} {top1 + bend:.1f}, {middle:.1f} {top2 + bend:.1f}, {x2:.1f} {top2:.1f}"
    back = f"C {middle:.1f} {end2 + bend:.1f}, {middle:.1f} {end1 + bend:.1f}, {x1:.1f} {end1:.1f}"
    return (
        f'<path d="M {x1:.1f} {top1:.1f} {there} L {x2:.1f} {end2:.1f} {back} Z" '
        f'fill="{colour}" fill-opacity="0.38" stroke="{colour}" stroke-opacity="0.7">{about}</path>'
    )


def _about(block: EdgeBlock) -> str:
    grouped = f", {block.groups} groups" if block.groups > 1 else ""
    slots = f" x {block.slots}" if block.slots > 1 else ""
    return f"{block.kind} {block.parameter or ''} {block.num_sources} to {block.num_targets}{slots}{grouped}"


def _arc(source: Place, target: Place, top: float) -> tuple[str, float]:
    """An arc over what lies between, and how high it gets."""
    reach = abs(target.x - source.x)
    height = top - 12 - 0.1 * reach
    begin, end = source.y - source.height / 2, target.y - target.height / 2
    control = height - (min(begin, end) - height) / 3
    text = (
        f'<path d="M {source.x:.1f} {begin:.1f} C {source.x:.1f} {control:.1f}, {target.x:.1f} {control:.1f}, '
        f'{target.x:.1f} {end:.1f}" fill="none" stroke="{COLOURS["residual"]}" stroke-width="1.6" '
        f'stroke-dasharray="6 3"><title>residual</title></path>'
    )
    return text, control * 0.75 + 0.25 * min(begin, end)


def _dots(graph: NeuralGraph, places: dict[int, Place]) -> list[str]:
    """Bias and norm nodes below, and head nodes above the columns that they lead to."""
    kinds: dict[int, list[str]] = {}
    for block in graph.blocks:
        if graph.nodes[block.source].kind in ("constant", "heads") and block.target in places:
            kinds.setdefault(block.target, []).append(block.kind)
    texts: list[str] = []
    for number, found in kinds.items():
        place = places[number]
        below = [kind for kind in found if kind != "head"][:8]
        for index, kind in enumerate(below):
            x, y = place.x + (index - (len(below) - 1) / 2) * 11, place.y + place.height / 2 + 15
            end = f"{place.x:.1f} {place.y + place.height / 2:.1f}"
            texts.append(
                f'<path d="M {x:.1f} {y:.1f} L {end}" stroke="{COLOURS[kind]}" stroke-width="1.4"/>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{COLOURS[kind]}"><title>{kind}</title></circle>'
            )
        if "head" in found:
            x, y = place.x, place.y - place.height / 2 - 16
            heads = next(b for b in graph.blocks if b.kind == "head" and b.target == number)
            count = graph.nodes[heads.source].size
            texts.append(
                f'<path d="M {x:.1f} {y + 5:.1f} L {x:.1f} {y + 16:.1f}" stroke="{COLOURS["head"]}"/>'
                f'<path d="M {x} {y - 5} L {x + 5} {y} L {x} {y + 5} L {x - 5} {y} Z" fill="{COLOURS["head"]}"/>'
                f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" font-size="10">{count} heads</text>'
            )
    return texts


def _bar(graph: NeuralGraph, number: int, place: Place) -> str:
    group = graph.nodes[number]
    free = any(not graph.axes[axis].pinned for axis in group.axes)
    fill = "#eef3f8" if free else "#d4d4d4"
    x, y = place.x - BAR / 2, place.y - place.height / 2
    lines = _name_lines(group.name if group.kind != "input" else "input")
    label = "".join(
        f'<text x="{place.x:.1f}" y="{y + place.height + 33 + 12 * row:.1f}" font-size="10" text-anchor="middle">'
        f"{escape(line)}</text>"
        for row, line in enumerate(lines)
    )
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{BAR}" height="{place.height:.1f}" rx="5" fill="{fill}" stroke="{INK}">'
        f"<title>{escape(f'{group.name}: {group.size} {group.kind}')}</title></rect>"
        f'<text x="{place.x:.1f}" y="{place.y + 4:.1f}" font-size="11" font-weight="bold" text-anchor="middle" '
        f'stroke="white" stroke-width="3" paint-order="stroke">{group.size}</text>{label}'
    )


def _name_lines(name: str) -> list[str]:
    """The end of a dotted name, on at most two lines."""
    parts = [part for part in name.split(".") if part]
    lines = [".".join(parts[-2:-1]), *parts[-1:]] if len(parts) > 1 else parts
    return [line if len(line) <= 17 else line[:16] + "…" for line in lines if line]


def _fold_frame(fold: Fold, columns: Sequence[int], places: dict[int, Place], top: float) -> str:
    members = [places[n] for n in columns[fold.begin : fold.begin + fold.length] if n in places]
    if not members:
        return ""
    left, right = min(p.x for p in members) - STEP * 0.42, max(p.x for p in members) + STEP * 0.42
    bottom = max(p.y + p.height / 2 for p in members) + 62
    return (
        f'<rect x="{left:.1f}" y="{top - 8:.1f}" width="{right - left:.1f}" height="{bottom - top + 8:.1f}" rx="10" '
        f'fill="#f7f7f2" stroke="{GREY}" stroke-dasharray="2 4"/>'
        f'<text x="{right - 8:.1f}" y="{top + 8:.1f}" font-size="13" font-weight="bold" text-anchor="end">'
        f"{fold.count} times</text>"
    )


def _legend(graph: NeuralGraph, remarks: Sequence[str], top: float, width: float) -> tuple[str, float]:
    """What the colours mean, with numbers of edges, in as many rows as the width asks for."""
    counts: dict[str, int] = {}
    for block in graph.blocks:
        counts[block.kind] = counts.get(block.kind, 0) + block.num_edges
    entries = [(COLOURS[kind], f"{kind} {count:,}") for kind, count in counts.items()]
    entries += [("#eef3f8", "may be permuted"), ("#d4d4d4", "pinned")]
    if graph.unexplained:
        remarks = [*remarks, f"{len(graph.unexplained)} tensors have no edges"]
    per_row = max(1, int((width - MARGIN) // 165))
    texts: list[str] = []
    for number, (colour, text) in enumerate(entries):
        x, y = MARGIN + number % per_row * 165, top + number // per_row * 20
        texts.append(
            f'<rect x="{x}" y="{y - 9:.1f}" width="12" height="10" fill="{colour}" stroke="{INK}" stroke-width="0.5"/>'
            f'<text x="{x + 18}" y="{y:.1f}" font-size="11">{escape(text)}</text>'
        )
    rows = -(-len(entries) // per_row)
    for number, remark in enumerate(remarks):
        y = top + (rows + number) * 20
        texts.append(f'<text x="{MARGIN}" y="{y:.1f}" font-size="11" fill="{GREY}">{escape(remark)}</text>')
    return "".join(texts), (rows + len(remarks)) * 20
