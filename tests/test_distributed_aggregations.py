"""The ways to aggregate vectors over ranks, between threads."""

import io
from collections.abc import Callable

import pytest
import torch
from thread_wires import Board, ThreadWire, on_ranks
from torch import Tensor, nn

from deadreckon.codec import Codec, CodecConfig, CodecError, ConfigError, EncodeError, StateError
from deadreckon.codec.cost import synthetic_gradients
from deadreckon.codec.distributed import (
    Aggregation,
    ExchangeConfig,
    LatticeSum,
    PacketExchange,
    PeerError,
    ReplicaCheck,
    ReplicaError,
    ShardedExchange,
    Wire,
    require_equal,
)
from deadreckon.codec.distributed.lattice_sum import field_bits, pack_fields, reach, unpack_fields
from deadreckon.forecast import layout_of

LAYOUT = layout_of(nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 10)))
OWING = CodecConfig("fitted", "Z", nmse=0.5, feedback="classic")
WAYS = (PacketExchange, ShardedExchange, LatticeSum)
NUM_STEPS = 6


def vectors(rank: int, number: int = NUM_STEPS) -> list[Tensor]:
    return synthetic_gradients(LAYOUT, number, seed=rank)


@pytest.fixture(params=WAYS, ids=[way.name for way in WAYS])
def way(request) -> Callable[..., Aggregation]:
    return request.param


@pytest.mark.parametrize("size", [1, 3])
def test_all_ranks_get_the_same_and_nothing_is_lost(way, size):
    """The mean is bit-equal on all ranks, and what was applied plus what is owed is the sum of all true means."""

    def work(wire: Wire) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        aggregation = way(Codec(LAYOUT, OWING), wire)
        got = [aggregation.average(row) for row in vectors(wire.rank)]
        wanted = wire.total(torch.stack(vectors(wire.rank)).sum(0)) / wire.size
        return torch.stack(got), torch.stack(got).sum(0), wanted, wire.total(aggregation.owed())

    found = on_ranks(size, work)
    for got, applied, wanted, owed in found:
        assert torch.equal(got, found[0][0])
        torch.testing.assert_close(applied + owed, wanted, rtol=1e-4, atol=1e-6)
        assert float(owed.norm()) > 0.01 * float(wanted.norm())  # or this would show nothing


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_on_one_rank_is_seen_by_all(way, bad):
    """All ranks get NaN or infinity at the same coordinate; without that step, nothing is lost and all stay equal."""

    def work(wire: Wire) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        aggregation = way(Codec(LAYOUT, OWING), wire)
        rows = vectors(wire.rank)
        wrong = rows[3].clone()
        wrong[7 if wire.rank == 1 else slice(0, 0)] = bad
        before = [aggregation.average(row) for row in rows[:3]]
        owed = aggregation.owed()
        strange = aggregation.average(wrong)
        assert torch.equal(aggregation.owed(), owed)
        got = torch.stack([*before, *(aggregation.average(row) for row in rows[4:])])
        wanted = wire.total(torch.stack(rows[:3] + rows[4:]).sum(0)) / wire.size
        return strange, got, got.sum(0) + wire.total(aggregation.owed()), wanted

    found = on_ranks(3, work)
    for strange, got, accounted, wanted in found:
        assert strange.isfinite().logical_not().nonzero().tolist() == [[7]]
        assert torch.equal(got, found[0][1])
        torch.testing.assert_close(accounted, wanted, rtol=1e-4, atol=1e-6)


