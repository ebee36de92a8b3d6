"""NiNo of this library beside the one of its authors: time, memory and the forecasts themselves.

One nowcast of a GPT-2 each, in a process of its own, from the same five made-up states and the authors' checkpoint
`nino_no_posw.pt`, without positions of nodes: what their code spends on eigenvectors is not counted. Extra memory is
the growth of the process's resident size to its peak during the nowcast, forecast included, history not.

    python benchmarks/nino_peer.py --checkpoint nino_no_posw.pt --peer FOLDER --peer-python PYTHON > nino_peer.txt

FOLDER is a checkout of github.com/SamsungSAILMontreal/nino, commit 84fb0cf; PYTHON one that has its dependencies (a
placeholder stands in for torchvision, of which it only looks up one class). Without them ours alone is measured.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

SIZES = ((3, 64, 4), (4, 128, 4))  # layers, width, heads
LARGE = (6, 384, 6)
VOCABULARY, PLACES = 50257, 1024
HORIZON = 20


class Projection(nn.Module):
    """x weight + bias with the weight `[in, out]`, as GPT-2 keeps it."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(num_in, num_out))
        self.bias = nn.Parameter(torch.zeros(num_out))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Attention(nn.Module):
    """Causal attention with queries, keys and values from one matrix."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.c_attn = Projection(width, 3 * width)
        self.c_proj = Projection(width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=2)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = Projection(width, 4 * width)
        self.c_proj = Projection(4 * width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(nn.functional.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and perceptron, each after a norm and beside the residual path."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Body(nn.Module):
    """All but the head."""

    def __init__(self, num_layers: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, width)
        self.wpe = nn.Embedding(PLACES, width)
        self.h = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.ln_f = nn.LayerNorm(width)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


class GPT2(nn.Module):
    """GPT-2 with a tied head, with the names and in the order of the authors' model."""

    def __init__(self, num_layers: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.transformer = Body(num_layers, width, num_heads)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        return self.transformer(tokens) @ self.transformer.wte.weight.T


def made_up_states(size: int) -> Tensor:
    """Five states of `size` parameters, `[time, param]`: a random walk."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.empty(5, size)
    rows[0].normal_(std=0.02, generator=generator)
    for index in range(1, 5):
        rows[index].normal_(std=0.002, generator=generator).add_(rows[index - 1])
    return rows


def resident(name: str) -> float:
    """Megabytes that the process has in memory now (`VmRSS`), or had at most since `measure` began (`VmHWM`)."""
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(name):
            return int(entry.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}.")


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Seconds and extra megabytes."""
    Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is forgotten
    before = resident("VmRSS")
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "megabytes": resident("VmHWM") - before}


def ours(num_layers: int, width: int, num_heads: int, checkpoint: str, out: str) -> dict[str, float]:
    from deadreckon.forecast import Window, pack
    from deadreckon.forecast.graph import trace_graph
    from deadreckon.models import load_released_nino, released_graph

    with torch.random.fork_rng():
        model = GPT2(num_layers, width, num_heads)
    vector, layout = pack(model)
    begin = time.perf_counter()
    graph = released_graph(trace_graph(model, (torch.zeros(1, PLACES, dtype=torch.int64),)))
    graph_seconds = time.perf_counter() - begin
    rows = made_up_states(len(vector))
    window = Window(rows, torch.arange(200, 1001, 200), layout, graph=graph)
    forecaster = load_released_nino(checkpoint, 200, variant="released")
    found: list[Tensor] = []
    figures = measure(lambda: found.extend(forecast.mean for forecast in forecaster.forecast(window, [HORIZON * 200])))
    torch.save(found[0], out)
    return figures | {"parameters": len(vector), "graph": graph_seconds}


