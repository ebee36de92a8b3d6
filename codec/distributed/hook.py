"""The codec as a communication hook of `DistributedDataParallel`, without Lightning.

DDP hands over gradients in buckets that it rearranges after the first step. Here they are collected by parameter name
until the last bucket of a step has come, averaged as one vector, and handed back. The exchange happens synchronously
inside the hook of the last bucket: on gloo a collective that is waited for inside a future's callback hangs as soon as
there are two buckets. The price is that communication does not overlap with the backward pass.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ...forecast import Layout, layout_of, trainable_parameters
from ..codec import Codec
from ..config import CodecConfig
from ..errors import CodecError
from .exchange import PacketExchange

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
    result = torch.zeros_like(buffer)
    for name, gradient in pieces:
        offset = gradient.storage_offset() - buffer.storage_offset()
        place = result.as_strided(gradient.size(), gradient.stride(), offset)
        place.copy_(vector[layout[name].span].reshape(gradient.shape))
    return result


class GradientCodec:
    """State of the hook: what `register_gradient_codec` returns. Save its `state_dict` for each rank.

    Args:
        module: the wrapped module, without DDP.
        exchange: averages vectors of the module's layout.

    Attributes:
        exchange: encoder, decoders and byte counts.
        learning_rate: at which the optimiser applies the coming gradients, for error feedback. Set it before the
            backward pass, the same on every rank, where steps are proportional to the gradient (SGD) and the rate
            changes; leave it `None` with Adam and its like. It is not in `state_dict`.
    """

    def __init__(self, module: torch.nn.Module, exchange: PacketExchange) -> None:
        self.exchange = exchange
        self.learning_rate: float | None = None
        self._layout = layout_of(module)
        self._names = {id(parameter): name for name, parameter in trainable_parameters(module).items()}
        self._pending: list[tuple[torch.futures.Future[Tensor], Tensor, list[Piece]]] = []

    @property
    def bytes_sent(self) -> int:
        """Bytes that this rank put on the wire, padding included."""
        return self.exchange.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that came from all other ranks, padding included."""
        return self.exchange.bytes_received

    def state_dict(self) -> dict[str, object]:
        """This rank's state; DDP itself saves none of it."""
        return self.exchange.state_dict()

    def load_state_dict(self, saved: dict) -> None:
        """Take over what `state_dict` gave on the same rank.

        Raises:
            StateError: if it does not fit.
        """
        self.exchange.load_state_dict(saved)

    def add(
        self,
        bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]  # public in the documentation
    ) -> torch.futures.Future[Tensor]:
        """Take one bucket; its future is done when the last bucket of the step has been added.

        Raises:
            CodecError: if the buckets of a step do not cover the layout, or a packet cannot be decoded.
        """
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
        vector = torch.zeros(self._layout.size)
        for _, _, pieces in pending:
            collect(vector, pieces, self._layout)
        mean = self.exchange.average(vector, self.learning_rate)
        for future, buffer, pieces in pending:
            future.set_result(give_back(mean, pieces, buffer, self._layout))


def codec_hook(state, bucket):
    """The hook itself; DDP asks for the name `bucket`, and for no annotation under postponed evaluation."""
    return state.add(bucket)


def register_gradient_codec(
    ddp_model: DistributedDataParallel,
    config: CodecConfig | None = None,
    process_group: dist.ProcessGroup | None = None,
) -> GradientCodec:
    """Let DDP average its gradients through the codec. Call it once, on every rank, before the first step.

    The gradients of a step are averaged as one vector, whatever DDP's buckets are. Under `no_sync` nothing is sent; the
    next step sends the accumulated gradient. Gradients that are not finite reach all ranks as they are, without a trace
    in the codec's state, so that a loss scaler can skip the step.

    Args:
        ddp_model: the wrapped network.
        config: the same on every rank.
        process_group: the one that `ddp_model` was made with; the default group if not given.

    Returns:
        The hook's state: byte counts, and `state_dict` for checkpoints.

    Raises:
        ConfigError: on every rank, if layouts or configurations differ between ranks.

    References:
        `torch.nn.parallel.DistributedDataParallel.register_comm_hook`.
    """
    group = process_group if process_group is not None else dist.group.WORLD
    if group is None:
        raise CodecError("There is no process group. Call `torch.distributed.init_process_group` first.")
    codec = Codec(layout_of(ddp_model.module), config)
    device = torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")
    state = GradientCodec(ddp_model.module, PacketExchange(codec, group, device))
    ddp_model.register_comm_hook(state, codec_hook)
    return state