def test_a_rank_that_cannot_encode_is_named_by_the_others(way):
    """One rank's refusal reaches all, who name it, and the next step is as if it had not been tried."""

    def work(wire: Wire) -> tuple[str, list[Tensor]]:
        one, other = (way(Codec(LAYOUT, OWING), wire) for _ in range(2))
        rows, message = vectors(wire.rank, 3), ""
        for each in (one, other):
            each.average(rows[0], 0.1)
        try:
            one.average(rows[1], -1.0 if wire.rank == 1 else 0.1)
        except (EncodeError, PeerError) as error:
            message = f"{type(error).__name__}: {error}"
        return message, [each.average(row, 0.1) for row in rows[1:] for each in (one, other)]

    for rank, (message, means) in enumerate(on_ranks(3, work)):
        assert message.startswith(
            "EncodeError: `learning_rate` must be" if rank == 1 else "PeerError: Rank 1 could not"
        )
        assert torch.equal(means[0], means[1])
        assert torch.equal(means[2], means[3])


def test_resumed_equals_uninterrupted(way):
    """Each rank's state, through a `weights_only` file, continues bit for bit, byte counts included."""

    def work(wire: Wire) -> bool:
        one, rows = way(Codec(LAYOUT, OWING), wire), vectors(wire.rank)
        for row in rows[:3]:
            one.average(row)
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        again = way(Codec(LAYOUT, OWING), wire)
        again.load_state_dict(torch.load(file, weights_only=True))
        equal = all(torch.equal(one.average(row), again.average(row)) for row in rows[3:])
        return equal and one.traffic == again.traffic and one.traffic.num_steps == NUM_STEPS

    assert all(on_ranks(3, work))


def test_saved_states_of_others_are_refused(way):
    """A state of another number of ranks, or with parts missing, is refused by name."""

    def work(wire: Wire) -> None:
        one = way(Codec(LAYOUT, OWING), wire)
        saved = one.state_dict()
        for wrong in (saved | {"num_ranks": 3}, saved | {"kind": "other"}, {"kind": one.name}):
            with pytest.raises(StateError, match="damaged or not of 2 ranks"):
                one.load_state_dict(wrong)

    on_ranks(2, work)


@pytest.mark.parametrize("size", [2, 3])
def test_what_is_owed_may_be_handed_to_other_ranks(way, size):
    """After `owe`, the sum over ranks of `owed` is what was given, whatever the number of ranks."""
    total = torch.linspace(-1, 1, LAYOUT.size)

    def work(wire: Wire) -> Tensor:
        aggregation = way(Codec(LAYOUT, OWING), wire)
        aggregation.average(vectors(wire.rank)[0])
        aggregation.owe(total)
        return wire.total(aggregation.owed())

    for found in on_ranks(size, work):
        torch.testing.assert_close(found, total)


def test_nothing_is_owed_without_feedback():
    """Where error feedback is off, `owe` changes nothing and `owed` is zero."""

    def work(wire: Wire) -> float:
        aggregation = PacketExchange(Codec(LAYOUT, CodecConfig(nmse=0.5)), wire)
        aggregation.owe(torch.ones(LAYOUT.size))
        return float(aggregation.owed().abs().sum())

    assert on_ranks(2, work) == [0.0, 0.0]


def test_traffic_is_what_the_wire_carried(way):
    """Bytes of all steps add up to the wire's, both directions, and packets are less than what was sent to one rank."""

    def work(wire: Wire) -> None:
        aggregation = way(Codec(LAYOUT, OWING), wire)
        sent, received = wire.bytes_sent, wire.bytes_received
        steps = []
        for row in vectors(wire.rank):
            aggregation.average(row)
            steps.append(aggregation.last_traffic)
        whole = aggregation.traffic
        assert whole.sent_bytes == wire.bytes_sent - sent > 0
        assert whole.received_bytes == wire.bytes_received - received
        assert sum(step.sent_bytes for step in steps) == whole.sent_bytes
        assert sum(step.packet_bits for step in steps) == whole.packet_bits
        assert 0 < whole.symbol_bits < whole.packet_bits <= 8 * whole.sent_bytes
        assert whole.num_steps == len(steps)
        assert (whole - whole).to_dict() == dict.fromkeys(whole.to_dict(), 0)

    on_ranks(2, work)


