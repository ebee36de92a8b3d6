"""What compressed gradients win over a slow link: real processes, each in a network namespace with a shaped link.

Every rank has its own namespace, joined to the others by a bridge. Token buckets (`tc ... tbf`) limit what each rank
sends and what it receives. Needs root, `ip` and `tc`.

    python link.py steps --ranks 2 --json steps2.json      seconds of a step by link, and bytes from the counters
    python link.py target --ranks 2 --json target2.json    steps to a target accuracy, which no link changes
    python link.py report steps2.json target2.json ... --text link.txt

Time to target is the product of the two: seconds of a step over a link, and steps to the target. The steps are run
whole, without shaping, because 500 plain steps at 10 Mbit/s take half an hour.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from codec_tables import provenance, report
from link_rank import DEVICE, PROBLEMS, SWITCH

LINKS = {"10 Mbit/s": 1e7, "100 Mbit/s": 1e8, "1 Gbit/s": 1e9, "unshaped": 0.0}
METHODS = ("plain", "fp16", "PowerSGD 2", "PowerSGD 4", "classic 0.5", "leaky 0.3")
PORT = 29_417
TARGET = 0.98  # of what plain DDP ends with


def command(line: str) -> None:
    subprocess.run(shlex.split(line), check=True, capture_output=True)


def namespace(rank: int) -> str:
    return f"drrank{rank}"


def build_network(num_ranks: int) -> None:
    """A bridge in a namespace of its own, and a link from it to each rank's."""
    command(f"ip netns add {SWITCH}")
    command(f"ip -n {SWITCH} link add bridge type bridge")
    command(f"ip -n {SWITCH} link set bridge up")
    for rank in range(num_ranks):
        command(f"ip netns add {namespace(rank)}")
        command(f"ip link add {DEVICE} netns {namespace(rank)} type veth peer name port{rank} netns {SWITCH}")
        command(f"ip -n {SWITCH} link set port{rank} master bridge up")
        command(f"ip -n {namespace(rank)} addr add 10.77.0.{rank + 1}/24 dev {DEVICE}")
        command(f"ip -n {namespace(rank)} link set {DEVICE} up")
        command(f"ip -n {namespace(rank)} link set lo up")


