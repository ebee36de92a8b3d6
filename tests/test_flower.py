"""The codec in Flower, with clients in this process. Needs the extra `flower`; `make test-flower` runs it."""

import math
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra `flower`, in an environment of its own")
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedAvgM
from flwr.supercore.task_identity import TaskIdentity

from deadreckon.codec import CodecConfig
from deadreckon.codec.federated.flower import STYPE, PacketMod, PacketStrategy

# pyright: basic, reportMissingImports=false
FINE = CodecConfig("none", entropy="runs", nmse=1e-5, feedback="classic")
FINE_DOWN = CodecConfig("none", entropy="runs", nmse=1e-5)
TARGETS = {node: np.random.default_rng(node).normal(size=(30, 20)).astype(np.float32) for node in (1, 2, 3)}


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Messages ask which task of which run this process is."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 0)


def start_arrays() -> ArrayRecord:
    """A float32 matrix, a float32 vector, and a counter that is not coded."""
    return ArrayRecord({
        "layer.weight": Array(np.zeros((30, 20), np.float32)),
        "layer.bias": Array(np.zeros(20, np.float32)),
        "batches": Array(np.array(3, np.int64)),
    })  # fmt: skip


def client(message: Message, context: Context) -> Message:
    """Goes a third of the way to the node's own target; evaluation tells the distance."""
    record = next(iter(message.content.array_records.values()))
    arrays = {name: array.numpy() for name, array in record.items()}
    assert list(arrays) == ["layer.weight", "layer.bias", "batches"]
    target = TARGETS[context.node_id]
    metrics = MetricRecord({"num-examples": 10, "distance": float(np.square(arrays["layer.weight"] - target).mean())})
    content = RecordDict({"metrics": metrics})
    if message.metadata.message_type == "train":
        arrays["layer.weight"] = arrays["layer.weight"] + (target - arrays["layer.weight"]) / 3
        arrays["batches"] = arrays["batches"] + 1
        content["arrays"] = ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})
    return Message(content, reply_to=message)


class Grid:
    """Nodes in this process, each with a context of its own; counts bytes of arrays."""

    def __init__(self, call: Callable[[Message, Context], Message], nodes: Sequence[int] = (1, 2, 3)) -> None:
        self.contexts = {node: Context(0, node, {}, RecordDict(), {}) for node in nodes}
        self.call = call
        self.bytes = {"down": 0, "up": 0}
        self.seen: list[RecordDict] = []
        self.drop: Callable[[Message], bool] = lambda message: False

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            self.bytes["down"] += num_bytes(message)
            self.seen.append(RecordDict(dict(message.content)))
            reply = self.call(message, self.contexts[message.metadata.dst_node_id])
            if reply.has_content():
                self.bytes["up"] += num_bytes(reply)
                self.seen.append(RecordDict(dict(reply.content)))
            if not self.drop(reply):
                replies.append(reply)
        return replies


def num_bytes(message: Message) -> int:
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())


def with_mod(mod: PacketMod) -> Callable[[Message, Context], Message]:
    return lambda message, context: mod(message, context, client)


def run(strategy: Any, call: Callable[[Message, Context], Message], rounds: int = 5) -> SimpleNamespace:
    grid = Grid(call)
    result = strategy.start(grid=grid, initial_arrays=start_arrays(), num_rounds=rounds)
    return SimpleNamespace(grid=grid, arrays=result.arrays, metrics=result.evaluate_metrics_clientapp)


@pytest.mark.parametrize("inner", [FedAvg, FedAvgM])
def test_a_fine_codec_gives_what_flower_gives_alone(inner):
    """With almost no error, five rounds end where the wrapped strategy ends by itself, in all arrays."""
    plain = run(inner(), client)
    ours = run(PacketStrategy(inner(), FINE, FINE_DOWN), with_mod(PacketMod(FINE, FINE_DOWN)))
    for name, array in plain.arrays.items():
        np.testing.assert_allclose(ours.arrays[name].numpy(), array.numpy(), atol=0.02)
        assert ours.arrays[name].dtype == array.dtype
    assert math.isclose(ours.metrics[5]["distance"], plain.metrics[5]["distance"], rel_tol=0.02)


