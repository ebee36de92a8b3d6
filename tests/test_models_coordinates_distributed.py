"""Reduced coordinates under DistributedDataParallel, in two gloo processes."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from coordinates_peer import MADE, make_module, make_supermasks, train
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from two_ranks import run_ranks

from deadreckon.forecast import pack
from deadreckon.models import ModelError
from deadreckon.models.coordinates import PRANC, ReducedModule, choose_layout

KINDS = pytest.mark.parametrize("kind", MADE)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two processes found."""
    return run_ranks("coordinates_peer.py", tmp_path_factory.mktemp("two_processes"))


@pytest.mark.slow
@KINDS
def test_both_ranks_have_the_same_coordinates(kind: str, ranks: list[dict]) -> None:
    """Trained numbers are bit-equal on both ranks, though they began apart, with and without the codec."""
    first, second = (rank["kinds"][kind] for rank in ranks)
    for how in ("plain", "compiled", "raw", "coded"):
        assert first[how] == second[how], how
    assert first["coded"] != first["plain"]


@pytest.mark.slow
@KINDS
def test_two_ranks_equal_one_process(kind: str, ranks: list[dict]) -> None:
    """Two processes with half a batch each get what one gets with both halves, up to rounding."""
    module = make_module(kind)
    before = pack(module)[0].clone()
    losses = train(module, None)
    after = pack(module)[0]
    torch.testing.assert_close(torch.tensor(ranks[0]["kinds"][kind]["trained"]), after, rtol=0, atol=2e-5)
    assert float((after - before).norm()) > 0.5
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.slow
def test_masks_are_trained_by_two_ranks_as_by_one(ranks: list[dict]) -> None:
    """Scores of a mask are bit-equal on both ranks, which began apart, and nearly those of one process."""
    first, second = (rank["supermasks"] for rank in ranks)
    assert first["digest"] == second["digest"]
    module = make_supermasks()
    before = module.mask().bool()
    train(module, None)
    # A sum in another order may swap two weights of equal score, and then training parts: few may be elsewhere.
    trained = torch.tensor(first["scores"])
    assert float(((trained - module.scores).abs() > 1e-4).float().mean()) < 0.02
    assert bool((module.mask().bool() != before).any())


@pytest.mark.slow
@KINDS
def test_compilation_and_the_raw_codec_change_no_bit(kind: str, ranks: list[dict]) -> None:
    """With the wrapped module compiled, or gradients through the raw lattice, the numbers are those of plain DDP."""
    for rank in ranks:
        found = rank["kinds"][kind]
        assert found["compiled"] == found["raw"] == found["plain"]


@pytest.mark.slow
@KINDS
def test_training_in_coordinates_through_the_codec_learns(kind: str, ranks: list[dict]) -> None:
    """Through the codec the loss falls, and a number takes less than a quarter of its 32 bits."""
    for rank in ranks:
        losses = rank["kinds"][kind]["coded_losses"]
        assert losses[-1] < losses[0] - 0.1
        assert 0 < rank["kinds"][kind]["bits_a_number"] < 8


@pytest.mark.slow
def test_ranks_with_other_maps_are_refused(ranks: list[dict]) -> None:
    """Where rank 1 has another seed, the codec's hook is refused on both ranks and the first call on rank 1."""
    for rank in ranks:
        assert "rank 0 has 'coefficients_" in rank["other_map"]["hook"]
    assert ranks[0]["other_map"]["forward"] == ""
    assert "Give all processes coordinates of the same kind" in ranks[1]["other_map"]["forward"]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@KINDS
def test_a_group_of_one_changes_no_bit(kind: str, alone: None) -> None:
    """DDP of one process trains to the bits of no DDP at all."""
    plain, wrapped = make_module(kind), make_module(kind)
    train(plain, None)
    train(DistributedDataParallel(wrapped), None)
    torch.testing.assert_close(pack(wrapped)[0], pack(plain)[0], rtol=0, atol=0)


def test_the_digest_survives_averages_and_casts() -> None:
    """Averages of weights with buffers, and half precision, leave the digest as it is, and the copies work."""
    plain, inputs = nn.Linear(20, 30), torch.sin(torch.arange(60.0)).reshape(3, 20)
    module = ReducedModule(plain, PRANC(choose_layout(plain, num_axes=2), 10))
    for averages in (get_ema_multi_avg_fn(0.999), get_swa_multi_avg_fn()):
        averaged = AveragedModel(module, multi_avg_fn=averages, use_buffers=True)
        for _ in range(3):
            averaged.update_parameters(module)
        assert bool(torch.isfinite(averaged(inputs)).all())
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert len(copy.deepcopy(module).to(dtype).tensors()) == 1


def test_the_digest_of_another_map_is_refused() -> None:
    """A module to which rank 0 sent the digest of another map refuses to make parameters and names both."""
    module, other = make_module("pranc"), make_module("nola")
    assert module.map_digest.shape == other.map_digest.shape
    module.map_digest.copy_(other.map_digest)
    mine, theirs = module.coordinates.digest[:12], other.coordinates.digest[:12]
    with pytest.raises(ModelError, match=f"by the map {mine}, rank 0 by {theirs}"):
        module(torch.ones(2, 20))
