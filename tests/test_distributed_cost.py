"""When compression pays: costs of a step's exchange, break-even, and the choice of an aggregation."""

import math

import pytest
import torch
from thread_wires import on_ranks
from torch import nn

from deadreckon.codec import Codec, CodecConfig, ConfigError
from deadreckon.codec.cost import (
    CodecCost,
    ExchangeCost,
    break_even,
    exchange_costs,
    fastest,
    measure_codec,
    speed_text,
    synthetic_gradients,
)
from deadreckon.codec.distributed import AggregationChoice, PacketExchange, ShardedExchange, Wire, choose_aggregation
from deadreckon.forecast import layout_of

LAYOUT = layout_of(nn.Linear(100, 60))
UP = CodecCost(1_000_000, 0.5, 0.03, 0.01)


def test_both_ways_take_as_long_at_the_break_even_speed():
    """At `break_even` a step's exchange takes the same, below it the compressed one is faster, above it slower."""
    plain, ours = ExchangeCost(0.001, 4e6), ExchangeCost(0.05, 1e5)
    speed = break_even(plain, ours)
    assert plain.seconds(speed) == pytest.approx(ours.seconds(speed))
    assert ours.seconds(speed / 2) < plain.seconds(speed / 2)
    assert ours.seconds(speed * 2) > plain.seconds(speed * 2)


def test_break_even_where_there_is_none():
    """Infinite where the compressed way needs neither more work nor more bytes, 0 where it saves nothing."""
    assert break_even(ExchangeCost(0.1, 10.0), ExchangeCost(0.1, 5.0)) == math.inf
    assert break_even(ExchangeCost(0.1, 10.0), ExchangeCost(0.2, 10.0)) == 0.0
    assert break_even(ExchangeCost(0.2, 10.0), ExchangeCost(0.1, 11.0)) == math.inf
    with pytest.raises(ConfigError, match="above 0 bit/s"):
        ExchangeCost(0.1, 10.0).seconds(0.0)


@pytest.mark.parametrize("num_ranks", [2, 8])
def test_bytes_follow_the_formulas(num_ranks):
    """All-gather sends (W - 1) R n bits, sharded (W - 1) / W n (R_up + R_down), sums twice (W - 1) / W of words."""
    down = UP._replace(bits=0.75)
    costs = exchange_costs(UP, down, 5.0, 0.02, num_ranks)
    others, size = num_ranks - 1, UP.size
    assert costs["float32"].num_bytes == pytest.approx(2 * others / num_ranks * 4 * size)
    assert costs["all_gather"].num_bytes == pytest.approx(others * 0.5 * size / 8)
    assert costs["sharded"].num_bytes == pytest.approx(others / num_ranks * (0.5 + 0.75) * size / 8)
    assert costs["lattice_sum"].num_bytes == pytest.approx(2 * others / num_ranks * 5 * size / 8)
    assert costs["all_gather"].work_seconds == pytest.approx(0.03 + others * 0.01)
    assert costs["sharded"].work_seconds < 2.1 * (0.03 + 0.01)
    with pytest.raises(ConfigError, match="`num_ranks` must be"):
        exchange_costs(UP, down, 5.0, 0.02, 0)


def test_the_choice_follows_ranks_and_link():
    """Few ranks gather, many go by shards, and fast links take the sum."""

    def best(num_ranks: int, link: float) -> str:
        return fastest(exchange_costs(UP, UP, 5.0, 0.02, num_ranks), link)

    assert best(2, 1e7) == "all_gather"
    assert best(16, 1e7) == "sharded"
    assert best(16, 1e10) == "lattice_sum"


def test_measured_bits_are_those_of_packets():
    """A measurement says the bits of the codec's own packets on the same vectors, and times above 0."""
    codec = Codec(LAYOUT, CodecConfig("none", "Z", nmse=0.1))
    rows = synthetic_gradients(LAYOUT, 5)
    found = measure_codec(codec, vectors=rows)
    encoder = codec.encoder()
    packets = [encoder.encode(row, step) for step, row in enumerate(rows)]
    assert found.bits == 8 * len(packets[-1]) / LAYOUT.size
    assert found.size == LAYOUT.size
    assert 0 < found.decode_seconds < 10
    assert 0 < found.encode_seconds < 10


def test_large_vectors_are_measured_by_a_part(monkeypatch):
    """Of more coordinates than are measured, times are scaled to the whole and bits stay those of a coordinate."""
    monkeypatch.setattr("deadreckon.codec.cost._MEASURED_SIZE", LAYOUT.size // 4)
    codec = Codec(LAYOUT, CodecConfig("none", lattice="raw"))
    found = measure_codec(codec)
    assert found.size == LAYOUT.size
    assert 32 < found.bits < 33


def test_synthetic_gradients_are_the_same_for_a_seed():
    """They are finite, have several scales, and touch no global random state."""
    layout = layout_of(nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30)))
    state = torch.random.get_rng_state()
    one, other = (synthetic_gradients(layout, 2, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[1])
    scales = [float(one[0][spec.span].std()) for spec in layout]
    assert max(scales) > 2 * min(scales)
    assert all(row.isfinite().all() for row in one)
    assert torch.equal(state, torch.random.get_rng_state())


def test_all_ranks_choose_the_same():
    """The choice and its figures are equal on all ranks, and the text names the break-even speed."""

    def work(wire: Wire) -> AggregationChoice:
        return choose_aggregation(Codec(LAYOUT, CodecConfig("none", "Z", nmse=0.1)), wire)

    first, *others = on_ranks(3, work)
    assert all(choice == first for choice in others)
    text = first.text("sharded")
    assert f"It pays below {speed_text(first.break_even('sharded'))}" in text
    assert "over 3 ranks" in text


@pytest.mark.parametrize("way", [PacketExchange, ShardedExchange])
def test_predicted_bytes_are_those_sent(way):
    """What the cost model says a step sends is what the wire counts, within a tenth, frames aside."""
    layout = layout_of(nn.Linear(256, 256))
    config = CodecConfig("none", entropy="runs", hold="mean_rate", bits=1.0, feedback="classic")

    def work(wire: Wire) -> float:
        aggregation = way(Codec(layout, config), wire)
        sent = 0
        for step, row in enumerate(synthetic_gradients(layout, 12, seed=wire.rank)):
            aggregation.average(row)
            sent += aggregation.last_traffic.sent_bytes if step >= 4 else 0  # once the rate is held
        return sent / 8

    cost = CodecCost(layout.size, 1.0, 0.1, 0.1)
    wanted = exchange_costs(cost, cost, 5.0, 0.1, 2)[way.name].num_bytes
    assert on_ranks(2, work)[0] == pytest.approx(wanted, rel=0.1)


def test_speeds_for_people():
    """Speeds have three digits and a unit."""
    assert [speed_text(value) for value in (math.inf, 2.5e9, 1.234e8, 5000.0, 12.0)] == [
        "any speed",
        "2.5 Gbit/s",
        "123 Mbit/s",
        "5 kbit/s",
        "12 bit/s",
    ]