def test_weights_and_updates_travel_as_packets():
    """After the first round all float32 arrays are of our serialisation, in a fraction of the bytes."""
    plain, ours = run(FedAvg(), client), run(PacketStrategy(FedAvg()), with_mod(PacketMod()))
    for content in ours.grid.seen[6:]:  # three messages and three replies
        for record in content.array_records.values():
            assert {array.stype for array in record.values() if array.dtype == "float32"} <= {STYPE}
    assert ours.grid.bytes["up"] < plain.grid.bytes["up"] / 4
    assert ours.grid.bytes["down"] < plain.grid.bytes["down"] / 3
    assert ours.metrics[5]["distance"] < 1.2 * plain.metrics[5]["distance"]


def test_a_client_that_lost_its_context_gets_the_weights_whole():
    """A node whose state is gone answers with an error once, is left out of that round, and takes part in the next."""
    strategy, mod = PacketStrategy(FedAvg(), FINE, FINE_DOWN), PacketMod(FINE, FINE_DOWN)
    errors: list[Error] = []

    def call(message: Message, context: Context) -> Message:
        reply = mod(message, context, client)
        if reply.has_error():
            errors.append(reply.error)
        return reply

    grid, arrays = Grid(call), start_arrays()
    for server_round in range(1, 5):
        if server_round == 3:
            grid.contexts[2] = Context(0, 2, {}, RecordDict(), {})
        replies = grid.send_and_receive(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))
        assert sum(not reply.has_error() for reply in replies) == (2 if server_round == 3 else 3)
        found, _ = strategy.aggregate_train(server_round, replies)
        assert found is not None
        arrays = found
    (error,) = errors
    assert "send them whole" in error.reason


def test_a_reply_that_is_lost_or_damaged_costs_one_round():
    """A lost reply makes the next packet a key frame; a damaged one is dropped. Both nodes go on."""
    strategy, grid = (
        PacketStrategy(FedAvg(min_train_nodes=1), FINE, FINE_DOWN),
        Grid(with_mod(PacketMod(FINE, FINE_DOWN))),
    )
    arrays = start_arrays()
    for server_round in range(1, 6):
        replies = grid.send_and_receive(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))
        if server_round == 2:
            replies = replies[1:]
        if server_round == 3:
            packet = replies[1].content["arrays"]["deadreckon.packet.0"]
            packet.data = packet.data[:-2] + b"no"
        num_replies = len(replies)
        kept = strategy._unpacked(replies)
        assert len(kept) == num_replies - (server_round == 3)
        found, _ = strategy._strategy.aggregate_train(server_round, kept)
        assert found is not None
        arrays = found
    mean = sum(TARGETS.values()) / 3
    assert np.square(arrays["layer.weight"].numpy() - mean).mean() < 0.25 * np.square(mean).mean()


def test_a_client_without_the_mod_is_left_out(caplog):
    """A reply with plain arrays is dropped, and the warning says what to do."""
    strategy, grid = PacketStrategy(FedAvg()), Grid(client)
    messages = strategy.configure_train(1, start_arrays(), ConfigRecord(), grid)
    replies = grid.send_and_receive(messages)
    for reply in replies:
        reply.content["deadreckon"] = ConfigRecord({"version": 0})
    with caplog.at_level("WARNING", logger="flwr"):
        assert strategy._unpacked(replies) == []
    assert "Put a `PacketMod` first" in caplog.text


def test_messages_of_others_pass_through():
    """A message that no `PacketStrategy` made reaches the client as it is, and so does its reply."""
    message = Message(RecordDict({"arrays": start_arrays()}), dst_node_id=1, message_type="train")
    reply = PacketMod()(message, Context(0, 1, {}, RecordDict(), {}), client)
    assert {array.stype for array in reply.content["arrays"].values()} == {"numpy.ndarray"}
