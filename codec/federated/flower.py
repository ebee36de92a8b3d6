"""The codec in Flower: a mod for clients and a wrapper for the server's strategy. Needs the extra `flower`.

    app = ClientApp(mods=[PacketMod()])                              the client
    strategy = PacketStrategy(FedAvg(...)); strategy.start(...)      the server

Weights go down as packets of differences and come back as packets of pseudo-gradients, each an `Array` of the
serialisation `deadreckon.packet`. The client's function and the wrapped strategy see plain arrays, as without the
codec. What is not float32 (counters, half precision) travels as it is.

The mod keeps a client's weights, and what error feedback owes, in its `Context`. A client that lost its context, and
one that missed more rounds than the server keeps packets for, gets the weights whole. A reply that cannot be decoded is
dropped, as if the client had failed in that round; a warning says why.

Nothing of deadreckon imports this module, and only this module imports flwr.
"""

# pyright: basic, reportMissingImports=false, reportGeneralTypeIssues=false
# (flwr is in an environment of its own, not in the one where types are checked)

import logging
from collections.abc import Iterable
from typing import cast, final

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor
from typing_extensions import override

from ...forecast import Layout, TensorSpec
from ..config import CodecConfig
from ..errors import CodecError, ConfigError
from .client import ClientLink
from .messages import Downlink, Update
from .server import ServerLinks

STYPE = "deadreckon.packet"
RECORD = "deadreckon"  # of the numbers beside packets, and of the mod's state in a client's context
_PACKET = "deadreckon.packet."
_COEFFICIENTS = "deadreckon.coefficients"

_log = logging.getLogger("flwr")


def coded_layout(arrays: ArrayRecord) -> Layout:
    """The layout of the float32 arrays, in order; the others are not coded."""
    specs: list[TensorSpec] = []
    offset = 0
    for name, array in arrays.items():
        if array.dtype == "float32":
            specs.append(TensorSpec(name, tuple(array.shape), "float32", offset, "other"))
            offset += specs[-1].numel
    return Layout(tuple(specs))


def to_vector(arrays: ArrayRecord, layout: Layout) -> Tensor:
    """The float32 arrays as one vector, `[param]`.

    Raises:
        ConfigError: if they are not those of the layout.
    """
    if coded_layout(arrays).digest != layout.digest:
        raise ConfigError(
            f"The float32 arrays changed: expected {[spec.name for spec in layout][:3]}... of {layout.size} numbers in "
            f"all, got {list(arrays)[:3]}... Send and return the same arrays in every round."
        )
    parts = [torch.from_numpy(arrays[spec.name].numpy().reshape(-1).astype(np.float32)) for spec in layout]
    return torch.cat(parts) if parts else torch.zeros(0)


def to_arrays(vector: Tensor, layout: Layout, others: ArrayRecord, names: Iterable[str]) -> ArrayRecord:
    """The inverse of `to_vector`: all arrays by name, those that were not coded out of `others`."""
    coded = {spec.name: vector[spec.span].reshape(spec.shape).numpy() for spec in layout}
    return ArrayRecord({name: Array(coded[name]) if name in coded else others[name] for name in names})


def _packet_array(data: bytes, size: int) -> Array:
    return Array(dtype="float32", shape=(size,), stype=STYPE, data=data)


def _others(arrays: ArrayRecord) -> dict[str, Array]:
    return {name: array for name, array in arrays.items() if array.dtype != "float32"}


