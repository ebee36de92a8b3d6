"""A made-up problem: learn what a random network thinks of random numbers."""

import math

import torch
from torch import Tensor

from .task import Split, TaskData

ATTRIBUTION = "Teacher: made by this package from a fixed seed; nobody's data."
INPUT_SHAPE = (1, 4, 8)  # four rows of numbers, which neighbours have nothing to do with each other
NUM_CLASSES = 10
NUM_HIDDEN = 16
SIZES = (6_000, 500, 500, 1_000)  # train, verify, tune, test
NOISE = 0.05  # share of labels that are drawn anew, from all classes alike
TEACHER_SEED = 1989


def load_teacher() -> TaskData:
    """8,000 vectors of 32 standard normal numbers, in the 10 classes that a random network puts them in.

    The teacher of the student and teacher problem (E. Gardner and B. Derrida, 1989, Three unfinished works on the
    optimal storage capacity of networks) with one hidden layer of 16 rectified units:

        label = argmax_k (z_k - mean z_k) / deviation z_k,   z = V relu(W x),   W, V standard normal,

    normalised over all samples, so that every class occurs; then 5 % of the labels are drawn at random. Needs no file.
    """
    generator = torch.Generator().manual_seed(TEACHER_SEED)
    num_samples, num_inputs = sum(SIZES), math.prod(INPUT_SHAPE)
    inputs = torch.randn(num_samples, num_inputs, generator=generator)
    labels = _teach(inputs, generator)
    noisy = torch.rand(num_samples, generator=generator) < NOISE
    labels = torch.where(noisy, torch.randint(NUM_CLASSES, (num_samples,), generator=generator), labels)
    parts = zip(inputs.reshape(num_samples, *INPUT_SHAPE).split(list(SIZES)), labels.split(list(SIZES)), strict=True)
    train, verify, tune, test = (Split(part.clone(), classes.clone()) for part, classes in parts)
    return TaskData("teacher", train, verify, tune, test, NUM_CLASSES, INPUT_SHAPE, ATTRIBUTION)


def _teach(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """What the teacher says, `[sample]`; in float64, so that rounding differs between machines on no sample."""
    into = torch.randn(inputs.shape[1], NUM_HIDDEN, generator=generator).double()
    out_of = torch.randn(NUM_HIDDEN, NUM_CLASSES, generator=generator).double()
    logits = (inputs.double() @ into).relu() @ out_of
    return ((logits - logits.mean(0)) / logits.std(0)).argmax(1)
