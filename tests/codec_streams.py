"""Layouts and streams of vectors that the codec's tests share."""

import numpy as np
import torch
from torch import Tensor, nn

from deadreckon.forecast import Layout, TensorSpec, flatten, layout_of, trainable_parameters


def layout_from(shapes: dict[str, tuple[int, ...]]) -> Layout:
    specs, offset = [], 0
    for name, shape in shapes.items():
        spec = TensorSpec(name, shape, "float32", offset, "other")
        specs.append(spec)
        offset += spec.numel
    return Layout(tuple(specs))


LAYOUTS = {
    "large, small, empty and 0-d tensors": layout_from(
        {"large": (70, 60), "bias": (60,), "empty": (0, 3), "scale": (), "small": (8, 9), "last": (5,)}
    ),
    "one tensor": layout_from({"w": (40, 50)}),
    "one element": layout_from({"w": (1,)}),
    "0-d": layout_from({"w": ()}),
    "nothing": layout_from({"w": (0,)}),
}


def ar1_stream(layout: Layout, length: int, seed: int = 0, correlation: float = 0.9) -> list[Tensor]:
    """Vectors that follow an AR(1) process with Laplace innovations and a scale of its own for each tensor."""
    generator = np.random.default_rng(seed)
    scales = np.concatenate([np.full(spec.numel, 10.0 ** generator.uniform(-3, 0)) for spec in layout] or [np.zeros(0)])
    vector = generator.laplace(size=layout.size)
    rows = []
    for _ in range(length):
        noise = generator.laplace(size=layout.size)
        vector = correlation * vector + (1 - correlation**2) ** 0.5 * noise
        rows.append(torch.from_numpy((scales * vector).astype(np.float32)))
    return rows


def gradient_stream(length: int, batch: int = 32, seed: int = 0) -> tuple[list[Tensor], Layout]:
    """Gradients of a small convolutional net that is trained on a made-up task with Adam."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 48),
            nn.ReLU(),
            nn.Linear(48, 10),
        )
    classes = torch.randn(10, 1, 10, 10, generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    layout = layout_of(net)
    rows = []
    for _ in range(length):
        labels = torch.randint(10, (batch,), generator=generator)
        images = classes[labels] + 2 * torch.randn(batch, 1, 10, 10, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        rows.append(flatten({name: value.grad for name, value in trainable_parameters(net).items()}, layout))
        optimizer.step()
    return rows, layout
