"""Fashion-MNIST, found on this machine or fetched."""

import torch
from torch import Tensor

from .fetch import RemoteFile, find_files
from .idx import read_idx
from .task import Split, TaskData, normalised, shuffled_split

ATTRIBUTION = (
    "Fashion-MNIST: H. Xiao, K. Rasul and R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for Benchmarking "
    "Machine Learning Algorithms, arXiv:1708.07747; copyright Zalando SE, MIT licence."
)
BASE_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"  # official, plain HTTP: hence the digests
TRAIN_IMAGES = RemoteFile(
    "train-images-idx3-ubyte.gz", 26_421_856, "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
)
TRAIN_LABELS = RemoteFile(
    "train-labels-idx1-ubyte.gz", 29_491, "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
)
TEST_IMAGES = RemoteFile(
    "t10k-images-idx3-ubyte.gz", 4_422_079, "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
)
TEST_LABELS = RemoteFile(
    "t10k-labels-idx1-ubyte.gz", 5_125, "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
MEAN, DEVIATION = 72.94, 90.02  # of all pixels of the 60,000 training images, whose values run from 0 to 255
SIZES = (55_000, 2_500, 2_500)  # train, verify, tune, out of the published training set
SPLIT_SEED = 2017


def load_fashion_mnist(data: str | None = None) -> TaskData:
    """70,000 grey images of clothes, 28 x 28 pixels, in 10 classes; the published test set is `test`.

    Args:
        data: a folder with the four published files; see `find_files` for where they are looked for without it.

    Raises:
        DataError: if the files cannot be found or fetched, or are damaged.
    """
    training, test = (Split(normalised(pixels, MEAN, DEVIATION), labels) for pixels, labels in read_published(data))
    train, verify, tune = shuffled_split(training, SIZES, SPLIT_SEED)
    return TaskData("fashion_mnist", train, verify, tune, test, 10, (1, 28, 28), ATTRIBUTION, spatial=True)


def read_published(data: str | None = None) -> list[tuple[Tensor, Tensor]]:
    """The training and the test set as published, in their order: pixels `[n, 28, 28]` from 0 to 255, and labels `[n]`.

    Args:
        data: see `load_fashion_mnist`.

    Raises:
        DataError: if the files cannot be found or fetched, or are damaged.
    """
    folder = find_files("fashion-mnist", FILES, data, BASE_URL)
    return [
        (
            torch.from_numpy(read_idx(folder / images.name, (num_samples, 28, 28))),
            torch.from_numpy(read_idx(folder / labels.name, (num_samples,))).long(),
        )
        for images, labels, num_samples in ((TRAIN_IMAGES, TRAIN_LABELS, 60_000), (TEST_IMAGES, TEST_LABELS, 10_000))
    ]
