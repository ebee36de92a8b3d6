"""Time and memory of one training step in PRANC coordinates: k = 1000 on one million parameters.

A step is the parameters made from the coefficients, and the gradient brought back to them; the network's own passes are
not in it. Memory is what the process grew by at its peak, the million parameters and their gradient in float32 (8 MB)
not counted. Each basis runs in a process of its own; the best of two steps is given.

Run: `python benchmarks/coordinates_speed.py [--text FILE]`
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import torch
from codec_tables import provenance, report

from deadreckon.forecast import Layout, TensorSpec
from deadreckon.models.coordinates import PRANC
from deadreckon.models.coordinates.combination import BasisName

NUM_STEPS = 2


def measure(basis: BasisName) -> None:
    torch.set_num_threads(1)
    layout = Layout((TensorSpec("weight", (1000, 1000), "float32", 0, "weight"),))
    coordinates = PRANC(layout, 1000, basis=basis)
    coefficients = coordinates.initial().requires_grad_()
    gradient = torch.randn(layout.size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: list[tuple[float, float, float]] = []
    for _ in range(NUM_STEPS):
        wall, processor = time.perf_counter(), time.process_time()
        made = coordinates.to_parameters(coefficients)
        half = time.perf_counter()
        made.backward(gradient)
        done = time.perf_counter()
        seconds.append((done - wall, done - half, time.process_time() - processor))
    wall, backward, processor = min(seconds)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"| {basis} | {wall:.2f} | {wall - backward:.2f} | {backward:.2f} | {processor:.2f} | {megabytes:.0f} |")


def lines() -> Iterator[str]:
    yield "| basis | s a step | of that forwards | backwards | processor s | MB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for basis in get_args(BasisName):
        ran = subprocess.run([sys.executable, __file__, "--basis", basis], capture_output=True, text=True, check=True)
        yield ran.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--basis", choices=get_args(BasisName), help="measure one, in this process")
    parser.add_argument("--text", type=Path)
    given = parser.parse_args()
    if given.basis:
        measure(given.basis)
    else:
        report(lines(), provenance(), given.text)


if __name__ == "__main__":
    main()
