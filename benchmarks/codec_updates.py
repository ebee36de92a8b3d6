"""What prediction saves on Adam's updates, beyond coding gradients with error feedback at equal error of the update.

An Adam step is a smoothed gradient, so neighbouring updates are alike, and a predictor saves much of them. But whoever
codes the gradient, with leaky error feedback at Adam's own decay, lets the receiver's Adam do that smoothing: what is
coded late still enters the mean. Coding Adam's first moment with beta1 times the last one as prediction even gives the
same symbols. So only what is saved beyond that is due to prediction.

Both start from the Adam state recorded before the window's first step. On each stream:

    updates, fitted     the recorded updates, coded with the default predictor at each NMSE
    updates, none       the same without prediction
    gradients, plain    the recorded gradients, no prediction, leaky feedback of decay beta1, `mean_rate`; the receiver
                        runs Adam on what it decodes, and the error is that of its steps against the recorded ones
    gradients, adam     the same with `metric="adam"`: errors over the second moment count, as they do in the step

Gradients are coded at the bits that `updates, fitted` took, and at `MULTIPLES` of the most of these, so that their bits
at its NMSE can be read off the line between neighbours on logarithmic scales. Bits and errors are means over packets
without the first ten. The receiver's second moment is made from decoded gradients; `true v` says what the error were
with that of the true ones. `sum` is the error of the sum of all updates, that is of where the weights end.

Run: `python benchmarks/codec_updates.py --streams FOLDER --packets 24 --json rows.json --text table.txt`, where FOLDER
was made by `record_streams.py`.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from codec_rate import ERRORS, Errors, contestant_named
from codec_replay import Contestant, Link, Packet, replay, spread, steps_of
from codec_tables import WARM_UP, geometric_mean, parser_with_streams, provenance, report, write
from numpy.typing import NDArray
from record_streams import RecordedWindow, recorded_windows

from deadreckon.codec import Codec, CodecConfig
from deadreckon.forecast import Layout

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # PyTorch's defaults, which the streams were recorded with
PREDICTORS = ("fitted", "none")
METRICS = ("plain", "adam")
MULTIPLES = (2.0, 4.0)
FIRST_NMSE = 0.1  # of the first packet; a coarse one would leave its error in the second moment for long
LARGEST_DIFFERENCE = 1e-6  # NMSE of Adam run here against the recorded updates; float32 leaves about 1e-11

Vectors = NDArray[Any]


class Adam:
    """Adam's steps in float64, from a recorded state.

    Args:
        moments: running means of gradients and of their squares, `[2, param]`.
        num_steps: taken before.
        learning_rate: constant.
    """

    def __init__(self, moments: Vectors, num_steps: int, learning_rate: float) -> None:
        self.mean, self.square = moments.astype(np.float64)
        self._num_steps = num_steps
        self._learning_rate = learning_rate

    def update(self, gradient: Vectors, square_from: Vectors | None = None) -> Vectors:
        """The next step's change of the weights, `[param]`.

        Args:
            gradient: `[param]`.
            square_from: the gradient whose squares enter the second moment, if that is another.
        """
        gradient = gradient.astype(np.float64)
        squared = gradient if square_from is None else square_from.astype(np.float64)
        self._num_steps += 1
        self.mean = BETA1 * self.mean + (1 - BETA1) * gradient
        self.square = BETA2 * self.square + (1 - BETA2) * squared**2
        mean = self.mean / (1 - BETA1**self._num_steps)
        square = self.square / (1 - BETA2**self._num_steps)
        return -self._learning_rate * mean / (np.sqrt(square) + EPSILON)


def adam_of(window: RecordedWindow) -> Adam:
    """Adam as it was before the window's first step."""
    about = window.metadata
    return Adam(window.load("moments"), about.first_step, about.learning_rate)


@dataclass(frozen=True)
class Row:
    """One way of sending one stream at one setting.

    Attributes:
        stream: name of the window.
        sent: `updates` or `gradients`.
        how: predictor of updates, metric of gradients.
        asked: NMSE of updates, bits a coordinate of gradients.
        packets: all.
        bits: a coordinate, without the first packets.
        nmse: of the update, mean over the same packets.
        true_v_nmse: of the update if the receiver knew the true second moment.
        sum_nmse: of the sum of all updates.
    """

    stream: str
    sent: str
    how: str
    asked: float
    packets: int
    bits: float
    nmse: float
    true_v_nmse: float
    sum_nmse: float


class Case(NamedTuple):
    """One stream."""

    window: RecordedWindow
    num_packets: int


