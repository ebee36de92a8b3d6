"""The codec as a communication hook of `DistributedDataParallel`, without Lightning.

DDP hands over gradients in buckets that it rearranges after the first step. Here they are collected by parameter name
until the last bucket of a step has come, averaged as one vector, and handed back. The exchange happens synchronously
inside the hook of the last bucket: on gloo a collective that is waited for inside a future's callback hangs as soon as
there are two buckets. The price is that communication does not overlap with the backward pass.
"""

from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ...forecast import Layout, Ledger, layout_of, trainable_parameters
from ..codec import Codec
from ..config import CodecConfig
from ..errors import CodecError, ConfigError, StateError
from .aggregation import Aggregation
from .options import ExchangeConfig
from .replicas import ReplicaCheck
from .traffic import Traffic
from .wire import GroupWire

Piece = tuple[str, Tensor]  # a parameter's name and its gradient, a view of a bucket


def collect(vector: Tensor, pieces: list[Piece], layout: Layout) -> None:
    """Write gradients to their places in `vector`, `[param]`."""
    for name, gradient in pieces:
        vector[layout[name].span] = gradient.reshape(-1)


def give_back(vector: Tensor, pieces: list[Piece], buffer: Tensor, layout: Layout) -> Tensor:
    """A bucket of `buffer`'s shape that holds the coordinates of `vector`; the inverse of `collect`.

    Args:
        vector: `[param]`.
        pieces: names and gradients; each gradient a view of `buffer`, of any strides (channels-last parameters).
        buffer: the bucket that came.
        layout: where the coordinates lie.
    """
    covered = sum(gradient.numel() for _, gradient in pieces) == buffer.numel()
    result = torch.empty_like(buffer) if covered else torch.zeros_like(buffer)
    for name, gradient in pieces:
        offset = gradient.storage_offset() - buffer.storage_offset()
        place = result.as_strided(gradient.size(), gradient.stride(), offset)
        place.copy_(vector[layout[name].span].reshape(gradient.shape))
    return result