def peer(num_layers: int, width: int, num_heads: int, checkpoint: str, out: str) -> dict[str, float]:
    """To be run by a Python that has the peer's dependencies, in the peer's folder."""
    placeholder = types.ModuleType("torchvision")
    placeholder.__version__ = "none"  # type: ignore[attr-defined]
    placeholder.models = types.SimpleNamespace(VisionTransformer=type("VisionTransformer", (), {}))  # type: ignore[attr-defined]
    try:
        import transformers  # type: ignore[import-not-found]
    finally:
        sys.modules["torchvision"] = placeholder
    sys.path.insert(0, os.getcwd())
    from optim import NiNo  # type: ignore[import-not-found]

    config = transformers.GPT2Config(
        n_layer=num_layers, n_embd=width, n_head=num_heads, vocab_size=VOCABULARY, n_positions=PLACES
    )
    model = transformers.GPT2LMHeadModel(config)
    size = sum(value.numel() for value in model.parameters())
    rows = made_up_states(size)
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = NiNo(base, None, ckpt=checkpoint, period=1000, max_train_steps=10000, verbose=0)
    begin = time.perf_counter()
    optimizer.set_model(model, lpe=False)
    graph_seconds = time.perf_counter() - begin
    graph = optimizer.graph.pyg_graph
    graph.pos = torch.zeros(graph.num_nodes, 8)
    offset = 0
    for value in model.parameters():
        value.data = rows[4, offset : offset + value.numel()].view_as(value).clone()
        offset += value.numel()
    optimizer.states = [row.clone() for row in rows[:4]]
    optimizer.step_idx = 199
    figures = measure(lambda: optimizer.step(k=HORIZON))
    torch.save(torch.cat([value.data.flatten() for value in model.parameters()]), out)
    return figures | {"parameters": size, "graph": graph_seconds}


def one(who: str, size: tuple[int, int, int], options: argparse.Namespace, out: Path) -> dict[str, float]:
    """One measurement, in a fresh process."""
    python = options.peer_python if who == "peer" else sys.executable
    command = [python, str(Path(__file__).resolve()), "--one", who, "--size", *map(str, size), "--out", str(out)]
    command += ["--checkpoint", str(Path(options.checkpoint).resolve()), "--threads", str(options.threads)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=options.peer if who == "peer" else None
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def line(who: str, size: tuple[int, int, int], figures: dict[str, float]) -> str:
    name = f"{size[0]} x {size[1]}"
    return (
        f"{who:6} {name:8} {int(figures['parameters']):11,d} {figures['wall']:9.1f} {figures['cpu']:9.1f} "
        f"{figures['megabytes']:9.0f} {figures['graph']:9.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--peer-python")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--one", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        work, (num_layers, width, num_heads) = ours if options.one == "ours" else peer, options.size
        found = work(num_layers, width, num_heads, options.checkpoint, options.out)
        print(json.dumps(found))
        return
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    print(f"One forecast {HORIZON} row spacings ahead. Seconds, extra megabytes, seconds to make the graph.")
    print(f"{'who':6} {'size':8} {'parameters':>11} {'wall s':>9} {'CPU s':>9} {'extra MB':>9} {'graph s':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for size in (*SIZES, LARGE):
            own = one("ours", size, options, Path(folder) / "ours")
            print(line("ours", size, own), flush=True)
            if not options.peer or size == LARGE:
                continue
            theirs = one("peer", size, options, Path(folder) / "peer")
            print(line("peer", size, theirs), flush=True)
            a, b = (torch.load(Path(folder) / who, weights_only=True).double() for who in ("ours", "peer"))
            last = made_up_states(len(a))[-1].double()
            difference = float((a - b).norm() / (b - last).norm())
            largest = float((a - b).abs().max())
            ratios = " ".join(f"{key} {theirs[key] / max(own[key], 1e-9):.1f}" for key in ("wall", "cpu", "megabytes"))
            bits = -math.log2(max(difference, 1e-300))
            print(
                f"       times less: {ratios}; forecasts differ by {difference:.1e} of the change ({bits:.0f} bits), "
                f"by at most {largest:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