def gradient_codec(layout: Layout, bits: float, metric: str) -> Link:
    """No prediction, leaky feedback of Adam's decay, and a mean rate."""
    feedback = {"feedback": "leaky", "feedback_decay": BETA1}
    rate = {"hold": "mean_rate", "bits": bits, "nmse": FIRST_NMSE}
    return Codec(layout, CodecConfig(predictor="none", lattice="Z", metric=metric, **feedback, **rate))


def gradient_contestant(metric: str) -> Contestant:
    """The contestant of a metric; where others take an NMSE, it takes bits."""
    return partial(gradient_codec, metric=metric)


def late(values: Sequence[float]) -> float:
    """The mean without the first packets."""
    return sum(values[WARM_UP:]) / len(values[WARM_UP:])


def late_bits(packets: Sequence[Packet], size: int) -> float:
    """A coordinate."""
    return late([packet.num_bits / size for packet in packets])


def send_updates(case: Case, updates: Vectors, predictor: str, nmse: float) -> Row:
    """The updates themselves."""
    window, errors, packets = case.window, Errors(), list[Packet]()
    steps = steps_of(window, "updates")
    found = replay(updates, steps, window.layout, predictor, nmse, contestant_named)
    for (packet, decoded), update in zip(found, updates, strict=True):
        packets.append(packet)
        errors.add(update, decoded.numpy())
    bits, error = late_bits(packets, window.layout.size), late(errors.sent)
    return Row(window.name, "updates", predictor, nmse, len(packets), bits, error, error, errors.of_sum)


def send_gradients(case: Case, gradients: Vectors, updates: Vectors, metric: str, bits: float) -> Row:
    """The gradients, from which the receiver makes updates."""
    window, packets = case.window, list[Packet]()
    receiver, with_true_square = adam_of(window), adam_of(window)
    errors, true_v = Errors(), Errors()
    steps = steps_of(window, "gradients")
    found = replay(gradients, steps, window.layout, metric, bits, gradient_contestant)
    for (packet, decoded), gradient, update in zip(found, gradients, updates, strict=True):
        packets.append(packet)
        errors.add(update, receiver.update(decoded.numpy()))
        true_v.add(update, with_true_square.update(decoded.numpy(), gradient))
    found_bits = late_bits(packets, window.layout.size)
    return Row(
        *(window.name, "gradients", metric, bits, len(packets), found_bits),
        *(late(errors.sent), late(true_v.sent), errors.of_sum),
    )


def measure(case: Case) -> list[Row]:
    """All ways of sending one stream."""
    window = case.window
    gradients, updates = (window.load(kind)[: case.num_packets] for kind in ("gradients", "updates"))
    check(window, gradients, updates)
    rows = [send_updates(case, updates, predictor, nmse) for predictor, nmse in itertools.product(PREDICTORS, ERRORS)]
    rates = [row.bits for row in rows if row.how == "fitted"]
    rates += [multiple * max(rates) for multiple in MULTIPLES]
    return rows + [
        send_gradients(case, gradients, updates, metric, bits) for metric, bits in itertools.product(METRICS, rates)
    ]


def check(window: RecordedWindow, gradients: Vectors, updates: Vectors) -> None:
    """Adam on the recorded gradients must give the recorded updates.

    Raises:
        AssertionError: if it does not: the state or the learning rate is not the one that they were recorded with.
    """
    adam, errors = adam_of(window), Errors()
    for gradient, update in zip(gradients, updates, strict=True):
        errors.add(update, adam.update(gradient))
    if not max(errors.sent) < LARGEST_DIFFERENCE:
        raise AssertionError(f"Adam's steps on {window.name} are not the recorded ones: NMSE {max(errors.sent)}.")


class Credit(NamedTuple):
    """What is due to prediction on one stream at one error; bits are a coordinate.

    Attributes:
        nmse: of the update.
        fitted: bits of updates with prediction.
        none: of updates without.
        gradients: of the better of the two gradient coders at the same error; a lower bound where it is not reached.
        is_bound: whether that is a lower bound.
        same_bits: the error of the better gradient coder at the bits of `fitted`; NaN outside of what was measured.
    """

    nmse: float
    fitted: float
    none: float
    gradients: float
    is_bound: bool
    same_bits: float

    @property
    def saved(self) -> float:
        """Bits fewer than updates without prediction."""
        return self.none - self.fitted

    @property
    def credited(self) -> float:
        """Bits fewer than the better of the two ways without prediction; negative where prediction loses."""
        return min(self.none, self.gradients) - self.fitted