@pytest.mark.parametrize("size", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_sharded_bytes_follow_the_formula(size):
    """Each rank carries (W - 1) / W n (R_up + R_down) bits a step within a tenth, R of one whole vector's packets."""
    layout = layout_of(nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 64)))
    config = CodecConfig("none", entropy="runs", hold="mean_rate", bits=1.0, feedback="classic")

    def work(wire: Wire) -> tuple[int, int]:
        aggregation = ShardedExchange(Codec(layout, config), wire)
        for row in synthetic_gradients(layout, 10, seed=wire.rank):
            aggregation.average(row)
        whole = aggregation.traffic
        return whole.sent_bytes, whole.received_bytes

    wanted = 10 * (size - 1) / size * layout.size * (1.0 + 1.0) / 8
    found = torch.tensor(on_ranks(size, work), dtype=torch.float64)
    assert float((found.mean(0) / wanted - 1).abs().max()) < 0.1


def test_the_lattice_sum_is_exact():
    """The mean is the step over W times the sum of all ranks' points, and each rank's points are x less e."""

    def work(wire: Wire) -> tuple[Tensor, Tensor, Tensor]:
        aggregation = LatticeSum(Codec(LAYOUT, OWING), wire, levels=3)
        row = vectors(0)[wire.rank]  # of equal scales
        mean = aggregation.average(row)
        return mean, row - wire.size * aggregation.owed(), torch.tensor(aggregation.last_nmse)

    found = on_ranks(4, work)
    torch.testing.assert_close(found[0][0], torch.stack([points for _, points, _ in found]).mean(0))
    for _, points, _ in found:
        for spec in LAYOUT:
            values = points[spec.span].abs()
            if spec.numel < 100:
                continue  # of few biases, all may be below half a step
            step = values[values > 0].min()
            integers = values / step
            torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-3)
            assert int(integers.max().round()) == 3  # saturated
    assert all(0.0 < float(nmse) < 0.3 for *_, nmse in found)


@pytest.mark.parametrize(("levels", "size"), [(1, 2), (1, 127), (7, 8), (63, 2), (2**20, 10_000)])
def test_no_sum_of_fields_overflows(levels, size):
    """Sums of the largest and of the smallest points of all ranks leave their fields readable and words positive."""
    bits = field_bits(levels, size)
    per_word = 63 // bits
    for field in (0, 2 * levels):
        fields = torch.full((3 * per_word + 1,), field)
        fields[1] = 2 * levels - field
        words = size * pack_fields(fields, bits, per_word)
        assert int(words.min()) >= 0
        assert torch.equal(unpack_fields(words, bits, per_word, len(fields)), size * fields)
    assert 2 ** (bits - 1) <= 2 * levels * size < 2**bits


def test_reach_is_the_best_place_to_clip():
    """`reach` minimises the error of clipping and rounding a Laplace source, and grows with the number of levels."""
    for levels in (1, 7, 63):

        def error(end: float, levels: int = levels) -> float:
            scaled = end * 2**0.5
            return float(2 * torch.exp(torch.tensor(-scaled)) + scaled**2 / (3 * (2 * levels + 1) ** 2))

        best = reach(levels)
        assert error(best) < min(error(0.9 * best), error(1.1 * best))
    assert reach(1) < reach(7) < reach(63)


def damage(aggregation: Aggregation) -> None:
    """Lose the state of one end."""
    if isinstance(aggregation, PacketExchange):
        aggregation.decoders[0].reset()
    else:
        assert isinstance(aggregation, ShardedExchange)
        aggregation._from_ranks[0].reset()


