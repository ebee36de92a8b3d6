"""Local rounds: the outer step, its inverse, and forecasters of weights as predictors of pseudo-gradients."""

import pytest
import torch
from thread_wires import on_ranks
from torch import Tensor, nn

from deadreckon.codec import Codec, CodecConfig, ConfigError, StateError
from deadreckon.codec.distributed import PacketExchange, Wire
from deadreckon.codec.distributed.outer import LocalRounds, OuterNesterov
from deadreckon.codec.distributed.wire import Alone
from deadreckon.forecast import layout_of
from deadreckon.models import Linear
from deadreckon.models.inverted_optimizer import InvertedOptimizer

LAYOUT = layout_of(nn.Linear(30, 20))


def rounds_on(wire: Wire, config: CodecConfig, outer: OuterNesterov) -> LocalRounds:
    return LocalRounds(PacketExchange(Codec(LAYOUT, config, "pseudo_gradients"), wire), outer, torch.ones(LAYOUT.size))


def test_the_outer_step_is_torchs_nesterov():
    """Without loss in the codec, rounds equal torch's SGD with Nesterov momentum on the mean difference."""

    def work(wire: Wire) -> list[Tensor]:
        rounds = rounds_on(wire, CodecConfig("none", lattice="raw"), OuterNesterov(0.7, 0.9))
        generator = torch.Generator().manual_seed(wire.rank)
        reference = torch.nn.Parameter(torch.ones(LAYOUT.size))
        optimizer = torch.optim.SGD([reference], 0.7, momentum=0.9, nesterov=True)
        for _ in range(4):
            local = rounds.weights + 0.1 * torch.randn(LAYOUT.size, generator=generator)
            reference.grad = wire.total(rounds.weights - local) / wire.size
            optimizer.step()
            torch.testing.assert_close(rounds.finish(local), reference.detach())
        return [rounds.weights]

    found = on_ranks(3, work)
    assert all(torch.equal(weights[0], found[0][0]) for weights in found)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_inverse_of_the_outer_step(momentum):
    """`gradient` gives back what `advanced` took, from any state; `gain` is its derivative by the update."""
    outer = OuterNesterov(0.7, momentum)
    state = outer.initial(torch.zeros(5, dtype=torch.float64))
    for _ in range(3):
        wanted = torch.randn(5, dtype=torch.float64)
        after, update = outer.advanced(state, wanted)
        torch.testing.assert_close(outer.gradient(state, update), wanted)
        moved = outer.gradient(state, update + 1) - wanted
        torch.testing.assert_close(moved, outer.gain(state).expand(5))
        state = after


def test_ranks_that_are_not_finite_go_back():
    """NaN on one rank sends all back to the last common weights, and the next round is as if it had not been."""

    def work(wire: Wire) -> tuple[Tensor, Tensor]:
        rounds = rounds_on(wire, CodecConfig("none", lattice="raw"), OuterNesterov())
        first = rounds.finish(rounds.weights - 0.1)
        broken = rounds.weights.clone()
        broken[3 if wire.rank else slice(0, 0)] = float("nan")
        return first, rounds.finish(broken)

    for first, second in on_ranks(2, work):
        assert torch.equal(first, second)


def test_a_forecaster_of_weights_predicts_pseudo_gradients():
    """On a straight path of weights, the codec with an inverted forecaster leaves next to nothing to send."""
    outer = OuterNesterov(0.7, 0.5)
    forecaster = InvertedOptimizer(Linear(history=2), outer, stream="pseudo_gradients")

    def ratio(predictor: object) -> float:
        config = CodecConfig(predictor, "Z", nmse=1e-4)  # pyright: ignore[reportArgumentType]
        rounds = rounds_on(Alone(), config, outer)
        direction = torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(0))
        bits = []
        for _ in range(6):
            rounds.finish(rounds.weights - direction)
            bits.append(rounds.aggregation.last_traffic.packet_bits)
        return bits[-1] / bits[0]

    assert ratio(forecaster) < 0.7 * ratio("none")


def test_common_state_goes_on():
    """A state taken over continues bit for bit; damaged ones are refused by name."""
    config = CodecConfig("none", lattice="raw")
    one, other = (rounds_on(Alone(), config, OuterNesterov()) for _ in range(2))
    one.finish(one.weights - 0.1)
    other.load_common_state(one.common_state())
    assert torch.equal(one.finish(one.weights - 0.2), other.finish(other.weights - 0.2))
    assert one.num_rounds == other.num_rounds == 2
    with pytest.raises(StateError, match="have the entries"):
        one.load_common_state({"weights": one.weights})
    with pytest.raises(StateError, match="`momentum` of saved rounds must be float32"):
        one.load_common_state(one.common_state() | {"momentum": torch.zeros(3)})


def test_bad_outer_options_are_refused():
    """Rates and momenta out of range are refused."""
    with pytest.raises(ConfigError, match="outer `learning_rate` must be above 0"):
        OuterNesterov(0.0)
    with pytest.raises(ConfigError, match="outer `momentum` must be"):
        OuterNesterov(0.7, 1.0)
