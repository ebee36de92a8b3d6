"""Seconds and memory of one forecast of ten million parameters, for every forecaster.

Each forecaster runs in a process of its own: it is made with its default options, fitted on a small network if it has
to be, and then forecasts, mean and scale, at one horizon for a network of a dozen tensors. Seconds are the
best of three, by the clock and of CPU time: on a shared machine only the latter says what the work costs, and only with
one thread, because threads that wait for each other count too. Memory is the growth of the process's resident set to
its peak, in copies of the parameter vector: mean and scale are two of them, the window itself is not counted. What is
bound to the layout that it was fitted to cannot be measured like this; the reason is printed. Where a forecaster needs
the network's neural graph it gets one that is traced beforehand; the trace is not timed.

Run: `python benchmarks/forecaster_speed.py`, or with names of forecasters. Without names it writes
`forecaster_speed.txt`.
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import Forecaster, ForecastError, Layout, Moments, Window, layout_of
from deadreckon.forecast.case import Case
from deadreckon.forecast.graph import NeuralGraph, trace_graph
from deadreckon.models import Budget, FittableForecaster, fit_forecaster, forecaster_names, make_forecaster

SPACING, HORIZON, REPEATS = 10, 50, 3
FIT_ROWS, FIT_HORIZONS = 45, (10, 50, 200)
SECONDS_ALLOWED = 300


class Network(nn.Module):
    """An embedding, convolutions, a norm and a head; only its layout and its graph count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8 * width, width)
        self.first = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3)
        self.wide = nn.Linear(4 * width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 10)

    @override
    def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
        seen = self.second(self.norm(self.first(images)).relu()).mean(dim=(2, 3))
        both = torch.cat((self.embedding(tokens), seen, seen, seen), dim=1)
        return self.head(self.narrow(self.wide(both).relu()).relu())


def graph_of(network: Network) -> NeuralGraph:
    return trace_graph(network, (torch.zeros(1, dtype=torch.int64), torch.randn(1, 3, 6, 6)))


def rows_of(layout: Layout, num_rows: int, generator: torch.Generator) -> Tensor:
    """Drift that slows down, with noise, about a random start."""
    start = torch.randn(layout.size, generator=generator) * 0.05
    velocity = torch.randn(layout.size, generator=generator) * 0.01
    rows = torch.empty(num_rows, layout.size)
    for index in range(num_rows):
        rows[index] = start + velocity * (1 - 0.9**index) * 10
        rows[index] += torch.randn(layout.size, generator=generator) * 0.002
    return rows


def window_of(
    layout: Layout, rows: Tensor, first_step: int, forecaster: Forecaster, graph: NeuralGraph | None
) -> Window:
    steps = torch.arange(len(rows)) * SPACING + first_step
    moments = None
    if forecaster.needs_moments:
        first = rows[-1] * 1e-2
        moments = Moments(first, first.square() * 4, 1000, torch.tensor(1e-3), 0.9, 0.999, 1e-8, 0.01)
    return Window(rows, steps, layout, forecaster.stream, moments=moments, graph=graph)


def measured(name: str, threads: int) -> dict[str, object]:
    """One forecaster's figures, or why there are none; run in a process of its own."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    forecaster = make_forecaster(name)
    small = layout_of(Network(8))
    graph = graph_of(Network(8)) if forecaster.needs_graph else None
    rows = rows_of(small, FIT_ROWS, generator)
    cases: list[Case] = []
    for last in range(forecaster.history, FIT_ROWS - FIT_HORIZONS[-1] // SPACING):
        history = rows[last - forecaster.history : last]
        window = window_of(small, history, last * SPACING, forecaster, graph)
        cases.append(Case(window, {horizon: rows[last - 1 + horizon // SPACING] for horizon in FIT_HORIZONS}))
    if isinstance(forecaster, FittableForecaster):
        fit_forecaster(forecaster, cases, Budget(iterations=20), generator)
    list(forecaster.forecast(cases[0].window, [HORIZON]))  # warm: libraries are loaded, threads started

    large = layout_of(Network(520))
    graph = graph_of(Network(520)) if forecaster.needs_graph else None
    num_rows = max(5, forecaster.history)
    rows = rows_of(large, num_rows, generator)
    window = window_of(large, rows, 0, forecaster, graph)
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    copies: list[float] = []
    for _ in range(REPEATS):
        before = resident("VmRSS", reset_peak=True)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        try:
            forecast = next(forecaster.forecast(window, [HORIZON]))
        except ForecastError as error:
            return {"reason": str(error)}
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu_begin)
        copies.append((resident("VmHWM") - before) / (4 * large.size))
        del forecast
    return {
        "history": forecaster.history,
        "parameters": large.size,
        "tensors": len(large),
        "seconds": min(seconds),
        "cpu_seconds": min(cpu_seconds),
        "copies": max(copies),
    }


def resident(entry: str, reset_peak: bool = False) -> int:
    """Bytes of this process's resident set, now (`VmRSS`) or at its peak since the last reset (`VmHWM`); Linux only."""
    if reset_peak:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {entry}.")


def in_child(name: str, threads: int) -> dict[str, object]:
    """`measured` in a fresh process."""
    try:
        command = [sys.executable, __file__, name, "--threads", str(threads), "--child"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED)
    except subprocess.TimeoutExpired:
        return {"reason": f"took more than {SECONDS_ALLOWED} seconds"}
    if done.returncode != 0:
        return {"reason": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="forecasters; all of them if none is named")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads: int = arguments.threads
    if arguments.child:
        print(json.dumps(measured(arguments.names[0], threads)))
        return
    table = Path(__file__).with_suffix(".txt")
    size = layout_of(Network(520))
    lines = [
        f"{datetime.date.today()}, torch {torch.__version__}, {threads} threads, {size.size:,} parameters in "
        f"{len(size)} tensors, horizon {HORIZON}, rows {SPACING} steps apart",
        f"best of {REPEATS}; memory besides the window, in copies of the parameters (mean and scale are two)",
        f"{'forecaster':22s} {'rows':>4s} {'seconds':>8s} {'CPU':>8s} {'copies':>7s}",
    ]
    print("\n".join(lines))
    for name in arguments.names or forecaster_names():
        found = in_child(name, threads)
        if "reason" in found:
            lines.append(f"{name:22s} not measured: {found['reason']}")
        else:
            figures = f"{found['seconds']:8.3f} {found['cpu_seconds']:8.3f} {found['copies']:7.2f}"
            lines.append(f"{name:22s} {found['history']:4d} {figures}")
        print(lines[-1], flush=True)
    if not arguments.names:
        table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