def remove_network(num_ranks: int) -> None:
    for name in [SWITCH, *map(namespace, range(num_ranks))]:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def measure(
    what: str,
    num_ranks: int,
    problems: Sequence[str],
    methods: Sequence[str],
    links: Sequence[float],
    count: int | None = None,
    num_seeds: int = 1,
) -> Any:
    """What all ranks wrote."""
    plan = {
        "what": what,
        "ranks": num_ranks,
        "problems": list(problems),
        "methods": list(methods),
        "links": list(links),
        "count": count,
        "seeds": list(range(num_seeds)),
        "address": f"tcp://10.77.0.1:{PORT}",
    }
    environment = os.environ | {"GLOO_SOCKET_IFNAME": DEVICE, "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("link_rank.py"))
    remove_network(num_ranks)
    build_network(num_ranks)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(num_ranks):
                line = ["ip", "netns", "exec", namespace(rank), sys.executable, script, json.dumps(plan), str(rank)]
                processes.append(subprocess.Popen([*line, folder], env=environment))
            codes = [process.wait() for process in processes]
            if any(codes):
                raise SystemExit(f"Ranks ended with {codes}.")
            return [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(num_ranks)]
    finally:
        for process in processes:
            process.kill()
        remove_network(num_ranks)


def merged(files: Sequence[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Rows of steps, rows of targets (rank 0's, whose figures are the slowest rank's), and when they were measured."""
    steps: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    dates: list[str] = []
    for path in files:
        data = json.loads(path.read_text())
        load = f", load average {data['load'][0]:.1f} to {data['load'][1]:.1f}" if "load" in data else ""
        dates.append(f"{data['about']['date']}: {data['about']['command']}{load}")
        for rows in zip(*data["ranks"], strict=True):
            row = dict(rows[0])
            if "links" in row:
                row["links"] = {
                    each["link"]: combined(links)
                    for links in zip(*(r["links"] for r in rows), strict=True)
                    for each in links[:1]
                }
                if "compute" in row:
                    row["compute"] = max(r["compute"] for r in rows)
                steps.append(row)
            else:
                targets.append(row)
    return steps, targets, dates


def combined(links: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One link's figures over ranks: seconds of the slowest rank, bytes of the mean one."""
    found = {
        name: statistics.mean(link[name] for link in links) for name in links[0] if name not in ("link", "seconds")
    }
    return found | {"seconds": max(statistics.median(link["seconds"]) for link in links)}


def tables(steps: list[dict[str, Any]], targets: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for ranks in sorted({row["ranks"] for row in steps}):
        for problem in PROBLEMS:
            mine = [row for row in steps if row["problem"] == problem and row["ranks"] == ranks]
            if any("compute" in row for row in mine):
                lines += table(mine, [row for row in targets if row["problem"] == problem and row["ranks"] == ranks])
    return lines + shard_table(steps)


def shard_table(steps: list[dict[str, Any]]) -> list[str]:
    """What shards sent, against what the formula says of it."""
    lines: list[str] = []
    for row in sorted(steps, key=lambda row: (row["problem"], row["method"], row["ranks"])):
        for name, link in LINKS.items():
            found = row["links"].get(link)
            if found is not None and "shard_bytes" in found:
                cells = [found["shard_bytes"], found["counted_sent"], found["sent"]]
                text = f"  {row['problem']:8s}{row['method']:18s}{row['ranks']:5d}  {name:12s}"
                lines.append(text + "".join(f"{each:14,.0f}" for each in cells) + f"{cells[2] / cells[0]:12.3f}")
    title = (
        f"  {'problem':8s}{'method':18s}{'ranks':>5s}  {'link':12s}{'formula':>14s}{'counted':>14s}{'interface':>14s}"
    )
    what = "Sharded: bytes a step and rank by (W - 1) / W n (R_up + R_down), by our count, and sent by the interface:"
    return ["", what, title + f"{'of formula':>12s}", *lines] if lines else []


def final_accuracy(row: dict[str, Any]) -> float:
    """The mean of the last eight looks."""
    return statistics.mean(value for _, value in row["curve"][-8:])


def steps_to(row: dict[str, Any], target: float) -> int | None:
    """When the mean of three looks in a row first reached it."""
    curve = row["curve"]
    for last in range(2, len(curve)):
        if statistics.mean(value for _, value in curve[last - 2 : last + 1]) >= target:
            return curve[last][0]
    return None


class Reached(NamedTuple):
    """What a method's runs came to, means over seeds.

    Attributes:
        steps: to the target; `None` where a run did not reach it.
        final: accuracy at the end.
        num_seeds: how many runs.
    """

    steps: float | None
    final: float
    num_seeds: int


def reached(targets: list[dict[str, Any]]) -> tuple[dict[str, Reached], float]:
    """Of each method, and the mean target: for each seed `TARGET` of what plain DDP ends with."""
    wanted = {row["seed"]: TARGET * final_accuracy(row) for row in targets if row["method"] == "plain"}
    found: dict[str, Reached] = {}
    for method in {row["method"] for row in targets}:
        mine = [row for row in targets if row["method"] == method and row["seed"] in wanted]
        steps = [steps_to(row, wanted[row["seed"]]) for row in mine]
        if mine:
            mean = None if None in steps else statistics.mean(count for count in steps if count is not None)
            found[method] = Reached(mean, statistics.mean(map(final_accuracy, mine)), len(mine))
    return found, statistics.mean(wanted.values()) if wanted else float("nan")


def table(rows: list[dict[str, Any]], targets: list[dict[str, Any]]) -> list[str]:
    """One problem's."""
    first = rows[0]
    problem = PROBLEMS[first["problem"]]
    compute = next(row["compute"] for row in rows if "compute" in row)
    plain = next(row for row in rows if row["method"] == "plain")
    runs, target = reached(targets)
    plain_steps = runs["plain"].steps if "plain" in runs else None
    lines = [
        "",
        f"{first['problem']}: {problem.task}, {first['size']:,} parameters, {first['ranks']} ranks, batch "
        f"{problem.batch} a rank; a step without exchange {1e3 * compute:.1f} ms; target accuracy {target:.1%}",
        f"  {'':17s}{'steps to':>9s}{'final':>7s}{'seeds':>6s}   ms a step, and times faster to the target than plain"
        " (of the ceiling that compute allows)",
        f"  {'':17s}{'target':>9s}{'acc. %':>7s}{'':6s}   " + "".join(f"{name:>24s}" for name in LINKS),
    ]
    for row in rows:
        count, final, num_seeds = runs.get(row["method"], Reached(None, float("nan"), 0))
        cells = []
        for link in LINKS.values():
            if link not in row["links"]:
                cells.append(f"{'':>24s}")
                continue
            seconds, whole = row["links"][link]["seconds"], plain["links"][link]["seconds"]
            ratio = whole * plain_steps / (seconds * count) if count and plain_steps else float("nan")
            share = ratio / (whole / compute)
            cells.append(f"{1e3 * seconds:10.1f}{ratio:7.2f} ({share:4.2f})")
        counted = f"{count:9.0f}" if count else f"{'none' if num_seeds else '':>9s}"
        ended = f"{100 * final:7.1f}" if num_seeds else f"{'':>7s}"
        lines.append(f"  {row['method']:17s}{counted}{ended}{num_seeds:6d}   " + "".join(cells))
    lines += [
        "  CPU ms of a step by link; bytes a step and rank from the interface's counters; ours counted, and the ratio"
    ]
    for row in rows:
        link = 1e8 if 1e8 in row["links"] else next(iter(row["links"]))
        found = row["links"][link]
        cpu = "".join(f"{1e3 * each['cpu_seconds']:7.1f}" for each in row["links"].values())
        text = f"  {row['method']:17s}{cpu}{found['sent']:12,.0f}"
        if "counted_sent" in found:
            ratios = [found["sent"] / found["counted_sent"], found["received"] / found["counted_received"]]
            text += f"{found['counted_sent']:12,.0f}   sent {ratios[0]:.3f}  received {ratios[1]:.3f}"
        lines.append(text)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to target over shaped links.")
    parser.add_argument("what", choices=("steps", "target", "report"))
    parser.add_argument("files", nargs="*", type=Path, help="of `--json`, for the report")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=tuple(PROBLEMS))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--links", nargs="+", choices=tuple(LINKS), default=tuple(reversed(LINKS)))
    parser.add_argument("--seeds", type=int, default=1, help="for `target`: networks and batches")
    parser.add_argument("--count", type=int, help="of timed steps; fewer where only bytes matter")
    parser.add_argument("--json", type=Path, help="file for what was measured")
    parser.add_argument("--text", type=Path, help="file for the table, which is printed anyway")
    arguments = parser.parse_args()
    if arguments.what == "report":
        steps, targets, dates = merged(arguments.files)
        report([*dates, *tables(steps, targets)], provenance(), arguments.text)
        return
    links = [LINKS[name] for name in arguments.links]
    before = os.getloadavg()[0]
    seeds = arguments.seeds if arguments.what == "target" else 1
    plan = (arguments.problems, arguments.methods, links, arguments.count, seeds)
    found = measure(arguments.what, arguments.ranks, *plan)
    if arguments.json is not None:
        load = before, os.getloadavg()[0]
        arguments.json.write_text(json.dumps({"about": provenance(), "load": load, "ranks": found}))


if __name__ == "__main__":
    main()
