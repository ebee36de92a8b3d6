"""One rank of `link.py`: trains through each way to exchange gradients, and writes what it measured as JSON."""

import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from deadreckon.codec import CodecConfig
from deadreckon.codec.distributed import ExchangeConfig, GradientCodec, ShardedExchange, register_gradient_codec
from deadreckon.experiments.tasks import Batches, TaskData, load_task, make_network

DEVICE = "eth0"  # of each rank's namespace
SWITCH = "drswitch"  # the namespace of the bridge
BURST = 64 * 1024  # bytes that pass a shaped link at once
WARM_STEPS = 10


class Problem(NamedTuple):
    """What is trained: a task, a network's name and width, Adam's rate, samples a rank and step, and for how long."""

    task: str
    network: str
    width: float
    rate: float
    batch: int
    max_steps: int


class Convolutions(nn.Module):
    """Two 5x5 convolutions with pooling, and two linear layers that hold most of its 0.4 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 49, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )
        self.forward = self.layers.forward


PROBLEMS = {
    "mlp": Problem("fashion_mnist", "mlp", 13.0, 0.001, 32, 240),
    "conv": Problem("fashion_mnist", "convolutions", 1.0, 0.001, 16, 240),
    "conv3": Problem("fashion_mnist", "conv", 5.0, 0.002, 8, 240),
    "transformer": Problem("shakespeare", "transformer", 4.0, 0.001, 16, 400),
}


RATES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)  # bits a coordinate
OURS = {
    f"{feedback} {bits:g}{'' if way == 'all_gather' else f' {way}'}": (
        CodecConfig.fast(bits, feedback),
        ExchangeConfig(way, check_every=0),
    )
    for feedback in ("classic", "leaky", "off")
    for bits in RATES
    for way in ("all_gather", "sharded")
}
OURS |= {
    f"lattice_sum L={levels}": (
        CodecConfig.fast(0.5, "classic"),
        ExchangeConfig("lattice_sum", levels=levels, check_every=0),
    )
    for levels in (1, 7)
}
OURS["default"] = (CodecConfig(lattice="Z", feedback="classic"), ExchangeConfig("all_gather", check_every=0))


@dataclass
class Run:
    """A network in training."""

    model: DistributedDataParallel
    optimizer: torch.optim.Optimizer
    batches: Batches
    codec: GradientCodec | None
    step: int = 0

    def train(self) -> None:
        """One step."""
        inputs, labels = self.batches[self.step]
        self.optimizer.zero_grad()
        functional.cross_entropy(self.model(inputs), labels).backward()
        self.optimizer.step()
        self.step += 1


def make_run(problem: Problem, task: TaskData, method: str, rank: int, seed: int = 0) -> Run:
    """A new run; all ranks begin with equal weights, and each sees batches of its own."""
    if problem.network == "convolutions":
        torch.manual_seed(seed)
        network: nn.Module = Convolutions()
    else:
        network = make_network(problem.network, task, seed, problem.width)
    # PowerSGD on gloo hangs with more than one bucket, so it gets one; all others get DDP's own choice.
    cap = 1000 if method.startswith("PowerSGD") else None
    model = DistributedDataParallel(network, bucket_cap_mb=cap)
    codec = None
    if method == "fp16":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif method.startswith("PowerSGD"):
        state = PowerSGDState(
            None,
            int(method.split()[-1]),
            start_powerSGD_iter=2,
            orthogonalization_epsilon=1e-8,  # pyright: ignore
        )
        model.register_comm_hook(state, powerSGD_hook)
    elif method in OURS:
        config, exchange = OURS[method]
        codec = register_gradient_codec(model, config, exchange=exchange)
    batches = Batches(task.train, problem.batch, 10**6, 100 * (seed + 1) + rank)
    # Fused, as one loop over the parameters: otherwise its square roots take 2 ms longer where many gradients are 0.
    optimizer = torch.optim.Adam(model.parameters(), problem.rate, fused=True)
    return Run(model, optimizer, batches, codec)


def shape(rank: int, bits_per_second: float) -> None:
    """Both directions of this rank's link, by token buckets; 0 for no limit."""
    places = [("", DEVICE), (f"ip netns exec {SWITCH} ", f"port{rank}")]
    for where, device in places:
        subprocess.run(f"{where}tc qdisc del dev {device} root", shell=True, capture_output=True, check=False)
        if bits_per_second:
            line = (
                f"{where}tc qdisc add dev {device} root tbf rate {bits_per_second:.0f}bit burst {BURST} latency 500ms"
            )
            subprocess.run(line, shell=True, check=True)


