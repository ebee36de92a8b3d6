"""The rows that a recorder takes: which streams there are, what they mean, and how they are copied."""

from collections.abc import Mapping, Sequence
from typing import Literal

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..forecast import Layout, LayoutError, Selection, TensorSpec, layout_of, trainable_parameters
from ..forecast.packing import plain_name
from .errors import UnsupportedTrainerError
from .recorded_moments import MomentName, moment_names, moments_by_name, overwrites_gradients
from .recorder_support import whole
from .support import require_unchanged

StreamName = (
    Literal["weights", "gradients", "raw_gradients", "rank_gradients", "updates", "buffers", "moments"] | MomentName
)
RANK_STREAM = "gradients_of_rank_"  # and the process' number
TAKEN: tuple[str, ...] = ("weights", "gradients", "raw_gradients", "rank_gradients", "updates", "buffers")


class RecordedStreams:
    """The streams of one run, and where their rows come from.

    Args:
        module: the network, its parameters as the optimisers see them.
        optimizers: all of the Trainer's.
        asked: names of streams, `moments` and `rank_gradients` among them.
        num_ranks: processes.
        selection: which coordinates of the trainable parameters are recorded.

    Attributes:
        names: of the streams, with `moments` and `rank_gradients` spelled out, each with the name it was asked by.
        selection: as given.
        layouts: by stream, layouts other than the selection's.

    Raises:
        UnsupportedTrainerError: if a stream has nothing to record.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizers: Sequence[torch.optim.Optimizer],
        asked: Sequence[str],
        num_ranks: int,
        selection: Selection,
    ) -> None:
        self.selection = selection
        spoilt = [type(optimizer).__name__ for optimizer in optimizers if overwrites_gradients(optimizer)]
        if "gradients" in asked and spoilt:
            raise UnsupportedTrainerError(
                f"{spoilt[0]} overwrites gradients in its step, so 'gradients' cannot be read after it. Record "
                "'raw_gradients', which is the same where nothing is clipped."
            )
        self.names: dict[str, str] = {}
        self.layouts: dict[str, Layout] = {}
        self._module = module
        self._optimizers = tuple(optimizers)
        kept = list(dict.fromkeys(name for optimizer in optimizers for name in moment_names(optimizer)))
        for name in asked:
            if name == "moments":
                found = kept
            elif name == "rank_gradients":
                found = [f"{RANK_STREAM}{rank}" for rank in range(num_ranks)]
            else:
                found = [name] if name in TAKEN or name in kept else []
            if not found:
                raise UnsupportedTrainerError(
                    f"The stream {name!r} needs an optimiser that keeps it, got "
                    f"{', '.join(type(optimizer).__name__ for optimizer in optimizers)}, which is known to keep "
                    f"{', '.join(kept) or 'none'}. See docs/support-matrix.md for what each optimiser's moments are."
                )
            self.names |= {each: name for each in found}
        if "buffers" in self.names:
            self.layouts["buffers"] = buffer_layout(module)
        self._places = {
            name: None if (found := selection.places(name)) is None else torch.from_numpy(found)
            for name in selection.layout.names
        }
        self._owned = [
            {id(value) for group in optimizer.param_groups for value in group["params"]} for optimizer in optimizers
        ]

    def layout(self, stream: str) -> Layout:
        """What the coordinates of a stream mean."""
        return self.layouts.get(stream, self.selection.layout)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters, by name.

        Raises:
            UnsupportedTrainerError: if they are not what they were when the run began.
        """
        parameters = trainable_parameters(self._module)
        require_unchanged(parameters, self.selection.network, "TrajectoryRecorder")
        return parameters

    @torch.no_grad()
    def take(self, stream: str, optimizer: int, out: NDArray[np.float32] | None) -> None:
        """Copy what a stream holds now into a row; `updates` and rank gradients are made elsewhere.

        Under strategies that shard parameters this is a collective: every process calls it in the same order.

        Args:
            stream: its name.
            optimizer: which optimiser has stepped; a gradient is of its parameters, the others' is zero.
            out: the row, `[param]`; None in processes that do not write.
        """
        if stream == "buffers":
            buffers = _buffers(self._module)
            fill_row(buffers, self.layouts["buffers"], {}, out)
            return
        parameters = self.parameters()
        tensors: Mapping[str, Tensor | None]
        if stream in ("weights", "updates"):
            tensors = parameters
        elif stream in ("gradients", "raw_gradients"):
            owned = self._owned[optimizer]
            tensors = {name: value.grad if id(value) in owned else None for name, value in parameters.items()}
        else:
            tensors = moments_by_name(stream, self._optimizers, parameters)
        self.lay_out(tensors, out)

    def lay_out(self, tensors: Mapping[str, Tensor | None], out: NDArray[np.float32] | None) -> None:
        """Copy what is selected of one tensor for each parameter into a row."""
        fill_row(tensors, self.selection.layout, self._places, out)


def fill_row(
    tensors: Mapping[str, Tensor | None],
    layout: Layout,
    places: Mapping[str, Tensor | None],
    out: NDArray[np.float32] | None,
) -> None:
    """Lay named tensors end to end, or chosen elements of them; what is missing (`None`) counts as zeros.

    Args:
        tensors: by name; more than the layout's do no harm. Sharded ones are gathered first, by all processes.
        layout: the order, and how many elements there are of each.
        places: by name, which elements of the flat tensor, `[param]`; all if None or not there.
        out: `[param]`; None to take part in gathering only.

    Raises:
        LayoutError: if a tensor is of another shape.
    """
    row = None if out is None else torch.from_numpy(out)
    for spec in layout:
        value = tensors[spec.name]
        if value is None:
            if row is not None:
                row[spec.span] = 0
            continue
        value = whole(value.detach())
        if row is None:
            continue
        chosen = places.get(spec.name)
        if chosen is not None:
            row[spec.span].copy_(value.reshape(-1)[chosen.to(value.device)])
            continue
        if tuple(value.shape) != spec.shape:
            raise LayoutError(f"Tensor {spec.name!r} must have shape {spec.shape}, got {tuple(value.shape)}.")
        row[spec.span].view(spec.shape).copy_(value)


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers of floating point that a checkpoint would hold, by plain name. Counters are left out."""
    stored = {plain_name(name) for name in module.state_dict()}
    found = {plain_name(name): value for name, value in module.named_buffers()}
    return {name: value for name, value in found.items() if name in stored and value.is_floating_point()}


def buffer_layout(module: nn.Module) -> Layout:
    """The layout of a module's buffers of floating point: running means and variances of BatchNorm, mostly.

    Raises:
        UnsupportedTrainerError: if it has none.
    """
    specs: list[TensorSpec] = []
    offset = 0
    for name, value in _buffers(module).items():
        specs.append(TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."), offset, "other"))
        offset += value.numel()
    if not offset:
        raise UnsupportedTrainerError(
            "The stream 'buffers' needs a module with buffers of floating point; it has none."
        )
    return Layout(tuple(specs))


def choose(module: pl.LightningModule, patterns: Sequence[str], sample: int | None, seed: int) -> Selection:
    """Which coordinates of a module's trainable parameters are recorded."""
    return Selection.choose(layout_of(module), patterns, sample, seed)
