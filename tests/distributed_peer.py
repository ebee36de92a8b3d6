"""One of two gloo processes; `test_distributed.py` starts them. Arguments: rank, folder. Writes `rank<r>.json`."""

import copy
import hashlib
import io
import json
import math
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deadreckon.codec import Codec, CodecConfig, CodecError
from deadreckon.codec.distributed import PacketExchange, register_gradient_codec, require_equal_peers
from deadreckon.forecast import layout_of, pack

NUM_STEPS = 50
NAN_STEP = 20
CONFIG = CodecConfig("fitted", nmse=0.1)


def make_net(channels: int = 8) -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(1, channels, 3)
    first.weight.data = first.weight.data.contiguous(memory_format=torch.channels_last)
    return nn.Sequential(
        first,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * channels, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def batches(rank: int) -> list[tuple[Tensor, Tensor]]:
    classes = torch.randn(10, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(100 + rank)
    rows = []
    for _ in range(NUM_STEPS):
        labels = torch.randint(10, (32,), generator=generator)
        rows.append((classes[labels] + 1.5 * torch.randn(32, 1, 10, 10, generator=generator), labels))
    return rows


def train(rank: int) -> dict:
    """Fifty steps under DDP with small buckets; a gradient of rank 1 is NaN at one of them."""
    ddp = DistributedDataParallel(make_net(), bucket_cap_mb=0.001)
    state = register_gradient_codec(ddp, CONFIG)
    optimizer = torch.optim.Adam(ddp.parameters(), 3e-3)
    losses, digests, skipped, packets = [], [], [], []
    for step, (images, labels) in enumerate(batches(rank)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(ddp(images), labels)
        (loss * math.nan if rank == 1 and step == NAN_STEP else loss).backward()
        if all(bool(value.grad.isfinite().all()) for value in ddp.parameters() if value.grad is not None):
            optimizer.step()
        else:
            skipped.append(step)
        losses.append(loss.item())
        digests.append(hashlib.sha256(pack(ddp.module)[0].numpy().tobytes()).hexdigest())
        sent, own = state.exchange.encoder.state_dict(), state.exchange.decoders[rank].state_dict()
        packets.append(all(torch.equal(sent[name], value) for name, value in own.items()))
    size = layout_of(ddp.module).size
    return {
        "losses": losses,
        "digests": digests,
        "skipped": skipped,
        "own_decoder_in_step": all(packets),
        "sent": state.bytes_sent,
        "received": state.bytes_received,
        "packets": state.exchange.packet_bytes,
        "float32": 4 * size * NUM_STEPS,
        "num_buckets": len(ddp._get_ddp_logging_data()["rebuilt_bucket_sizes"].split(",")),
        "resumed_equals_uninterrupted": resumed_equals_uninterrupted(state.exchange, rank, size),
    }


def resumed_equals_uninterrupted(exchange: PacketExchange, rank: int, size: int) -> bool:
    file = io.BytesIO()
    torch.save(exchange.state_dict(), file)
    file.seek(0)
    group = dist.group.WORLD
    assert group is not None
    again = PacketExchange(Codec(layout_of(make_net()), CONFIG), group)
    again.load_state_dict(torch.load(file, weights_only=True))
    generator = torch.Generator().manual_seed(rank)
    vectors = torch.randn(3, size, generator=generator)
    equal = all(torch.equal(exchange.average(vector), again.average(vector)) for vector in vectors)
    return equal and again.bytes_sent == exchange.bytes_sent


def plain(rank: int) -> dict:
    """The raw lattice against DDP without a hook: the same parameters, bit for bit."""
    reference = DistributedDataParallel(make_net(), bucket_cap_mb=0.001)
    hooked = DistributedDataParallel(copy.deepcopy(reference.module), bucket_cap_mb=0.001)
    register_gradient_codec(hooked, CodecConfig(lattice="raw"))
    for model in (reference, hooked):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for images, labels in batches(rank)[:5]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return {"raw_equals_plain": torch.equal(pack(reference.module)[0], pack(hooked.module)[0])}


def accumulated(rank: int) -> dict:
    """Under no_sync nothing is sent; the next step sends the accumulated gradient."""
    ddp = DistributedDataParallel(make_net(), bucket_cap_mb=0.001)
    state = register_gradient_codec(ddp, CodecConfig(lattice="raw"))
    first, second = batches(rank)[:2]
    with ddp.no_sync():
        nn.functional.cross_entropy(ddp(first[0]), first[1]).backward()
    sent_early = state.bytes_sent
    nn.functional.cross_entropy(ddp(second[0]), second[1]).backward()
    return {"sent_under_no_sync": sent_early, "packets_after": state.exchange.encoder.last_step + 1}


def owed(rank: int) -> dict:
    """What is applied, and what is missing with and without what is owed, as shares of the sum of all gradients."""
    layout = layout_of(make_net())
    group = dist.group.WORLD
    assert group is not None
    exchange = PacketExchange(Codec(layout, CodecConfig(nmse=0.7, feedback="classic")), group)
    generator = torch.Generator().manual_seed(rank)
    fixed = torch.randn(layout.size, generator=generator)
    rates = [0.1] * 5 + [0.02] * 5 + [0.3] * 2
    applied, wanted = torch.zeros(layout.size), torch.zeros(layout.size)
    for rate in rates:
        vector = fixed + torch.randn(layout.size, generator=generator)
        applied += rate * exchange.average(vector, rate)
        wanted += rate * vector / 2
    rest = rates[-1] * exchange.encoder.state_dict()["feedback.residual"] / 2
    for value in (wanted, rest):
        dist.all_reduce(value, group=group)
    whole = wanted.norm()
    return {
        "missing_without_owed": float((wanted - applied).norm() / whole),
        "missing": float((wanted - applied - rest).norm() / whole),
    }


def one_fails(rank: int) -> dict:
    """One rank's encoder refuses; then both go on as if nothing had been."""
    layout = layout_of(make_net())
    group = dist.group.WORLD
    assert group is not None
    exchange, other = (PacketExchange(Codec(layout, CodecConfig(feedback="classic")), group) for _ in range(2))
    vectors = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(rank))
    message, equal = "", True
    for vector in vectors:
        try:
            exchange.average(vector, -1.0 if rank == 1 else 1.0)
        except CodecError as error:
            message = str(error)
        equal = equal and torch.equal(exchange.average(vector, 1.0), other.average(vector, 1.0))
    return {"message_of_failure": message, "equal_after_failure": equal}


def refused(rank: int) -> dict:
    """What registration says when the ranks disagree."""
    messages = {}
    ddp = DistributedDataParallel(make_net())
    group = dist.group.WORLD
    assert group is not None
    attempts = {
        "configuration": lambda: register_gradient_codec(ddp, CodecConfig(nmse=0.1 + 0.1 * rank)),
        "layout": lambda: require_equal_peers(Codec(layout_of(make_net(8 + rank))), group, torch.device("cpu")),
        "stream": lambda: require_equal_peers(
            Codec(layout_of(make_net()), stream=f"stream{rank}"), group, torch.device("cpu")
        ),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except CodecError as error:
            messages[what] = str(error)
    return {"refused": messages}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        result = {**train(rank), **plain(rank), **accumulated(rank), **refused(rank), **owed(rank), **one_fails(rank)}
    finally:
        dist.destroy_process_group()
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
