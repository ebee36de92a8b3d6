"""What jumping costs at its default share, by the ledger, and whether batched candidates are faster.

Run: `python benchmarks/jump_cost.py digits`, or `fashion_mnist`, or `candidates`; the last two need Fashion-MNIST.
"""

import sys
import time

import torch
from torch import Tensor

from deadreckon.callbacks import SkipAhead
from deadreckon.experiments.classifier import probe
from deadreckon.experiments.tasks import load_task, make_network, sequential_batches
from deadreckon.experiments.training import make_classifier, train
from deadreckon.forecast import layout_of, load_vector, pack
from deadreckon.forecast.jump import Candidate, CandidateScreen
from deadreckon.forecast.jump.candidates import _batched

# task, network, batch, learning rate, steps
RUNS = (("digits", "mlp", 64, 0.004, 2000), ("fashion_mnist", "conv", 128, 0.006, 600))
NETWORKS = (("digits", "mlp"), ("fashion_mnist", "mlp"), ("fashion_mnist", "conv"))


def cost_of_a_run(name: str, network: str, batch_size: int, rate: float, steps: int) -> None:
    task = load_task(name)
    skip_ahead = SkipAhead("linear", 20, (4, 8, 16, 32), probe, sequential_batches(task.verify, 128), spacing=4)
    module = make_classifier(task, network, "adam", rate, "linear", steps, 0)
    began = time.process_time()
    train(module, task, batch_size, steps, 0, [skip_ahead])
    seconds = time.process_time() - began
    costs = skip_ahead.ledger.activities
    spent = skip_ahead.ledger.total.cpu_seconds
    parts = ", ".join(f"{activity} {100 * cost.cpu_seconds / seconds:.2f}" for activity, cost in costs.items())
    proposed = [jump for jump in skip_ahead.jumps if jump.outcome.proposed]
    kept = sum(jump.outcome.kept for jump in proposed)
    samples = sum(jump.num_samples for jump in proposed) / max(len(proposed), 1)
    print(
        f"{name} {network}: {seconds:.1f} CPU s, jumping {100 * spent / seconds:.2f} % ({parts}); {kept} of "
        f"{len(proposed)} kept, {samples:.0f} of {len(task.verify.labels)} held-out samples an attempt, "
        f"effective step {skip_ahead.effective_step:.0f} of {steps}",
        flush=True,
    )


def speed_of_candidates(name: str, network: str, num_candidates: int = 4, repeats: int = 20) -> None:
    task = load_task(name)
    module = make_network(network, task, 0, 1.0).eval()
    vector, layout = pack(module)
    assert layout.digest == layout_of(module).digest
    candidates = [Candidate(1, 1.0, vector * (1 + 0.01 * index)) for index in range(num_candidates)]
    batch = next(iter(sequential_batches(task.verify, 128)))

    def load(candidate: Candidate) -> None:
        load_vector(module, candidate.weights, layout)

    def one_by_one() -> Tensor:
        screen = CandidateScreen()
        screen.one_by_one = "measured"
        return screen.losses(module, probe, batch, candidates, layout, load)

    def batched() -> Tensor:
        return _batched(module, probe, batch, candidates, layout)

    times: list[float] = []
    for method in (one_by_one, batched):
        method()
        began = time.process_time()
        for _ in range(repeats):
            method()
        times.append((time.process_time() - began) / repeats)
    print(
        f"{name} {network}, {num_candidates} candidates on 128 samples: one by one {1e3 * times[0]:.2f} ms, "
        f"batched {1e3 * times[1]:.2f} ms",
        flush=True,
    )


def main(part: str) -> None:
    torch.set_num_threads(1)
    if part == "candidates":
        for name, network in NETWORKS:
            speed_of_candidates(name, network)
    for setting in RUNS:
        if setting[0] == part:
            cost_of_a_run(*setting)


if __name__ == "__main__":
    main(sys.argv[1])
