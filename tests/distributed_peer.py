"""One of two gloo processes that `test_distributed.py` starts. Arguments: rank, folder, parts. Writes rank<r>.json."""

import copy
import hashlib
import io
import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, CodecError
from deadreckon.codec.distributed import (
    ExchangeConfig,
    GradientCodec,
    GroupWire,
    PacketExchange,
    PeerLostError,
    ReplicaError,
    register_gradient_codec,
)
from deadreckon.forecast import layout_of, pack

NUM_STEPS = 50
NAN_STEP = 20
CONFIG = CodecConfig("fitted", "Z", nmse=0.1)


def make_net(channels: int = 8) -> nn.Sequential:
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
    losses, digests, skipped = [], [], []
    for step, (images, labels) in enumerate(batches(rank)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(ddp(images), labels)
        (loss * math.nan if rank == 1 and step == NAN_STEP else loss).backward()
        if all(bool(value.grad.isfinite().all()) for value in ddp.parameters() if value.grad is not None):
            optimizer.step()
        else:
            skipped.append(step)
        losses.append(loss.item())
        digests.append(digest_of(ddp.module))
    size = layout_of(ddp.module).size
    traffic = state.traffic
    aggregation = state.aggregation
    assert isinstance(aggregation, PacketExchange)
    return {
        "losses": losses,
        "digests": digests,
        "skipped": skipped,
        "sent": traffic.sent_bytes,
        "received": traffic.received_bytes,
        "packets": traffic.packet_bits / 8,
        "float32": 4 * size * NUM_STEPS,
        "num_buckets": len(ddp._get_ddp_logging_data()["rebuilt_bucket_sizes"].split(",")),
        "resumed_equals_uninterrupted": resumed_equals_uninterrupted(aggregation, rank, size),
    }


def digest_of(module: nn.Module) -> str:
    return hashlib.sha256(pack(module)[0].numpy().tobytes()).hexdigest()


def resumed_equals_uninterrupted(exchange: PacketExchange, rank: int, size: int) -> bool:
    file = io.BytesIO()
    torch.save(exchange.state_dict(), file)
    file.seek(0)
    again = PacketExchange(Codec(layout_of(make_net()), CONFIG), GroupWire())
    again.load_state_dict(torch.load(file, weights_only=True))
    generator = torch.Generator().manual_seed(rank)
    vectors = torch.randn(3, size, generator=generator)
    equal = all(torch.equal(exchange.average(vector), again.average(vector)) for vector in vectors)
    return equal and again.traffic == exchange.traffic


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
    sent_early = state.traffic.sent_bytes
    nn.functional.cross_entropy(ddp(second[0]), second[1]).backward()
    return {"sent_under_no_sync": sent_early, "steps_after": state.traffic.num_steps}


def step_of(model: nn.Module, state: GradientCodec, rank: int, scale: float = 1.0) -> dict[str, Tensor | None]:
    """Gradients of one backward pass, by name."""
    model.zero_grad()
    images, labels = batches(rank)[0]
    state.loss_scale = scale
    (scale * nn.functional.cross_entropy(model(images).float(), labels)).backward()
    return {name: value.grad for name, value in model.named_parameters()}


def scaled(rank: int) -> dict:
    """Gradients of a scaled loss, divided by the scale, against those without; scales change between steps."""
    found = []
    for scales in ((1.0, 1.0, 1.0), (1024.0, 256.0, 512.0)):
        ddp = DistributedDataParallel(make_net(), bucket_cap_mb=0.001)
        state = register_gradient_codec(ddp, CodecConfig("fitted", "Z", nmse=0.5, feedback="classic"))
        gradients = [step_of(ddp, state, rank, scale) for scale in scales][-1]
        found.append([value.clone() / scales[-1] for value in gradients.values() if value is not None])
    return {"scale_undone": all(torch.equal(one, other) for one, other in zip(*found, strict=True))}


def half(rank: int) -> dict:
    """A network in bfloat16 trains to equal parameters."""
    ddp = DistributedDataParallel(make_net().to(torch.bfloat16), bucket_cap_mb=0.001)
    state = register_gradient_codec(ddp, CodecConfig("none", "Z", nmse=0.1))
    optimizer = torch.optim.SGD(ddp.parameters(), 0.1)
    for images, labels in batches(rank)[:4]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(ddp(images.to(torch.bfloat16)).float(), labels).backward()
        optimizer.step()
    return {"bfloat16": [digest_of(ddp.module), state.traffic.num_steps]}


class Branches(nn.Module):
    """The second branch is used by rank 0 only, the third by none."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList(nn.Linear(10, 10) for _ in range(3))
        self._used = 2 if rank == 0 else 1

    @override
    def forward(self, values: Tensor) -> Tensor:
        return sum((part(values) for part in self.parts[: self._used]), torch.zeros(()))


def unused(rank: int) -> dict:
    """What becomes of parameters that only one rank, or none, has used."""
    ddp = DistributedDataParallel(Branches(rank), find_unused_parameters=True)
    register_gradient_codec(ddp, CodecConfig("none", lattice="raw"))
    for _ in range(2):
        ddp.zero_grad()
        ddp(torch.ones(4, 10)).sum().backward()
    parts = [part.weight.grad for part in ddp.module.parts]
    return {"unused": [None if part is None else float(part[0, 0]) for part in parts]}


def compiled(rank: int) -> dict:
    """A network with a compiled part against the same without; the same names, so the same packets."""
    sums = []
    for compile_it in (False, True):
        net = make_net()
        if compile_it:
            part = torch.compile(net[4], backend="eager")
            assert isinstance(part, nn.Module)
            net.register_module("4", part)
        ddp = DistributedDataParallel(net, bucket_cap_mb=1)
        state = register_gradient_codec(ddp, CodecConfig("none", "Z", nmse=0.1))
        gradients = [step_of(ddp, state, rank) for _ in range(3)][-1]
        sums.append([value for value in gradients.values() if value is not None])
    return {"compiled_equals_plain": all(torch.equal(one, other) for one, other in zip(*sums, strict=True))}


def joined(rank: int) -> dict:
    """Rank 0 has five batches, rank 1 three; afterwards both have rank 0's parameters."""
    ddp = DistributedDataParallel(make_net(), bucket_cap_mb=0.001)
    state = register_gradient_codec(ddp, CodecConfig("none", "Z", nmse=0.1, feedback="classic"))
    optimizer = torch.optim.SGD(ddp.parameters(), 0.1)
    with ddp.join():
        for images, labels in batches(rank)[: 5 - 2 * rank]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(ddp(images), labels).backward()
            optimizer.step()
    return {"joined": [digest_of(ddp.module), state.traffic.num_steps]}


def differing(rank: int) -> dict:
    """One rank's parameter is changed behind DDP's back, once with healing and once without."""
    found: dict = {}
    for heals in (True, False):
        exchange = ExchangeConfig(check_every=2, on_difference="heal" if heals else "raise")
        ddp = DistributedDataParallel(make_net(), bucket_cap_mb=0.001)
        state = register_gradient_codec(ddp, CodecConfig("none", "Z", nmse=0.1), exchange=exchange)
        step_of(ddp, state, rank)
        if rank == 1:
            with torch.no_grad():
                ddp.module[4].weight[0, 0] += 1e-6
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                step_of(ddp, state, rank)
            except ReplicaError as error:
                found["difference"] = str(error)
        if heals:
            found["warned"] = [str(one.message) for one in caught if "differs between ranks" in str(one.message)]
            found["healed"] = digest_of(ddp.module)
    return found


def killed(rank: int) -> dict:
    """Rank 1 dies where rank 0 waits for its packet."""
    ddp = DistributedDataParallel(make_net())
    state = register_gradient_codec(ddp, exchange=ExchangeConfig(timeout=20))
    for _ in range(3):  # DDP rebuilds its buckets in the second
        step_of(ddp, state, rank)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        step_of(ddp, state, rank)
    except PeerLostError as error:
        return {"lost": str(error)}
    return {"lost": ""}


def refused(rank: int) -> dict:
    """What registration says when the ranks disagree."""
    messages = {}
    ddp = DistributedDataParallel(make_net())
    attempts = {
        "configuration": lambda: register_gradient_codec(ddp, CodecConfig(lattice="Z", nmse=0.1 + 0.1 * rank)),
        "layout": lambda: PacketExchange(Codec(layout_of(make_net(8 + rank))), GroupWire()),
        "exchange": lambda: register_gradient_codec(
            ddp, exchange=ExchangeConfig("sharded" if rank == 0 else "lattice_sum")
        ),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except CodecError as error:
            messages[what] = str(error)
    return {"refused": messages}


PARTS = {
    "quick": (train, plain, accumulated, refused, scaled, half, unused, joined, differing, killed),
    "slow": (compiled,),
}


def main() -> None:
    rank, folder, which = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result: dict = {}
    path = folder / f"rank{rank}.json"
    for part in PARTS[which]:
        result |= part(rank)
        path.write_text(json.dumps(result))  # before rank 1 dies
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