@final
class PacketMod:
    """A client mod that takes packets in and sends packets back. Put it first: mods behind it see plain arrays.

    Args:
        up: how pseudo-gradients are coded, as on the server.
        down: how differences of weights are coded, as on the server.
    """

    def __init__(self, up: CodecConfig | None = None, down: CodecConfig | None = None) -> None:
        self._up, self._down = up, down

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Handle one message; those that no `PacketStrategy` has sent pass through."""
        if RECORD not in message.content.config_records:
            return call_next(message, context)
        try:
            link, names = self._received(message, context)
        except CodecError as error:
            return Message(Error(code=ErrorCode.MOD_FAILED_PRECONDITION, reason=str(error)), reply_to=message)
        reply = call_next(message, context)
        if reply.has_error():
            self._keep(context, link, names)
            return reply
        numbers: dict[str, int] = {"version": link.version}
        if len(reply.content.array_records) == 1:
            key, arrays = next(iter(reply.content.array_records.items()))
            try:
                update = link.send(to_vector(arrays, link.layout))
            except CodecError as error:
                return Message(Error(code=ErrorCode.MOD_FAILED_PRECONDITION, reason=str(error)), reply_to=message)
            found = {_PACKET + "0": _packet_array(update.packet, link.layout.size), **_others(arrays)}
            if update.coefficients:
                found[_COEFFICIENTS] = _packet_array(update.coefficients, 0)
            reply.content[key] = ArrayRecord(found)
        reply.content[RECORD] = ConfigRecord({**numbers})
        self._keep(context, link, names)
        return reply

    def _received(self, message: Message, context: Context) -> tuple[ClientLink, list[str]]:
        """Put plain arrays into the message; the link, and the names of all arrays."""
        name, arrays = next(iter(message.content.array_records.items()))
        numbers = message.content.config_records[RECORD]
        version, acknowledged = _number(numbers, "version"), _number(numbers, "acknowledged")
        packets = sorted((key for key in arrays if key.startswith(_PACKET)), key=lambda key: int(key[len(_PACKET) :]))
        if bool(numbers["whole"]):
            names, layout = list(arrays), coded_layout(arrays)
            link = self._link(context, layout)
            weights = link.receive(Downlink(version, (), to_vector(arrays, layout), acknowledged))
        else:
            layout, names = _stored_layout(context)
            link = self._link(context, layout)
            weights = link.receive(Downlink(version, tuple(arrays[key].data for key in packets), None, acknowledged))
        message.content[name] = to_arrays(weights, layout, arrays, names)
        del message.content[RECORD]
        return link, names

    def _link(self, context: Context, layout: Layout) -> ClientLink:
        """The link as it was left, or a new one."""
        link = ClientLink(layout, self._up, self._down, seed=context.node_id)
        state = context.state.array_records.get(RECORD)
        if state is not None and _same(context, layout):
            link.load_state_dict({key: torch.from_numpy(array.numpy()) for key, array in state.items()})
        return link

    def _keep(self, context: Context, link: ClientLink, names: list[str]) -> None:
        context.state[RECORD] = ArrayRecord({key: Array(value.numpy()) for key, value in link.state_dict().items()})
        shapes = [" ".join(map(str, spec.shape)) for spec in link.layout]
        context.state[RECORD + ".layout"] = ConfigRecord(
            {"names": names, "coded": list(link.layout.names), "shapes": shapes}
        )


def _number(record: ConfigRecord, name: str) -> int:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"A message of the server must have the whole number {name!r}, got {value!r}.")
    return value


def _stored_layout(context: Context) -> tuple[Layout, list[str]]:
    """The layout in a client's context, and the names of all arrays."""
    record = context.state.config_records.get(RECORD + ".layout")
    if record is None:
        raise ConfigError("This client has no weights yet; the server has to send them whole.")
    coded, shapes, names = (cast("list[str]", record[key]) for key in ("coded", "shapes", "names"))
    specs: list[TensorSpec] = []
    offset = 0
    for name, text in zip(coded, shapes, strict=True):
        shape = tuple(int(extent) for extent in text.split())
        specs.append(TensorSpec(name, shape, "float32", offset, "other"))
        offset += specs[-1].numel
    return Layout(tuple(specs)), names


def _same(context: Context, layout: Layout) -> bool:
    """Whether a client's context is of this layout."""
    return RECORD + ".layout" in context.state.config_records and _stored_layout(context)[0].digest == layout.digest


