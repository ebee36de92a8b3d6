"""Which of a network's coordinates are recorded: all, some tensors by name, or a random sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import LayoutError
from .layout import Layout, TensorSpec


@dataclass(frozen=True, eq=False)
class Selection:
    """A choice among the coordinates of a network.

    Attributes:
        network: the layout of everything that could be recorded.
        layout: the layout of what is: whole tensors in their order; of a sample, by tensor, the coordinates that were
            drawn, as a flat tensor of the same name.
        coordinates: of a sample, which coordinates of the network's vector those are, `[param]`, int64, increasing;
            None where tensors are whole.
        patterns: what names of tensors had to match.
        seed: of the sample.
    """

    network: Layout
    layout: Layout
    coordinates: NDArray[np.int64] | None
    patterns: tuple[str, ...]
    seed: int

    @classmethod
    def choose(
        cls, network: Layout, patterns: Sequence[str] = ("*",), sample: int | None = None, seed: int = 0
    ) -> Self:
        """Choose tensors by name and, if asked for, a sample of their coordinates.

        Args:
            network: the layout to choose from.
            patterns: a tensor is chosen if its name matches one of them, as file names do: `*` for anything, `?` for
                one character, `[ab]` for one of some.
            sample: how many coordinates to draw from the chosen tensors, each with equal chance, none twice; all if
                None or if there are not more.
            seed: of the draw.

        Raises:
            LayoutError: if no tensor matches, or the sample is empty.
        """
        chosen = [spec for spec in network if any(fnmatchcase(spec.name, pattern) for pattern in patterns)]
        if not chosen:
            raise LayoutError(
                f"`parameters` must match the name of a trainable tensor, got {list(patterns)}. There are: "
                f"{', '.join(network.names):.400}."
            )
        if sample is not None and sample < 1:
            raise LayoutError(f"`sample` must be at least 1, got {sample}.")
        whole = _end_to_end([(spec, spec.shape) for spec in chosen])
        if sample is None or sample >= whole.size:
            return cls(network, whole, None, tuple(patterns), seed)
        drawn = np.sort(np.random.default_rng(seed).choice(whole.size, sample, replace=False, shuffle=False))
        starts = np.array([spec.offset for spec in whole])
        tensor = np.searchsorted(starts, drawn, side="right") - 1
        places = drawn - starts[tensor] + np.array([spec.offset for spec in chosen])[tensor]
        return cls.from_coordinates(network, places.astype(np.int64), tuple(patterns), seed)

    @classmethod
    def from_coordinates(
        cls, network: Layout, coordinates: NDArray[np.int64], patterns: tuple[str, ...], seed: int
    ) -> Self:
        """The selection of given coordinates.

        Raises:
            LayoutError: if they do not increase or lie outside the network.
        """
        inside = len(coordinates) and coordinates[0] >= 0 and coordinates[-1] < network.size
        if not inside or bool((np.diff(coordinates) <= 0).any()):
            raise LayoutError(f"Coordinates must increase and lie within 0 and {network.size}.")
        counts = np.diff(np.searchsorted(coordinates, [*(spec.offset for spec in network), network.size]))
        kept = [(spec, (int(count),)) for spec, count in zip(network, counts, strict=True) if count]
        return cls(network, _end_to_end(kept), coordinates, patterns, seed)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.layout.digest == self.network.digest

    def places(self, name: str) -> NDArray[np.int64] | None:
        """Which elements of one tensor of the network, flat, were drawn; None if it is whole."""
        if self.coordinates is None:
            return None
        spec = self.layout[name]
        return self.coordinates[spec.span] - self.network[name].offset

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the coordinates."""
        sampled = self.coordinates is not None
        return {
            "network": self.network.to_dict(),
            "patterns": list(self.patterns),
            "sampled": sampled,
            "seed": self.seed,
        }


def _end_to_end(parts: Sequence[tuple[TensorSpec, tuple[int, ...]]]) -> Layout:
    """A layout of tensors with new shapes, one behind the other."""
    specs: list[TensorSpec] = []
    offset = 0
    for spec, shape in parts:
        specs.append(TensorSpec(spec.name, shape, spec.dtype, offset, spec.kind))
        offset += specs[-1].numel
    return Layout(tuple(specs))
