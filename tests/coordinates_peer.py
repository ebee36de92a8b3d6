"""One of two gloo processes that `test_models_coordinates_distributed.py` starts. Arguments: rank, folder."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deadreckon.codec import CodecConfig, CodecError
from deadreckon.codec.distributed import register_gradient_codec
from deadreckon.forecast import Layout, pack
from deadreckon.models import ModelError
from deadreckon.models.coordinates import (
    MCNC,
    NOLA,
    PRANC,
    LoRA,
    ReducedModule,
    SeededCoordinates,
    Supermasks,
    choose_layout,
)

NUM_STEPS = 16
SAMPLES = 32  # a step and rank
MADE: dict[str, Callable[[Layout], SeededCoordinates]] = {
    "pranc": lambda layout: PRANC(layout, 40, seed=1),
    "nola": lambda layout: NOLA(layout, 15, rank=4, seed=1),
    "mcnc": lambda layout: MCNC(layout, 3, chunk=100, width=16, seed=1),
    "lora": lambda layout: LoRA(layout, 2),
}


def make_module(kind: str, seed: int = 0) -> ReducedModule:
    """A small network in coordinates, with batch norm; the seed is of what is not part of the map."""
    torch.manual_seed(seed)
    plain = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 5))
    coordinates = MADE[kind](choose_layout(plain, num_axes=2))
    return ReducedModule(plain, coordinates, coordinates.initial(seed))


def make_supermasks() -> Supermasks:
    """The same network with fixed weights under a mask."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(20, 30, bias=False), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 5, bias=False))
    return Supermasks(plain, choose_layout(plain, num_axes=2), seed=1)


def batches() -> list[tuple[Tensor, Tensor]]:
    """For both ranks together; rank 0 has the first half of each."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 20, generator=generator)
    found = []
    for _ in range(NUM_STEPS):
        labels = torch.randint(5, (2 * SAMPLES,), generator=generator)
        found.append((centres[labels] + 0.5 * torch.randn(2 * SAMPLES, 20, generator=generator), labels))
    return found


def train(model: nn.Module, rank: int | None) -> list[float]:
    """The losses; both halves of each batch if there is no rank, one after the other as batch norm sees them."""
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.8)
    losses: list[float] = []
    for inputs, labels in batches():
        optimizer.zero_grad()
        halves = list(zip(inputs.split(SAMPLES), labels.split(SAMPLES), strict=True))
        own = halves if rank is None else [halves[rank]]
        loss = torch.stack([nn.functional.cross_entropy(model(*half[:1]), half[1]) for half in own]).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def digest_of(module: nn.Module) -> str:
    return hashlib.sha256(pack(module)[0].numpy().tobytes()).hexdigest()


def one_kind(kind: str, rank: int) -> dict:
    """Plain, compiled, with the raw codec and with a coarse one; the ranks begin apart, DDP brings them together."""
    found: dict = {}
    for how, config in {"plain": None, "compiled": None, "raw": CodecConfig(lattice="raw")}.items():
        module = make_module(kind, seed=rank)
        if how == "compiled":
            module.compile(backend="eager")
        ddp = DistributedDataParallel(module)
        if config is not None:
            register_gradient_codec(ddp, config)
        train(ddp, rank)
        found[how] = digest_of(module)
        if how == "plain":
            found["trained"] = pack(module)[0].tolist()
    module = make_module(kind, seed=rank)
    ddp = DistributedDataParallel(module)
    state = register_gradient_codec(ddp, CodecConfig("momentum", nmse=0.05))
    found["coded_losses"] = train(ddp, rank)
    found["coded"] = digest_of(module)
    found["bits_a_number"] = state.traffic.packet_bits / NUM_STEPS / pack(module)[0].numel()
    return found


def masked(rank: int) -> dict:
    """Scores of masks, which begin apart."""
    module = make_supermasks()
    module.begin_task(seed=rank)
    losses = train(DistributedDataParallel(module), rank)
    return {"losses": losses, "digest": digest_of(module), "scores": module.scores.tolist()}


def other_map(rank: int) -> dict:
    """What is said where rank 1 has another seed."""
    torch.manual_seed(0)
    plain = nn.Linear(20, 5)
    ddp = DistributedDataParallel(ReducedModule(plain, PRANC(choose_layout(plain, num_axes=2), 10, seed=rank)))
    found = {"hook": "", "forward": ""}
    try:
        register_gradient_codec(ddp)
    except CodecError as error:
        found["hook"] = str(error)
    try:
        ddp.module(torch.ones(1, 20))
    except ModelError as error:
        found["forward"] = str(error)
    return found


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result = {"kinds": {kind: one_kind(kind, rank) for kind in MADE}, "other_map": other_map(rank)}
    result["supermasks"] = masked(rank)
    (folder / f"rank{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