@pytest.mark.parametrize("way", [PacketExchange, ShardedExchange])
def test_a_lost_state_is_healed_by_key_frames(way):
    """Where one rank cannot decode, all send the step again as key frames: same means on all, nothing owed is lost."""

    def work(wire: Wire) -> tuple[Tensor, Tensor, Tensor]:
        aggregation = way(Codec(LAYOUT, OWING), wire, heal=True)
        rows, got = vectors(wire.rank), []
        for number, row in enumerate(rows):
            if number == 3 and wire.rank == 1:
                damage(aggregation)
            got.append(aggregation.average(row))
        wanted = wire.total(torch.stack(rows).sum(0)) / wire.size
        return torch.stack(got), torch.stack(got).sum(0) + wire.total(aggregation.owed()), wanted

    found = on_ranks(3, work)
    for got, accounted, wanted in found:
        assert torch.equal(got, found[0][0])
        if way is PacketExchange:  # the owner's mean of a broken step is lost, where it was sent already
            torch.testing.assert_close(accounted, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", [PacketExchange, ShardedExchange])
def test_a_lost_state_is_an_error_without_healing(way):
    """Where one rank cannot decode and healing is off, it raises."""

    def work(wire: Wire) -> None:
        aggregation = way(Codec(LAYOUT, OWING), wire)
        for number, row in enumerate(vectors(wire.rank)):
            if number == 3 and wire.rank == 1:
                damage(aggregation)
            aggregation.average(row)

    with pytest.raises(CodecError, match="no key frame|key frame|could not encode"):
        on_ranks(2, work)


def test_announced_lengths_are_checked_before_anything_is_allocated(monkeypatch):
    """A rank that announces a packet larger than the layout allows is refused."""

    def work(wire: Wire) -> None:
        aggregation = PacketExchange(Codec(LAYOUT), wire)
        huge = torch.frombuffer(bytearray((2**50).to_bytes(8, "little")), dtype=torch.uint8)
        monkeypatch.setattr(wire, "gather", lambda value: [huge])
        aggregation.average(torch.zeros(LAYOUT.size))

    with pytest.raises(CodecError, match=f"rank 0 announces {2**50}"):
        on_ranks(1, work)


@pytest.mark.parametrize("size", [1, 3])
def test_a_raw_packet_does_not_make_room_for_long(size):
    """A step of float32 is followed by steps as short as before."""

    def work(wire: Wire) -> list[int]:
        aggregation = PacketExchange(Codec(LAYOUT, OWING), wire)
        rows, sizes = vectors(wire.rank, 8), []
        rows[4][0] = float("nan")
        for row in rows:
            aggregation.average(row)
            sizes.append(aggregation.last_traffic.sent_bytes)
        return sizes

    for sizes in on_ranks(size, work):
        assert size == 1 or sizes[4] > 4 * LAYOUT.size * (size - 1)
        assert max(sizes[5:]) <= max(sizes[1:4]) * 1.3


def test_ranks_that_differ_are_refused():
    """Ranks of different aggregations raise on all, naming the first difference and both values."""

    def work(wire: Wire) -> str:
        with pytest.raises(ConfigError) as caught:
            (ShardedExchange if wire.rank < 2 else LatticeSum)(Codec(LAYOUT), wire)
        return str(caught.value)

    assert set(on_ranks(3, work)) == {
        "All ranks must have the same aggregation: rank 0 has sharded, rank 2 has lattice_sum. "
        "Make them equal, then start again."
    }


def test_settings_of_the_way_down_and_levels_are_compared():
    """Ranks that differ only in an option of their aggregation are refused, both values named."""

    def down(wire: Wire) -> None:
        ShardedExchange(Codec(LAYOUT), wire, down=CodecConfig(nmse=0.25 if wire.rank else 0.5))

    def levels(wire: Wire) -> None:
        LatticeSum(Codec(LAYOUT), wire, levels=3 + wire.rank)

    with pytest.raises(ConfigError, match=r"way down: setting nmse: rank 0 has 0\.5, rank 1 has 0\.25"):
        on_ranks(2, down)
    with pytest.raises(ConfigError, match="option levels: rank 0 has 3, rank 1 has 4"):
        on_ranks(2, levels)


def test_unlike_machines_are_refused_or_promised_less():
    """Another kind of device is an error that names both, or a warning where it is allowed."""
    codec = Codec(LAYOUT)

    def work(wire: Wire, allow: bool) -> None:
        wire.device = "cuda" if wire.rank else "cpu"
        PacketExchange(codec, wire, allow_unlike=allow)

    with pytest.raises(ConfigError, match="same device kind: rank 0 has cpu, rank 1 has cuda"):
        on_ranks(2, lambda wire: work(wire, False))
    with pytest.warns(UserWarning, match="same device kind: rank 0 has cpu, rank 1 has cuda.*no longer promised"):
        on_ranks(2, lambda wire: work(wire, True))


def test_missing_entries_are_named():
    """An entry that only one rank has is a difference, too."""

    def work(wire: Wire) -> None:
        require_equal(wire, {"one": "1"} if wire.rank else {"one": "1", "two": "2"})

    with pytest.raises(ConfigError, match="same two: rank 0 has 2, rank 1 has none"):
        on_ranks(2, work)


def test_parameters_are_healed_from_the_majority():
    """What most ranks hold is copied to the others, bit for bit; what is equal is left alone."""

    def work(wire: Wire) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        values = {"same": torch.ones(3), "odd": torch.full((2, 2), 1.0 if wire.rank else -0.0, dtype=torch.bfloat16)}
        check = ReplicaCheck(wire, lambda: values, every=1, heal=True)
        healed = check.step()
        assert check.step() == ()
        return values, healed

    with pytest.warns(UserWarning, match=r"'odd' differs .* All ranks now have rank 1's"):
        found = on_ranks(3, work)
    for values, healed in found:
        assert healed == ("odd",)
        assert torch.equal(values["odd"], torch.ones(2, 2, dtype=torch.bfloat16))


def test_comparisons_come_when_they_are_due():
    """With `every=3` a difference is found at the third step, with 0 never; a negative number is refused."""

    def work(wire: Wire) -> int:
        check = ReplicaCheck(wire, lambda: {"x": torch.tensor(float(wire.rank))}, every=3)
        for step in range(1, 10):
            try:
                check.step()
            except ReplicaError:
                return step
        return 0

    assert on_ranks(2, work) == [3, 3]
    wire = ThreadWire(Board(1), 0)
    assert ReplicaCheck(wire, dict, every=0).step() == ()
    with pytest.raises(ConfigError, match="`check_every` must be"):
        ReplicaCheck(wire, dict, every=-1)


def test_bad_options_are_refused():
    """Unknown names and numbers out of range are refused with what was given."""
    wire = ThreadWire(Board(1), 0)
    with pytest.raises(ConfigError, match="`aggregation` must be one of .* got 'ring'"):
        ExchangeConfig("ring")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="`on_difference` must be 'raise' or 'heal'"):
        ExchangeConfig(on_difference="ignore")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="`check_every` must be"):
        ExchangeConfig(check_every=-1)
    for levels in (0, 2**21, True):
        with pytest.raises(ConfigError, match="`levels` must be"):
            LatticeSum(Codec(LAYOUT), wire, levels=levels)
    with pytest.raises(ConfigError, match="3 ranks cannot each own a part of 2 coordinates"):
        on_ranks(3, lambda wire: ShardedExchange(Codec(layout_of(nn.Linear(1, 1))), wire))


def test_options_make_what_they_say():
    """Each name makes its aggregation; `auto` makes the same one on all ranks."""

    def work(wire: Wire) -> list[str]:
        names = ("all_gather", "sharded", "lattice_sum", "auto")
        return [ExchangeConfig(name).make(Codec(LAYOUT, OWING), wire).name for name in names]

    found = on_ranks(2, work)
    assert found[0] == found[1]
    assert found[0][:3] == ["all_gather", "sharded", "lattice_sum"]
