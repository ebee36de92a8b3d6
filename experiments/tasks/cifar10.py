"""CIFAR-10, where the user has it."""

from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from .fetch import RemoteFile, find_files
from .task import Split, TaskData, shuffled_split

ATTRIBUTION = "CIFAR-10: A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, technical report."
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
NUM_CLASSES, SHAPE = 10, (3, 32, 32)
BATCH_SAMPLES = 10_000  # of each file
SAMPLE_BYTES = 1 + 3 * 32 * 32  # a label, then red, green and blue planes, row by row
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
MEAN, DEVIATION = 120.7, 64.2  # of all values of the 50,000 training images, which run from 0 to 255
SIZES = (45_000, 2_500, 2_500)  # train, verify, tune, out of the published training set
SPLIT_SEED = 2009


def load_cifar10(data: str | None = None) -> TaskData:
    """60,000 colour images, 32 x 32 pixels, in 10 classes; the published test set is `test`.

    The files are those of the binary version, which holds no pickles. They are never fetched.

    Args:
        data: a folder with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or with a sub-folder
            `cifar-10` that holds them; see `find_files` for where they are looked for without it.

    Raises:
        DataError: if the files cannot be found, or are damaged.
    """
    files = [RemoteFile(name, BATCH_SAMPLES * SAMPLE_BYTES) for name in (*TRAIN, TEST)]
    folder = find_files("cifar-10", files, data, f"{PAGE} (the binary version)", is_fetched=False)
    published = [_read(folder / name) for name in TRAIN]
    whole = Split(torch.cat([part.inputs for part in published]), torch.cat([part.labels for part in published]))
    train, verify, tune = shuffled_split(whole, SIZES, SPLIT_SEED)
    return TaskData("cifar10", train, verify, tune, _read(folder / TEST), NUM_CLASSES, SHAPE, ATTRIBUTION, spatial=True)


def _read(path: Path) -> Split:
    """The images and labels of one file, `[sample, channel, height, width]`, float32, and `[sample]`."""
    content = np.fromfile(path, np.uint8)
    if len(content) != BATCH_SAMPLES * SAMPLE_BYTES:
        raise DataError(f"{path} must have {BATCH_SAMPLES * SAMPLE_BYTES} bytes, got {len(content)}.")
    rows = torch.from_numpy(content.reshape(BATCH_SAMPLES, SAMPLE_BYTES))
    labels = rows[:, 0].long()
    if int(labels.max()) >= NUM_CLASSES:
        raise DataError(
            f"{path} has a label {int(labels.max())}, and there are {NUM_CLASSES} classes. Is it the binary version of "
            f"CIFAR-10? Get it anew from {PAGE}."
        )
    images = rows[:, 1:].reshape(BATCH_SAMPLES, *SHAPE).float()
    return Split(images.sub_(MEAN).div_(DEVIATION), labels)
