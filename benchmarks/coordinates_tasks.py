"""Supermasks on ten permuted Fashion-MNIST tasks: accuracy with and without the task's identity, and recalled masks.

One network of fixed random weights, 784-32-10 with ReLU and no biases; half of the weights are kept. Each task permutes
the pixels in its own way; its scores are trained by Adam with cosine schedule, the tasks one after the other. Inference
sees `--samples` unlabelled test images of a task, and is asked several times with other images.

Hopfield memories have as many neurons as the network has weights, so this is done on images of 14 x 14 (means of four
pixels) by a network 196-16-10. How many masks a memory holds is counted with random masks on one of 1000 neurons.

Run: `DEADRECKON_DATA=... python benchmarks/coordinates_tasks.py [--text FILE]`
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from codec_tables import provenance, report
from torch import Tensor, nn
from torch.nn import functional

from deadreckon.experiments.tasks import Batches, Split, load_task
from deadreckon.models.coordinates import (
    Hopfield,
    Supermasks,
    choose_layout,
    infer_task,
    load_supermasks,
    recall_by_entropy,
    save_supermasks,
    surest_task,
)

NUM_TASKS = 10
BATCH = 64
RATE = 0.003
NUM_NEURONS = 1000
COUNTS = (10, 50, 100, 150, 200, 300, 400)
NUM_ASKED = 20
WAYS: dict[str, Callable[[Supermasks, Tensor], int]] = {
    "one gradient": lambda masks, inputs: infer_task(masks, inputs, 1.0),
    "dropping halves": lambda masks, inputs: infer_task(masks, inputs, 0.5),
    "dropping one at a time": infer_task,
    "trying each mask": surest_task,
}


def flat(split: Split, small: bool) -> tuple[Tensor, Tensor]:
    images = functional.avg_pool2d(split.inputs, 2) if small else split.inputs
    return images.flatten(1), split.labels


def network(num_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, width, bias=False), nn.ReLU(), nn.Linear(width, 10, bias=False))


def learn(small: bool, width: int, num_steps: int) -> tuple[Supermasks, list[Tensor]]:
    """The network that learned all tasks, and their permutations."""
    task = load_task("fashion_mnist")
    num_inputs = flat(Split(task.tune.inputs[:1], task.tune.labels[:1]), small)[0].shape[1]
    masks = Supermasks(network(num_inputs, width), choose_layout(network(num_inputs, width)))
    generator = torch.Generator().manual_seed(0)
    permutations = [torch.randperm(num_inputs, generator=generator) for _ in range(NUM_TASKS)]
    for number, permutation in enumerate(permutations):
        masks.begin_task(number)
        optimizer = torch.optim.Adam([masks.scores], RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        for images, labels in Batches(task.train, BATCH, num_steps, number):
            inputs, labels = flat(Split(images, labels), small)
            optimizer.zero_grad()
            functional.cross_entropy(masks(inputs[:, permutation]), labels).backward()
            optimizer.step()
            schedule.step()
        masks.remember()
    return masks, permutations


def accuracies(masks: Supermasks, permutations: list[Tensor], small: bool, found: list[Tensor]) -> list[float]:
    """Test accuracy of each task under a mask that was found for it."""
    inputs, labels = flat(load_task("fashion_mnist").test, small)
    with torch.no_grad():
        return [
            float((masks.call(mask.float(), inputs[:, permutation]).argmax(1) == labels).float().mean())
            for permutation, mask in zip(permutations, found, strict=True)
        ]


def mean(values: list[float]) -> float:
    return 100 * sum(values) / len(values)


def lines(num_steps: int, num_samples: int, num_times: int) -> Iterator[str]:
    masks, permutations = learn(False, 32, num_steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks"
        save_supermasks(masks, path)
        size = path.stat().st_size
        masks = load_supermasks(path, network(784, 32))
    kept = list(masks.masks())
    known = accuracies(masks, permutations, False, kept)
    yield f"{NUM_TASKS} tasks, {num_steps} steps of {BATCH} samples each, {masks.layout.size} weights."
    yield f"File: {size} bytes for all tasks; float32 networks would take {4 * masks.layout.size * NUM_TASKS}."
    yield f"Identity known: {mean(known):.2f} % mean test accuracy ({100 * min(known):.2f} to {100 * max(known):.2f})."
    inputs, _ = flat(load_task("fashion_mnist").test, False)
    for name, infer in WAYS.items():
        hits, reached = 0, 0.0
        for time in range(num_times):
            part = inputs[time * num_samples : (time + 1) * num_samples]
            found = [infer(masks, part[:, permutation]) for permutation in permutations]
            hits += sum(guess == number for number, guess in enumerate(found))
            reached += mean(accuracies(masks, permutations, False, [kept[guess] for guess in found])) / num_times
        yield (
            f"Inferred from {num_samples} images, {name}: {hits} of {num_times * NUM_TASKS} right, "
            f"{reached:.2f} % mean test accuracy."
        )
    yield ""
    yield from recalled(num_steps, num_samples)
    yield ""
    yield from capacity()


def recalled(num_steps: int, num_samples: int) -> Iterator[str]:
    masks, permutations = learn(True, 16, num_steps)
    kept = list(masks.masks())
    memory = Hopfield(masks.layout.size)
    for mask in kept:
        memory.store(mask)
    inputs, _ = flat(load_task("fashion_mnist").test, True)
    known = accuracies(masks, permutations, True, kept)
    yield f"14 x 14 images, {memory.size} weights, memory of {4 * memory.size**2} bytes."
    yield f"Identity known: {mean(known):.2f} % mean test accuracy."
    parts = [inputs[:num_samples, permutation] for permutation in permutations]
    for name, infer in WAYS.items():
        guesses = [infer(masks, part) for part in parts]
        hits = sum(guess == number for number, guess in enumerate(guesses))
        reached = mean(accuracies(masks, permutations, True, [kept[guess] for guess in guesses]))
        yield f"Inferred from {num_samples} images, {name}: {hits} of {NUM_TASKS} right, {reached:.2f} %."
    found = [recall_by_entropy(masks, memory, part) for part in parts]
    hits = sum(torch.equal(mask, right) for mask, right in zip(found, kept, strict=True))
    some = sum(any(torch.equal(mask, other) for other in kept) for mask in found)
    reached = mean(accuracies(masks, permutations, True, found))
    yield (
        f"Recalled from the memory by data alone: {hits} of {NUM_TASKS} the right mask, {some - hits} another stored "
        f"one, {NUM_TASKS - some} none; {reached:.2f} %."
    )


def capacity() -> Iterator[str]:
    yield f"{NUM_NEURONS} neurons: share of stored random masks that come back exactly, {NUM_ASKED} asked."
    yield ""
    yield "| masks stored | as stored | 10 % of bits flipped | 25 % flipped |"
    yield "|---:|---:|---:|---:|"
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(COUNTS[-1], NUM_NEURONS, generator=generator) < 0.5
    memory = Hopfield(NUM_NEURONS)
    for pattern in patterns:
        memory.store(pattern)
        if memory.num_patterns in COUNTS:
            asked = patterns[: min(NUM_ASKED, memory.num_patterns)]
            rates: list[str] = []
            for share in (0.0, 0.1, 0.25):
                flips = torch.rand(asked.shape, generator=generator) < share
                back = [torch.equal(memory.recall(one ^ flip), one) for one, flip in zip(asked, flips, strict=True)]
                rates.append(f"{sum(back) / len(back):.2f}")
            yield f"| {memory.num_patterns} | {' | '.join(rates)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--text", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    report(lines(given.steps, given.samples, given.times), provenance(), given.text)


if __name__ == "__main__":
    main()