def counters() -> tuple[int, int]:
    """Bytes sent and received by the link so far."""
    folder = Path(f"/sys/class/net/{DEVICE}/statistics")
    return int((folder / "tx_bytes").read_text()), int((folder / "rx_bytes").read_text())


def num_steps(method: str, link: float, wanted: int | None = None) -> int:
    """That are timed: few where each takes seconds."""
    if wanted is not None:
        return wanted
    slow = method in ("plain", "fp16")
    return {1e7: 3 if slow else 12, 1e8: 10 if slow else 20}.get(link, 25)


def time_steps(run: Run, method: str, link: float, rank: int, wanted: int | None) -> dict[str, Any]:
    """Seconds of steps over one link, and what the counters say."""
    dist.barrier()
    shape(rank, link)
    dist.barrier()
    run.train()
    before, seconds = run.codec.traffic if run.codec else None, []
    shards: list[float] = []
    dist.barrier()
    sent, received = counters()
    cpu = time.process_time()
    for _ in range(num_steps(method, link, wanted)):
        begun = time.perf_counter()
        run.train()
        seconds.append(time.perf_counter() - begun)
        if run.codec is not None and isinstance(run.codec.aggregation, ShardedExchange):
            shards.append(shard_bytes(run.codec.aggregation))
    cpu = time.process_time() - cpu
    # Both ends have all bytes of a synchronous step when it is over.
    after = counters()
    dist.barrier()
    shape(rank, 0)
    found = {
        "link": link,
        "seconds": seconds,
        "cpu_seconds": cpu / len(seconds),
        "sent": (after[0] - sent) / len(seconds),
        "received": (after[1] - received) / len(seconds),
    }
    if run.codec is not None and before is not None:
        traffic = run.codec.traffic - before
        found |= {
            "counted_sent": traffic.sent_bytes / len(seconds),
            "counted_received": traffic.received_bytes / len(seconds),
        }
    return found | ({"shard_bytes": statistics.mean(shards)} if shards else {})


def shard_bytes(exchange: ShardedExchange) -> float:
    """(W - 1) / W n (R_up + R_down), in bytes, with the rates of this rank's packets in the last step."""
    own = exchange.own_span.stop - exchange.own_span.start
    size = exchange.layout.size
    up = sum(encoder.last_report.num_bits for encoder in exchange.up.values()) / (size - own)
    down = exchange.server.last_report.num_bits / own
    return (exchange.num_ranks - 1) / exchange.num_ranks * size * (up + down) / 8


def compute_seconds(run: Run) -> float:
    """Of a step without any exchange."""
    seconds = []
    with run.model.no_sync():
        for _ in range(20):
            begun = time.perf_counter()
            run.train()
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


@torch.no_grad()
def accuracy(run: Run, task: TaskData) -> float:
    """On a thousand samples of the test set."""
    rows = slice(0, 1000)
    network = run.model.module
    hits = (network(task.test.inputs[rows]).argmax(1) == task.test.labels[rows]).float().mean()
    return float(hits)


def learning_curve(run: Run, problem: Problem, task: TaskData) -> dict[str, Any]:
    """Accuracy at every tenth step."""
    curve: list[tuple[int, float]] = []
    while run.step < problem.max_steps:
        run.train()
        if run.step % 10 == 0:
            curve.append((run.step, accuracy(run, task)))
    return {"curve": curve}


def main() -> None:
    plan, rank, folder = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=plan["address"], rank=rank, world_size=plan["ranks"])
    rows: list[dict[str, Any]] = []
    for name in plan["problems"]:
        problem = PROBLEMS[name]
        task = load_task(problem.task)
        for method, seed in itertools.product(plan["methods"], plan["seeds"]):
            run = make_run(problem, task, method, rank, seed)
            row: dict[str, Any] = {"problem": name, "method": method, "ranks": plan["ranks"], "rank": rank}
            row["seed"] = seed
            row["size"] = sum(value.numel() for value in run.model.parameters())
            if plan["what"] == "target":
                row |= learning_curve(run, problem, task)
            else:
                wanted = plan["count"]
                for _ in range(WARM_STEPS if wanted is None else min(WARM_STEPS, wanted)):
                    run.train()
                row["links"] = [time_steps(run, method, link, rank, wanted) for link in plan["links"]]
                if method == "plain":
                    row["compute"] = compute_seconds(run)
            rows.append(row)
            if rank == 0:
                times = [
                    f"{link['link']:.0e}: {statistics.median(link['seconds']):.4f}" for link in row.get("links", [])
                ]
                print(name, method, seed, *times, *row.get("curve", [])[-1:], flush=True)
            (folder / f"rank{rank}.json").write_text(json.dumps(rows))
            dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
