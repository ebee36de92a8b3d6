"""The UCI digits, which the package brings along."""

import importlib.resources

import numpy as np
import torch

from .task import Split, TaskData, normalised, shuffled_split

ATTRIBUTION = (
    "Digits: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning "
    "Repository, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0; stored as bytes, values unchanged."
)
MEAN, DEVIATION = 4.88, 6.02  # of all pixels, whose values run from 0 to 16
SIZES = (997, 200, 200, 400)  # train, verify, tune, test
SPLIT_SEED = 1998


def load_digits() -> TaskData:
    """1,797 grey images of handwritten digits, 8 x 8 pixels, in 10 classes."""
    resource = importlib.resources.files("deadreckon.experiments.tasks") / "digits.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    everything = Split(normalised(images, MEAN, DEVIATION), labels.long())
    train, verify, tune, test = shuffled_split(everything, SIZES, SPLIT_SEED)
    return TaskData("digits", train, verify, tune, test, 10, (1, 8, 8), ATTRIBUTION, spatial=True)
