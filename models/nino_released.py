"""NiNo with its authors' weights: a graph network over neurons that forecasts all weights at once."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, cast, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import NotFittedError
from ..forecast.graph import NeuralGraph
from .coordinate_parts import extremes
from .errors import FittingError
from .fitting import Budget, Examples, FitResult, FittableForecaster
from .horizons import between, require_known
from .motion import walked
from .nino_files import MAX_TOKENS, MAX_WIDTH, read_released_network
from .nino_network import HORIZONS, ROWS, SCALE_EPSILON, Merged, NiNoNetwork, merge
from .nino_tiles import NiNoPass
from .options import require_choice, require_integer
from .rows import tensor_scaling
from .stored_state import require_tensors

Variant = Literal["corrected", "released"]
PREFIX = "network."


class Loaded(NamedTuple):
    """The authors' network, what it merges into, and the optimiser steps between the rows that it is given."""

    network: NiNoNetwork
    merged: Merged
    spacing: int


@final
class ReleasedNiNo(FittableForecaster):
    """mean = (scaled last + o_k) * deviation + tensor's mean, with o_k from messages along the network's own edges.

    The graph network of Knyazev, Moudgil, Lajoie, Belilovsky, Lacoste-Julien 2025, "Accelerating Training with Neuron
    Interaction and Nowcasting Networks", ICLR, arXiv 2409.04434. Every neuron is a node, every scalar an edge; two
    rounds of messages, then a perceptron on each edge gives its next 40 values, one row spacing apart. `nino_reference`
    has it as plain formulas; here it is computed on tiles (`nino_tiles`): 13 s of CPU time for 3.4 M parameters.

    Their eigenvectors of the graph's Laplacian are left out: they are arbitrary in degenerate spaces, cost more than
    everything else, and changed forecasts by 0.02 to 0.25 % of the step. A kernel of more than 9 positions, which their
    code refuses, counts as several edges side by side. A tensor that the graph does not explain is forecast without
    messages.

    It damps strongly, is neither odd nor equivariant to scale, and knows nothing of the learning rate: trained on
    constant rates and rows 200 Adam steps apart. Under a decaying rate expect it to overshoot; see `NiNo` for one that
    is trained here. Nobody measured how far off it is: the scale is that of persistence, sigma sqrt(horizon).

    Made by `load_released_nino`; the constructor alone gives one without weights, to be loaded.

    Args:
        variant: `released` does what the authors' code does: the way back is without the epsilon, so that a forecast of
            no change is not exactly the newest value, and what stands still is moved. `corrected` adds the forecast
            change to the newest value, and holds what stands still.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        FittingError: (on fitting) always; it has its authors' weights.
        WindowError: (on forecasting) without a graph, or if rows are spaced otherwise, or a horizon lies beyond 40 row
            spacings.
    """

    name: ClassVar[str] = "nino_released"
    needs_graph: bool = True
    history: int = ROWS

    def __init__(self, variant: Variant = "corrected", stream: str = "weights") -> None:
        super().__init__(stream)
        self.variant: Variant = require_choice("variant", variant, ("corrected", "released"))
        self._loaded: Loaded | None = None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"variant": self.variant, "stream": self.stream}

    @property
    @override
    def fitted(self) -> bool:
        return self._loaded is not None

    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        raise FittingError("This network has its authors' weights and is used as it is. Fit `nino` instead.")

    def take_over(self, network: NiNoNetwork, spacing: int) -> None:
        """Use a network.

        Args:
            network: with values.
            spacing: optimiser steps between the rows of the windows it will be given.
        """
        require_integer("spacing", spacing, 1)
        self._loaded = Loaded(network.requires_grad_(False).eval(), merge(network), spacing)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        loaded = cast(Loaded, self._loaded)  # `forecast` refuses to go on without
        require_known(window, horizons, loaded.spacing, HORIZONS * loaded.spacing)
        return self._each(loaded, window, horizons)

    def _each(self, loaded: Loaded, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        means = self._means(loaded, window, horizons)
        for horizon, mean in zip(horizons, means, strict=True):
            yield Forecast(horizon, mean, walked(window, math.sqrt(horizon)))

    def _means(self, loaded: Loaded, window: Window, horizons: Sequence[int]) -> Tensor:
        """The means, `[horizon, param]`, in the window's type: one pass for all of them."""
        known = loaded.spacing * torch.arange(1, HORIZONS + 1)
        unity = torch.eye(HORIZONS, dtype=torch.float64)
        mixture = torch.stack([between(known, unity, horizon) for horizon in horizons])
        shares = mixture.sum(dim=1).view(-1, 1, 1, 1, 1)
        scaling = tensor_scaling(window)

        def value_of(tensor: int, rows: Tensor, changes: Tensor) -> Tensor:
            mean, deviation = float(scaling.mean[tensor]), float(scaling.deviation[tensor])
            last = rows[-1]
            if self.variant == "released":
                start = (last - mean) * (deviation / (deviation + SCALE_EPSILON)) + mean
                return changes.mul_(deviation).add_(last).add_(shares.to(rows) * (start - last))
            low, high = extremes(rows)
            return changes.mul_(torch.where(high > low, deviation, 0.0)).add_(last)

        graph = cast(NeuralGraph, window.graph)  # `forecast` refuses to go on without
        run = NiNoPass(loaded.merged, graph, window.layout, window.values.cpu(), scaling)
        return run.forecasts(mixture, value_of).to(window.values.device)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        if self._loaded is None:
            return {}
        values = {PREFIX + name: value.clone() for name, value in self._loaded.network.state_dict().items()}
        return {"spacing": torch.tensor(self._loaded.spacing), **values}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if not state:
            self._loaded = None
            return
        network, spacing = self._read(state)
        self.take_over(network, spacing)

    def _read(self, state: Mapping[str, Tensor]) -> tuple[NiNoNetwork, int]:
        """A network from untrusted tensors.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        types, tokens = state.get(PREFIX + "types"), state.get(PREFIX + "tokens")
        width = types.shape[1] if types is not None and types.ndim == 2 else 0
        num_tokens = tokens.shape[0] if tokens is not None and tokens.ndim == 2 else 0
        if not 0 < width <= MAX_WIDTH or num_tokens > MAX_TOKENS:
            raise NotFittedError(f"The state of {self.name!r} describes no network.")
        with torch.device("meta"):
            expected = NiNoNetwork(width, num_tokens).state_dict()
        shapes = {PREFIX + name: (value.dtype, tuple(value.shape)) for name, value in expected.items()}
        require_tensors(self.name, state, {"spacing": (torch.int64, ()), **shapes})
        if int(state["spacing"]) < 1:
            raise NotFittedError(f"'spacing' of {self.name!r} must be at least 1, got {int(state['spacing'])}.")
        network = NiNoNetwork(width, num_tokens)
        network.load_state_dict({name: state[PREFIX + name] for name in expected})
        return network, int(state["spacing"])


def load_released_nino(
    path: str | os.PathLike[str], spacing: int, variant: Variant = "corrected", stream: str = "weights"
) -> ReleasedNiNo:
    """NiNo with its authors' weights, which you have to bring.

    They are `checkpoints/nino_no_posw.pt`, `nino.pt` (embeds GPT-2's vocabulary) and `nino_h32.pt` of the repository
    github.com/SamsungSAILMontreal/nino (MIT licence). Windows must carry the network's graph: `trace_graph`, and
    `released_graph` of it for exactly what the authors' graph has.

    Args:
        path: the checkpoint.
        spacing: optimiser steps between the rows of the windows it will be given; 200 to use it as published.
        variant: `corrected`, or `released` for what the authors' code does; see `ReleasedNiNo`.
        stream: the stream it forecasts.

    Returns:
        A forecaster that is ready.

    Raises:
        ModelFileError: if the file cannot be read or is no such checkpoint; no code in it is run.
        ModelError: if `spacing` or `variant` is impossible.
    """
    forecaster = ReleasedNiNo(variant, stream)
    require_integer("spacing", spacing, 1)
    forecaster.take_over(read_released_network(path), spacing)
    return forecaster