@final
class GradientCodec:
    """State of the hook: what `register_gradient_codec` returns. Save its `state_dict` for each rank.

    Args:
        module: the wrapped module, without DDP.
        aggregation: averages vectors of the module's layout.
        check: of the module's parameters.

    Attributes:
        aggregation: how gradients are averaged, and their byte counts.
        check: compares parameters between ranks, before every so many averages.
        ledger: what `comparing` and `exchanging` cost; the latter is encoding, decoding and waiting for the link.
        learning_rate: at which the optimiser applies the coming gradients, for error feedback. Set it before the
            backward pass, the same on every rank, where steps are proportional to the gradient (SGD) and the rate
            changes; leave it `None` with Adam and its like. It is not in `state_dict`.
        loss_scale: what the loss is multiplied by in this backward pass, `GradScaler.get_scale()`. Set it before the
            backward pass, the same on every rank. Gradients are divided by it before they are coded and multiplied
            after, so that predictor and error feedback see true gradients while the scale changes. Steps that overflow
            reach all ranks as they are. It is not in `state_dict`.
    """

    def __init__(self, module: torch.nn.Module, aggregation: Aggregation, check: ReplicaCheck) -> None:
        self.aggregation = aggregation
        self.check = check
        self.learning_rate: float | None = None
        self.loss_scale = 1.0
        self.ledger = Ledger()
        self._layout = layout_of(module)
        self._names = {id(parameter): name for name, parameter in trainable_parameters(module).items()}
        self._pending: list[tuple[torch.futures.Future[Tensor], Tensor, list[Piece]]] = []

    @property
    def traffic(self) -> Traffic:
        """Bytes and bits so far."""
        return self.aggregation.traffic

    def state_dict(self) -> dict[str, Any]:
        """This rank's state; DDP itself saves none of it."""
        return {"aggregation": self.aggregation.state_dict(), "num_steps": self.check.num_steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave on the same rank.

        Raises:
            StateError: if it does not fit.
        """
        if set(saved) != {"aggregation", "num_steps"}:
            raise StateError(f"The saved state of the hook is damaged: it has the entries {sorted(saved)}.")
        self.aggregation.load_state_dict(saved["aggregation"])
        self.check.num_steps = int(saved["num_steps"])

    def add(
        self,
        bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]  # public in the documentation
    ) -> torch.futures.Future[Tensor]:
        """Take one bucket; its future is done when the last bucket of the step has been added.

        Raises:
            CodecError: if the buckets of a step do not cover the layout, or as `Aggregation.average` does.
            ReplicaError: if parameters differ between ranks.
        """
        if isinstance(bucket, tuple):
            raise CodecError(
                "DDP hands over single gradients, as it does under compiled autograd. Compile submodules instead, "
                "or set `torch._dynamo.config.optimize_ddp` to another value than 'python_reducer'."
            )
        if bucket.index() == 0:
            self._pending = []  # of a step that was broken off
        pieces = [
            (self._names[id(parameter)], gradient)
            for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True)
        ]
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        self._pending.append((future, bucket.buffer(), pieces))
        if bucket.is_last():
            self._finish()
        return future

    def _finish(self) -> None:
        pending, self._pending = self._pending, []
        covered = {name for _, _, pieces in pending for name, _ in pieces}
        missing = [name for name in self._layout.names if name not in covered]
        if missing:
            raise CodecError(f"DDP sent no gradient of {missing[0]!r}. The codec cannot leave parameters out.")
        if not self.loss_scale > 0:
            raise CodecError(f"`loss_scale` must be above 0, got {self.loss_scale!r}.")
        with self.ledger.charge("comparing"):
            if self.check.step():
                self.aggregation.request_key_frame()
        vector = torch.empty(self._layout.size)  # all of it is covered, as has been checked
        for _, _, pieces in pending:
            collect(vector, pieces, self._layout)
        is_scaled = self.loss_scale != 1
        with self.ledger.charge("exchanging"):
            mean = self.aggregation.average(vector.div_(self.loss_scale) if is_scaled else vector, self.learning_rate)
        if is_scaled:
            mean.mul_(self.loss_scale)
        for future, buffer, pieces in pending:
            future.set_result(give_back(mean, pieces, buffer, self._layout))


def codec_hook(state, bucket):
    """The hook itself; DDP asks for the name `bucket`, and for no annotation under postponed evaluation."""
    return state.add(bucket)


def register_gradient_codec(
    ddp_model: DistributedDataParallel,
    config: CodecConfig | None = None,
    process_group: dist.ProcessGroup | None = None,
    exchange: ExchangeConfig | None = None,
) -> GradientCodec:
    """Let DDP average its gradients through the codec. Call it once, on every rank, before the first step.

    The gradients of a step are averaged as one vector, whatever DDP's buckets are. Under `no_sync` nothing is sent; the
    next step sends the accumulated gradient. Gradients that are not finite reach all ranks as they are, without a trace
    in the codec's state, so that a loss scaler can skip the step. Under `join`, ranks that ended count as zeros, and
    the mean is over all ranks that began.

    Args:
        ddp_model: the wrapped network.
        config: the same on every rank.
        process_group: the one that `ddp_model` was made with; the default group if not given.
        exchange: how ranks exchange; all-gather if not given.

    Returns:
        The hook's state: byte counts, and `state_dict` for checkpoints.

    Raises:
        ConfigError: on every rank, if networks, settings or machines differ between ranks; if a parameter is float64.

    References:
        `torch.nn.parallel.DistributedDataParallel.register_comm_hook`.
    """
    exchange = ExchangeConfig() if exchange is None else exchange
    wire = GroupWire(process_group, exchange.timeout)
    module = ddp_model.module
    layout = layout_of(module)
    wide = [spec.name for spec in layout if spec.dtype == "float64"]
    if wide:
        raise ConfigError(f"The codec carries float32; {wide[0]!r} is float64. Use `module.float()`.")
    aggregation = exchange.make(Codec(layout, config), wire)
    check = ReplicaCheck(wire, lambda: trainable_parameters(module), exchange.check_every, exchange.heals)
    state = GradientCodec(module, aggregation, check)
    ddp_model.register_comm_hook(state, codec_hook)
    return state
