"""The authors' cases: what went into their code, and what came out of it."""

from typing import Any

import torch
from conftest import golden_folder
from torch import Tensor

from deadreckon.forecast import Layout, TensorSpec
from deadreckon.models.graph_edges import EdgeList
from deadreckon.models.nino_network import SLOTS

CASES = ("cnn_fm16", "mlp", "gpt2_tiny")


class Golden:
    """One case.

    Attributes:
        content: all that the file holds.
        layout: of the network.
        rows: its five states, `[time, param]`.
        edges: the authors' graph.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        names, shapes = content["param_names"], content["param_shapes"]
        specs: list[TensorSpec] = []
        offset = 0
        for name, shape in zip(names, shapes, strict=True):
            specs.append(TensorSpec(name, tuple(shape), "float32", offset, "other"))
            offset += specs[-1].numel
        self.layout = Layout(tuple(specs))
        self.rows = torch.cat([content["history"][name].flatten(1) for name in names], dim=1)
        scalars = content["edge_param_index"].long()
        self.edges = EdgeList(
            content["edge_index"].long(),
            content["edge_type"].long(),
            torch.nn.functional.pad(scalars, (0, SLOTS - scalars.shape[1]), value=-1),
            content["node_count"],
            torch.full((content["node_count"],), -1),
            torch.ones(content["edge_count"], dtype=torch.bool),
        )

    def prediction(self, name: str, horizon: int) -> Tensor:
        """What the authors' code forecasts, `[param]`."""
        found = self.content[name][horizon]
        return torch.cat([found[spec.name].flatten() for spec in self.layout])


def golden(case: str) -> Golden:
    """A case by name; the test is skipped where the files are not at hand."""
    name = f"golden_{case}.pt"
    return Golden(torch.load(f"{golden_folder(name)}/{name}", weights_only=True))


def released_path() -> str:
    """The authors' checkpoint; the test is skipped where it is not at hand."""
    name = "nino_no_posw.pt"
    return f"{golden_folder(name)}/{name}"


def require_close(found: Tensor, expected: Tensor, last: Tensor) -> None:
    """Within 2e-6, and 3e-5 of the forecast change: what was seen between two machines, doubled or more."""
    difference = found.double() - expected.double()
    assert float(difference.abs().max()) <= 2e-6
    assert float(difference.norm() / (expected - last).double().norm()) <= 3e-5
