"""The codec between two gloo processes, as a hook of DistributedDataParallel and by itself."""

import re
import signal
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_ranks import run_ranks

from deadreckon.codec import Codec, CodecConfig, CodecError, ConfigError, EncodeError, StateError
from deadreckon.codec.distributed import GroupWire, PacketExchange, collect, give_back, register_gradient_codec
from deadreckon.forecast import layout_of

PEER = "distributed_peer.py"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What two processes found, the second of which is killed in the end."""
    folder = tmp_path_factory.mktemp("two_processes")
    return run_ranks(PEER, folder, "quick", codes=(0, -signal.SIGKILL))


def test_parameters_of_both_ranks_are_equal_after_every_step(ranks):
    """Over 50 steps with several buckets, the parameters of both ranks are bit-equal, and they do move."""
    assert ranks[0]["num_buckets"] > 1
    assert ranks[0]["digests"] == ranks[1]["digests"]
    assert len(set(ranks[0]["digests"])) == 49  # one step is skipped


def test_training_through_the_codec_learns(ranks):
    """The loss of both ranks falls to less than a third."""
    for rank in ranks:
        losses = [loss for step, loss in enumerate(rank["losses"]) if step != 20]
        assert sum(losses[-5:]) < sum(losses[:5]) / 3


def test_far_fewer_bytes_than_float32_are_sent(ranks):
    """Packets take less than a tenth of float32, and with two ranks each receives about what the other sends."""
    for rank in ranks:
        assert 0 < rank["packets"] <= rank["sent"] < rank["float32"] / 8
        assert rank["packets"] < rank["float32"] / 10
        assert rank["received"] == rank["sent"]


def test_nan_on_one_rank_reaches_both_and_leaves_them_in_step(ranks):
    """Both ranks see the NaN of one, skip that step, and go on bit-equal."""
    assert [rank["skipped"] for rank in ranks] == [[20], [20]]


def test_resumed_equals_uninterrupted(ranks):
    """An exchange loaded from a `weights_only` checkpoint gives the bits and byte counts of the one that went on."""
    assert all(rank["resumed_equals_uninterrupted"] for rank in ranks)


def test_the_raw_codec_equals_ddp(ranks):
    """With the raw lattice, parameters are bit-equal to those of DDP without a hook."""
    assert all(rank["raw_equals_plain"] for rank in ranks)


def test_nothing_is_sent_under_no_sync(ranks):
    """Accumulation steps send nothing; the synchronising one exchanges once."""
    for rank in ranks:
        assert rank["sent_under_no_sync"] == 0
        assert rank["steps_after"] == 1


def test_ranks_that_differ_are_refused(ranks):
    """Every rank raises at registration, naming what differs and both values."""
    wanted = {
        "configuration": r"the same setting nmse: rank 0 has 0\.1, rank 1 has 0\.2",
        "layout": r"the same tensor 0: rank 0 has '0\.weight' \(8, 1, 3, 3\) float32, rank 1 has '0\.weight' \(9, 1",
        "exchange": r"the same aggregation: rank 0 has sharded, rank 1 has lattice_sum",
    }
    for rank in ranks:
        for what, pattern in wanted.items():
            assert re.search(pattern, rank["refused"][what]), rank["refused"][what]


def test_the_scale_of_the_loss_is_undone(ranks):
    """With loss scales that change between steps, gradients are the bits of those without, times the scale."""
    assert all(rank["scale_undone"] for rank in ranks)


def test_networks_in_bfloat16_stay_equal(ranks):
    """Parameters in bfloat16 are bit-equal on both ranks after four steps."""
    assert ranks[0]["bfloat16"] == ranks[1]["bfloat16"]
    assert ranks[0]["bfloat16"][1] == 4


def test_unused_parameters(ranks):
    """A parameter that one rank did not use gets half of the other's gradient; one that none used gets none."""
    assert [rank["unused"] for rank in ranks] == [[4.0, 2.0, None], [4.0, 2.0, None]]