def credit(rows: Sequence[Row], nmse: float) -> Credit:
    """Of one stream's rows, at the error asked for."""

    def of(sent: str, how: str) -> list[Row]:
        return [row for row in rows if (row.sent, row.how) == (sent, how)]

    (fitted,) = (row for row in of("updates", "fitted") if row.asked == nmse)
    (none,) = (row for row in of("updates", "none") if row.asked == nmse)
    curves = [envelope(of("gradients", metric)) for metric in METRICS]
    reached = [at(curve, "nmse", fitted.nmse, "bits") for curve in curves]
    needed = [bits for bits in reached if bits is not None]
    gradients = min(needed) if needed else min(curve[-1].bits for curve in curves)
    same = [error for curve in curves if (error := at(curve, "bits", fitted.bits, "nmse")) is not None]
    return Credit(fitted.nmse, fitted.bits, none.bits, gradients, not needed, min(same, default=math.nan))


def envelope(rows: Sequence[Row]) -> list[Row]:
    """The rows by bits, without those that cost more than another and are no better."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: row.bits):
        if not kept or row.nmse < kept[-1].nmse:
            kept.append(row)
    return kept


def at(curve: Sequence[Row], given: str, value: float, wanted: str) -> float | None:
    """Where a curve passes a value, straight between neighbours on logarithmic scales; None outside of it."""
    for one, other in itertools.pairwise(curve):
        low, high = sorted((one, other), key=lambda row: getattr(row, given))
        first, last = getattr(low, given), getattr(high, given)
        if first <= value <= last and first < last:
            share = math.log(value / first) / math.log(last / first)
            return getattr(low, wanted) ** (1 - share) * getattr(high, wanted) ** share
    return None


def table_text(rows: Sequence[Row]) -> Iterator[str]:
    """The tables, line by line."""
    streams = list(dict.fromkeys(row.stream for row in rows))
    width = max(len(name) for name in streams)
    for nmse in ERRORS:
        credits = {name: credit([row for row in rows if row.stream == name], nmse) for name in streams}
        yield f"update at NMSE {nmse:g}, bits a coordinate; at equal NMSE unless it says otherwise"
        heads = ("none", "fitted", "gradients", "saved", "credited", "NMSE of gradients at the bits of fitted")
        yield f"{'':{width}s} " + " ".join(f"{head:>10s}" for head in heads)
        for name, found in credits.items():
            gradients = f"{'>' if found.is_bound else ''}{found.gradients:.4f}"
            bound = ">" if found.is_bound and found.gradients < found.none else ""
            credited = f"{bound}{found.credited:.4f}"
            yield (
                f"{name:{width}s} {found.none:10.4f} {found.fitted:10.4f} {gradients:>10s} {found.saved:10.4f} "
                f"{credited:>10s} {found.same_bits:10.4f}"
            )
        whole = list(credits.values())
        saved = sum(found.saved for found in whole) / len(whole)
        credited = sum(found.credited for found in whole) / len(whole)
        ratio = geometric_mean([found.fitted / min(found.none, found.gradients) for found in whole])
        yield f"mean: saved {saved:.4f}, of which credited to prediction {credited:.4f} bits a coordinate; " + (
            f"fitted takes {ratio:.4f} times the bits of the better way without prediction"
        )
        yield ""
    yield "all ways, geometric means over streams"
    heads = ("bits", "NMSE", "true v", "sum")
    yield f"{'':24s} " + " ".join(f"{head:>9s}" for head in heads)
    for sent, how in (*(("updates", how) for how in PREDICTORS), *(("gradients", how) for how in METRICS)):
        mine = [[row for row in rows if (row.stream, row.sent, row.how) == (name, sent, how)] for name in streams]
        for index, group in enumerate(zip(*mine, strict=True)):
            label = f"{ERRORS[index]:g}" if sent == "updates" else gradient_label(index)
            attributes = ("bits", "nmse", "true_v_nmse", "sum_nmse")
            means = [geometric_mean([getattr(row, attribute) for row in group]) for attribute in attributes]
            yield f"{f'{sent}, {how}, {label}':24s} " + " ".join(f"{mean:9.4f}" for mean in means)


def gradient_label(index: int) -> str:
    """What a rate of gradients is equal to."""
    if index < len(ERRORS):
        return f"={ERRORS[index]:g}"
    return f"x{MULTIPLES[index - len(ERRORS)]:g}"


def main() -> None:
    parser = parser_with_streams("What prediction saves on Adam's updates, beyond gradients with leaky feedback.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    windows = recorded_windows(arguments.streams, arguments.only)
    cases = [Case(window, arguments.packets) for window in windows if {"updates", "moments"} <= set(window.kinds)]
    rows: list[Row] = []
    for found in spread(measure, cases, arguments.jobs):
        rows += found
        print(f"{len(rows)} rows, {found[0].stream}", file=sys.stderr, flush=True)
    about = provenance()
    write({**about, "rows": [asdict(row) for row in rows]}, arguments.json)
    report(table_text(rows), about, arguments.text)


if __name__ == "__main__":
    main()
