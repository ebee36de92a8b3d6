"""Record the held-out runs that `nino_compare.py` needs, and the long runs that `nino` was fitted to.

    python benchmarks/nino_runs.py held_out runs/nino_held_out
    python benchmarks/nino_runs.py training runs/nino_training

A plain training loop, without a Trainer: on small networks that is several times faster. Rows of weights every 10
steps and 2400 steps a run. Seeds of the two sets differ from each other and from those of `deadreckon corpus`. Half of
the runs have a constant learning rate, the others decay. A second call goes on with what is missing.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional

from deadreckon.experiments.classifier import Classifier, evaluate
from deadreckon.experiments.corpus.plan import run_name
from deadreckon.experiments.corpus.run import partial_folder
from deadreckon.experiments.optimizers import make_optimizer, make_schedule
from deadreckon.experiments.runs import TRAJECTORY, RunFacts, RunSummary, summarise, write_summary
from deadreckon.experiments.tasks import load_task, make_network, train_loader
from deadreckon.forecast import Trajectory, pack

STEPS, EVERY = 2400, 10
# task, network, width, optimiser, learning rate, schedule, batch size, seed
HELD_OUT = """
fashion_mnist conv 1 adamw 0.006 constant 128 900
fashion_mnist conv 1 adamw 0.006 linear 32 901
digits mlp 1 adam 0.003 constant 64 920
shakespeare mlp 1 adam 0.003 constant 64 930
teacher mlp 1 adam 0.003 constant 64 940
fashion_mnist mlp 1 adam 0.003 constant 64 916
fashion_mnist conv_norm 1 adam 0.003 constant 32 910
shakespeare transformer 0.5 adam 0.003 linear 32 931
digits conv 1 adam 0.003 linear 64 921
teacher mlp 1 adam 0.003 linear 64 941
fashion_mnist conv 1 adam 0.003 constant 32 902
fashion_mnist conv 1 adam 0.003 cosine 32 903
fashion_mnist mlp 1 adamw 0.003 linear 128 917
fashion_mnist conv_norm 1 adamw 0.006 linear 32 911
shakespeare mlp 1 adamw 0.003 linear 128 932
digits mlp 1 adamw 0.001 cosine 32 922
teacher mlp 1 adamw 0.001 cosine 32 942
digits conv 1 adamw 0.003 constant 128 923
teacher mlp 1 adamw 0.003 constant 128 943
shakespeare transformer 0.5 adamw 0.003 constant 32 933
fashion_mnist conv 1 adamw 0.001 constant 32 904
fashion_mnist conv 1 adam 0.006 cosine 64 905
fashion_mnist mlp 1 adamw 0.001 constant 32 918
fashion_mnist mlp 1 adam 0.003 cosine 64 919
digits mlp 1 adam 0.01 linear 64 924
teacher mlp 1 adam 0.01 linear 64 944
shakespeare mlp 1 adam 0.001 cosine 32 934
digits mlp 1 adam 0.01 constant 64 925
teacher mlp 1 adam 0.003 constant 128 945
shakespeare mlp 1 adamw 0.003 constant 128 935
fashion_mnist mlp 0.5 adam 0.006 constant 64 915
fashion_mnist mlp 1 adam 0.001 linear 32 914
"""
TRAINING = """
digits conv 1 adamw 0.006 constant 128 800
teacher mlp 1 adam 0.006 linear 128 801
shakespeare mlp 1 adam 0.006 constant 128 802
digits conv_norm 1 adam 0.003 constant 64 803
teacher mlp 1 adamw 0.003 constant 128 804
digits mlp 1 adam 0.003 linear 128 805
shakespeare transformer 0.5 adam 0.001 cosine 32 806
teacher mlp_norm 1 adam 0.003 constant 64 807
digits conv 2 adam 0.003 cosine 64 808
digits transformer 0.5 adam 0.003 constant 64 809
shakespeare mlp_norm 1 adamw 0.001 constant 64 810
teacher mlp 2 adam 0.003 constant 64 811
digits mlp_norm 2 adamw 0.001 linear 64 812
teacher mlp_norm 1 adam 0.01 cosine 64 813
digits conv 1 sgd 0.03 constant 64 814
teacher transformer 0.5 adam 0.003 linear 64 815
digits conv_norm 1 adamw 0.006 linear 64 816
shakespeare mlp 0.5 sgd 0.1 linear 64 817
digits mlp 2 adam 0.001 constant 128 818
teacher mlp_norm 1 adamw 0.006 cosine 64 819
digits conv 1 adam 0.01 linear 128 820
shakespeare mlp 1 adamw 0.003 cosine 128 821
teacher mlp 1 sgd 0.1 cosine 64 822
digits conv_norm 1 sgd 0.1 linear 64 823
shakespeare mlp 1 adam 0.001 linear 32 824
digits conv 1 adam 0.001 constant 32 825
teacher mlp 1 adam 0.001 constant 32 826
shakespeare mlp_norm 1 adam 0.003 cosine 64 827
digits conv 1 adam 0.003 constant 16 828
digits conv_norm 1 adamw 0.003 linear 16 829
digits conv 1 adam 0.006 cosine 8 830
digits conv_norm 1 adam 0.001 constant 8 831
teacher mlp 1 adam 0.01 constant 32 832
digits mlp 1 adam 0.01 linear 16 833
"""


def plans(text: str, steps: int) -> list[RunFacts]:
    """The runs that a table like those above describes."""
    found: list[RunFacts] = []
    for line in text.split("\n"):
        if line:
            task, network, width, optimizer, rate, schedule, batch, seed = line.split()
            found.append(
                RunFacts(
                    task=task,
                    network=network,
                    width=float(width),
                    optimizer=optimizer,
                    learning_rate=float(rate),
                    schedule=schedule,
                    batch_size=int(batch),
                    seed=int(seed),
                    steps=steps,
                )
            )
    return found


def record(facts: RunFacts, folder: Path, data: str | None, every: int = EVERY) -> RunSummary:
    """Train and record one run; its folder appears once it is complete, or not at all."""
    task = load_task(facts.task, data)
    module = Classifier(make_network(facts.network, task, facts.seed, facts.width))
    optimizer = make_optimizer(facts.optimizer, module.parameters(), facts.learning_rate)
    schedule = make_schedule(facts.schedule, optimizer, facts.steps)
    partial = partial_folder(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    vector, layout = pack(module)
    seconds, began = 0.0, time.process_time()
    metadata = asdict(facts) | {"every": every}
    with Trajectory.create(partial / TRAJECTORY, layout, metadata=metadata) as trajectory:
        trajectory.append(0, {"weights": vector})
        for step, (inputs, labels) in enumerate(train_loader(task, facts.batch_size, facts.steps, facts.seed)):
            rate = optimizer.param_groups[0]["lr"]
            begin = time.process_time()
            optimizer.zero_grad()
            loss = functional.cross_entropy(module(inputs), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            seconds += time.process_time() - begin
            if (step + 1) % every == 0:
                scalars = {"loss": loss.item(), "learning_rate": rate}
                trajectory.append(step + 1, {"weights": pack(module)[0]}, scalars)
    final = evaluate(module, task.test)
    with Trajectory.open(partial / TRAJECTORY) as trajectory:
        spent = time.process_time() - began
        summary = summarise(trajectory, final.loss, final.accuracy, spent, seconds / facts.steps)
    write_summary(partial, summary)
    partial.rename(folder)
    return summary


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("held_out", "training"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="a folder with the tasks' files")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    begin = time.perf_counter()
    for facts in plans(HELD_OUT if options.which == "held_out" else TRAINING, STEPS):
        folder = options.out / run_name(facts)
        if folder.exists():
            continue
        if time.perf_counter() - begin > options.seconds:
            return 3
        found = record(facts, folder, options.data)
        print(f"{folder.name}: {found.cpu_seconds:.0f} CPU s, test accuracy {found.test_accuracy:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