@pytest.mark.slow
def test_compiled_parts_change_nothing(tmp_path):
    """A network with a compiled part gets the bits of the same network without."""
    found = run_ranks(PEER, tmp_path, "slow")
    assert all(rank["compiled_equals_plain"] for rank in found)


def test_ranks_with_fewer_batches_may_join(ranks):
    """Under `join`, the rank that ends first takes part with zeros in five steps, and both end equal."""
    assert ranks[0]["joined"] == ranks[1]["joined"]
    assert ranks[0]["joined"][1] == 5


def test_a_difference_between_ranks_is_found(ranks):
    """A parameter that differs by one rounding is an error on both ranks, which names it; or healed, with a warning."""
    for rank in ranks:
        assert re.search(r"'4\.weight' differs between ranks after 2 steps: rank 0 has digest", rank["difference"])
        assert len(rank["warned"]) == 1
    assert ranks[0]["healed"] == ranks[1]["healed"]


def test_a_killed_rank_is_an_error_on_the_other(ranks):
    """When one rank is killed in mid-step, the other raises within the timeout and says what to do."""
    assert re.search(r"could not exchange with the other 1: one of them ended.*last checkpoint", ranks[0]["lost"])


@pytest.fixture
def alone(tmp_path) -> Iterator[dist.ProcessGroup]:
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        group = dist.group.WORLD
        assert group is not None
        yield group
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_give_back_inverts_collect():
    """Gradients of any strides return to their own places in a bucket of their own order."""
    net = make_net()
    layout = layout_of(net)
    names = list(layout.names)[::-1]
    buffer = torch.arange(float(layout.size))
    pieces, start = [], 0
    for name in names:
        shape = layout[name].shape
        size = layout[name].numel
        view = buffer[start : start + size]
        pieces.append((name, view.view(shape[::-1]).T if len(shape) == 2 else view.view(shape)))
        start += size
    vector = torch.full((layout.size,), -1.0)
    collect(vector, pieces, layout)
    assert sorted(vector.tolist()) == buffer.tolist()
    assert not torch.equal(vector, buffer)
    assert torch.equal(give_back(vector, pieces, buffer, layout), buffer)


def test_parameters_that_ddp_ignores_are_refused(alone):
    """A step whose buckets lack a parameter raises and names it, rather than averaging zeros."""
    net = make_net()
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, ["0.weight"])
    ddp = DistributedDataParallel(net)
    register_gradient_codec(ddp, CodecConfig("none"))
    with pytest.raises(CodecError, match=r"no gradient of '0\.weight'"):
        ddp(torch.ones(2, 6)).sum().backward()


def test_the_hook_passes_the_learning_rate_on(alone):
    """The rate set on the hook's state reaches the encoder: one that is none is refused there."""
    ddp = DistributedDataParallel(make_net())
    state = register_gradient_codec(ddp, CodecConfig(feedback="classic"))
    assert state.learning_rate is None
    ddp(torch.ones(2, 6)).sum().backward()
    state.learning_rate = -1.0
    with pytest.raises(EncodeError, match="`learning_rate` must be"):
        ddp(torch.ones(2, 6)).sum().backward()


def test_states_of_other_exchanges_are_refused(alone):
    """A saved exchange of another number of ranks, or with parts missing, is refused."""
    exchange = PacketExchange(Codec(layout_of(make_net())), GroupWire(alone))
    saved = exchange.state_dict()
    for wrong in (saved | {"num_ranks": 2}, {name: saved[name] for name in ("encoder", "decoders")}):
        with pytest.raises(StateError, match="damaged or not of 1 ranks"):
            exchange.load_state_dict(wrong)


def test_registration_needs_a_process_group(alone):
    """Without a default group the message says what to call."""
    ddp = DistributedDataParallel(make_net())
    dist.destroy_process_group()
    with pytest.raises(ConfigError, match="init_process_group"):
        register_gradient_codec(ddp)
