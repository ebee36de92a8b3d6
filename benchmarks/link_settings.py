"""Which fast settings train best under Adam: steps to a target and final accuracy, by bits and by error feedback.

What `link.py target` runs as processes, here in one: W encoders, their decoded gradients averaged, Adam. No link and no
clock, so that several seeds are cheap.

    python link_settings.py --seeds 0 1 --json link_settings.jsonl       adds to what the file has
    python link_settings.py --report link_settings.jsonl --text link_settings.txt
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from codec_tables import provenance, report
from link import TARGET, final_accuracy, steps_to
from link_rank import PROBLEMS
from torch.nn import functional

from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments.tasks import Batches, load_task, make_network
from deadreckon.forecast import layout_of

PROBLEM = PROBLEMS["mlp"]
BITS = (1.0, 0.5, 0.3, 0.2, 0.1)


def settings() -> dict[str, CodecConfig | None]:
    """By name; `None` for plain averaging."""
    found: dict[str, CodecConfig | None] = {"plain": None}
    for bits in BITS:
        found[f"classic {bits}"] = CodecConfig.fast(bits, "classic")
        found[f"off {bits}"] = CodecConfig.fast(bits, "off")
        for decay in (0.9, 0.5):
            found[f"leaky {decay}, {bits}"] = _changed(bits, feedback="leaky", feedback_decay=decay)
        found[f"classic {bits}, metric adam"] = _changed(bits, feedback="classic", metric="adam")
        found[f"leaky 0.9, {bits}, metric adam"] = _changed(bits, feedback="leaky", metric="adam")
    return found


def _changed(bits: float, **changes: Any) -> CodecConfig:
    return replace(CodecConfig.fast(bits, "off"), **changes)


def train(config: CodecConfig | None, num_ranks: int, seed: int) -> tuple[list[tuple[int, float]], float]:
    """Accuracy at every tenth step, and bits a coordinate."""
    task = load_task(PROBLEM.task)
    network = make_network(PROBLEM.network, task, seed, PROBLEM.width)
    layout, parameters = layout_of(network), list(network.parameters())
    optimizer = torch.optim.Adam(parameters, PROBLEM.rate)
    batches = [Batches(task.train, PROBLEM.batch, 10**6, 100 + rank + 10 * seed) for rank in range(num_ranks)]
    encoders = [Codec(layout, config).encoder(seed=rank) for rank in range(num_ranks)] if config else []
    curve: list[tuple[int, float]] = []
    num_bytes = 0
    for step in range(PROBLEM.max_steps):
        total = torch.zeros(layout.size)
        for rank in range(num_ranks):
            inputs, labels = batches[rank][step]
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs), labels).backward()
            gradient = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
            if encoders:
                num_bytes += len(encoders[rank].encode(gradient, step))
                gradient = encoders[rank].reconstruction
            total += gradient
        for parameter, spec in zip(parameters, layout, strict=True):
            parameter.grad = (total[spec.span] / num_ranks).reshape(spec.shape)
        optimizer.step()
        if (step + 1) % 10 == 0:
            with torch.no_grad():
                hits = (network(task.test.inputs[:1000]).argmax(1) == task.test.labels[:1000]).float().mean()
            curve.append((step + 1, float(hits)))
    return curve, 8 * num_bytes / (num_ranks * PROBLEM.max_steps * layout.size)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each setting; the mean leaves out seeds that do not reach the target, and says so."""
    plain = {(row["s"], row["W"]): final_accuracy({"curve": row["c"]}) for row in rows if row["n"] == "plain"}
    lines = [
        f"{PROBLEM.task}, {PROBLEM.network}, 1,003,818 parameters, Adam {PROBLEM.rate}, batch {PROBLEM.batch} a rank, "
        f"{PROBLEM.max_steps} steps",
        f"target: {TARGET:.0%} of what plain averaging ends with, by seed; each of the seeds beside the mean",
        "",
        f"  {'setting':32s}{'ranks':>6s}{'bits':>7s}{'steps':>8s}  {'by seed':24s}{'final %':>8s}  by seed",
    ]
    for name in dict.fromkeys(row["n"] for row in rows):
        for ranks in sorted({row["W"] for row in rows if row["n"] == name}):
            mine = {
                row["s"]: row for row in rows if (row["n"], row["W"]) == (name, ranks) and (row["s"], ranks) in plain
            }
            if not mine:
                continue
            curves = {seed: {"curve": row["c"]} for seed, row in sorted(mine.items())}
            steps = [steps_to(curve, TARGET * plain[seed, ranks]) for seed, curve in curves.items()]
            final = [100 * final_accuracy(curve) for curve in curves.values()]
            reached = [count for count in steps if count is not None]
            mean = f"{statistics.mean(reached):8.0f}" if len(reached) == len(steps) else f"{'none':>8s}"
            text = " ".join(str(count or "none") for count in steps)
            bits = next(iter(mine.values()))["b"]
            each = " ".join(f"{value:.1f}" for value in final)
            lines.append(f"  {name:32s}{ranks:6d}{bits:7.2f}{mean}  {text:24s}{statistics.mean(final):8.1f}  {each}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps to a target by settings of the fast codec.")
    parser.add_argument("--settings", nargs="+", choices=tuple(settings()), default=tuple(settings()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file of results, a line each, which is added to")
    parser.add_argument("--report", type=Path, nargs="+", help="only print what such files have")
    parser.add_argument("--text", type=Path, help="file for the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths: list[Path] = arguments.report or ([arguments.json] if arguments.json else [])
    rows = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    done = {(row["n"], row["s"], row["W"]) for row in rows}
    for name in () if arguments.report else arguments.settings:
        for seed in arguments.seeds:
            if (name, seed, arguments.ranks) not in done:
                curve, bits = train(settings()[name], arguments.ranks, seed)
                rows.append({"n": name, "s": seed, "W": arguments.ranks, "c": curve, "b": bits})
                print(name, seed, curve[-1], flush=True)
                if arguments.json is not None:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    report(table(rows), provenance(), arguments.text)


if __name__ == "__main__":
    main()