@final
class PacketStrategy(Strategy):
    """Wraps any strategy: what it sends and receives travels as packets, what it sees are plain arrays.

    The wrapped strategy's weights are exact; clients have them but for the way down's error, which the next difference
    makes up for. What it gets from a client are its own weights less the decoded pseudo-gradient, so that strategies
    with momentum or adaptive steps see the clients' progress and nothing of the way down's error. Evaluation at clients
    is of the weights that they have.

    Args:
        strategy: the wrapped one.
        up: how pseudo-gradients are coded, as on the clients; `messages.UP` if not given.
        down: how differences of weights are coded, as on the clients; `messages.DOWN` if not given.
        keep: versions of the weights whose packets are kept for clients that missed some.

    Attributes:
        links: to the clients; None before the first round. Counts bytes both ways.
    """

    def __init__(
        self, strategy: Strategy, up: CodecConfig | None = None, down: CodecConfig | None = None, keep: int = 10
    ) -> None:
        self.links: ServerLinks | None = None
        self._strategy, self._up, self._down, self._keep = strategy, up, down, keep
        self._exact = torch.zeros(0)
        self._names: list[str] = []

    @override
    def summary(self) -> None:
        self._strategy.summary()
        _log.info("\t└──> Weights and updates travel as packets of the serialisation '%s'", STYPE)

    @override
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self._packed(arrays, self._strategy.configure_train(server_round, arrays, config, grid))

    @override
    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self._packed(arrays, self._strategy.configure_evaluate(server_round, arrays, config, grid))

    @override
    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self._strategy.aggregate_train(server_round, self._unpacked(replies))

    @override
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self._strategy.aggregate_evaluate(server_round, self._unpacked(replies))

    def _packed(self, arrays: ArrayRecord, messages: Iterable[Message]) -> list[Message]:
        if self.links is None:
            self.links = ServerLinks(coded_layout(arrays), self._up, self._down, self._keep)
        links = self.links
        self._exact = to_vector(arrays, links.layout)
        self._names = list(arrays)
        links.publish(self._exact)
        return [self._one_packed(message, arrays, links) for message in messages]

    def _one_packed(self, message: Message, arrays: ArrayRecord, links: ServerLinks) -> Message:
        """A message of the wrapped strategy with packets in place of its arrays."""
        content = message.content
        if len(content.array_records) != 1:
            return message
        name = next(iter(content.array_records))
        down = links.message(message.metadata.dst_node_id)
        if down.whole is not None:
            record = to_arrays(down.whole, links.layout, arrays, self._names)
        else:
            packets = {
                f"{_PACKET}{index}": _packet_array(data, links.layout.size) for index, data in enumerate(down.packets)
            }
            record = ArrayRecord({**packets, **_others(arrays)})
        numbers = {"version": down.version, "acknowledged": down.acknowledged, "whole": int(down.whole is not None)}
        # A record of its own: strategies send one record to all clients.
        message.content = RecordDict({**content, name: record, RECORD: ConfigRecord({**numbers})})
        return message

    def _unpacked(self, replies: Iterable[Message]) -> list[Message]:
        """The replies with plain arrays; those that cannot be decoded are left out."""
        links = self.links
        if links is None:
            return list(replies)
        kept: list[Message] = []
        for reply in replies:
            client = reply.metadata.src_node_id
            if not reply.has_error() and RECORD in reply.content.config_records:
                try:
                    self._one_unpacked(reply, client, links)
                except CodecError as error:
                    _log.warning("The reply of node %s is dropped: %s", client, error)
                    continue
            kept.append(reply)
        return kept

    def _one_unpacked(self, reply: Message, client: int, links: ServerLinks) -> None:
        content = reply.content
        version = _number(content.config_records[RECORD], "version")
        if len(content.array_records) == 1:
            name, arrays = next(iter(content.array_records.items()))
            if _PACKET + "0" not in arrays:
                raise ConfigError("it has no packet. Put a `PacketMod` first among the client's mods.")
            coefficients = arrays[_COEFFICIENTS].data if _COEFFICIENTS in arrays else b""
            vector = links.receive(client, Update(version, arrays[_PACKET + "0"].data, coefficients))
            content[name] = to_arrays(self._exact - vector, links.layout, arrays, self._names)
        else:
            links.confirm(client, version)
        del content[RECORD]
