"""Error feedback: the bookkeeping of what is owed."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from deadreckon.codec import ConfigError, EncodeError, StateError
from deadreckon.codec.feedback import Classic, FeedbackState, Leaky, Off, feedback_names, make_feedback

SIZE = 300
RATES = [0.1, 0.2, 0.05, 0.0, 0.05, 0.4, 0.01]


def coded(vector):
    """A coarse, biased coder: the signs of the largest tenth of the coordinates, times 1.5."""
    keep = np.abs(vector) >= np.quantile(np.abs(vector), 0.9)
    return np.where(keep, np.sign(vector) * np.float32(1.5), 0).astype(np.float32)


def vectors(length, seed=0):
    return np.random.default_rng(seed).standard_normal((length, SIZE)).astype(np.float32)


def run(rule, rows, rates):
    """Decoded vectors and the last state."""
    state = rule.initial(SIZE)
    decoded = []
    for row, rate in zip(rows, rates, strict=True):
        corrected, _ = rule.corrected(state, row, rate)
        decoded.append(coded(corrected))
        state = rule.settled(state, corrected, decoded[-1], rate)
    return np.array(decoded), state


@pytest.mark.parametrize("rate", [None, 0.3])
def test_nothing_is_lost(rate):
    """With classic feedback the decoded vectors and the residual add up to the encoded ones."""
    rows = vectors(40)
    decoded, state = run(Classic(), rows, [rate] * 40)
    assert_close(torch.from_numpy(decoded.sum(0) + state.residual), torch.from_numpy(rows.sum(0)), rtol=0, atol=1e-4)
    assert np.abs(state.residual).max() > 1


def test_nothing_is_lost_while_the_learning_rate_changes():
    """The applied updates, rate times decoded, and what is owed at the last rate add up to rate times encoded."""
    rows = vectors(len(RATES))
    decoded, state = run(Classic(), rows, RATES)
    rates = np.array(RATES)[:, None]
    assert state.learning_rate == RATES[-1]
    applied = (rates * decoded).sum(0) + RATES[-1] * state.residual
    assert_close(applied, (rates * rows).sum(0), rtol=0, atol=1e-6)


def test_a_rate_of_zero_waits():
    """At rate 0 nothing is added and the state stays, for nothing that is sent has an effect."""
    rule = Classic()
    _, state = run(rule, vectors(3), [0.1] * 3)
    row = vectors(1, seed=1)[0]
    corrected, _ = rule.corrected(state, row, 0.0)
    assert np.array_equal(corrected, row)
    assert not np.shares_memory(corrected, row)
    assert rule.settled(state, corrected, coded(corrected), 0.0) is state


@pytest.mark.parametrize(("old", "new", "scale"), [(0.2, 0.1, 2), (0.1, 0.4, 0.25), (None, 0.1, 1), (0.1, None, 1)])
def test_residual_is_rescaled_by_the_ratio_of_rates(old, new, scale):
    """What is owed enters times old rate over new rate; a rate that is not known rescales nothing."""
    residual, row = vectors(2)
    corrected, _ = Classic().corrected(FeedbackState(residual, old), row, new)
    assert_close(corrected, row + np.float32(scale) * residual)


def test_leaky_feedback_owes_a_share():
    """What is owed is the decayed error, and with decay 1 it is classic feedback, bit for bit."""
    rows = vectors(12)
    rule = Leaky(0.5)
    state = FeedbackState(rows[0], None)
    assert np.array_equal(rule.settled(state, rows[1], rows[2]).residual, np.float32(0.5) * (rows[1] - rows[2]))
    same, state = run(Leaky(1.0), rows, [0.1] * 12)
    classic, classic_state = run(Classic(), rows, [0.1] * 12)
    assert np.array_equal(same, classic)
    assert np.array_equal(state.residual, classic_state.residual)


def test_leaky_residual_stays_smaller():
    """Under coding that always drops the same part, leaky feedback owes at most 1 / (1 - decay) of it."""
    row = np.full(SIZE, 0.1, np.float32)
    leaky, classic = Leaky(0.5), Classic()
    states = {rule.name: rule.initial(SIZE) for rule in (leaky, classic)}
    for _ in range(50):
        for rule in (leaky, classic):
            state = states[rule.name]
            states[rule.name] = rule.settled(state, rule.corrected(state, row)[0], np.zeros_like(row))
    assert_close(states["leaky"].residual, row)
    assert_close(states["classic"].residual, 50 * row, rtol=1e-5, atol=0)


def test_off_owes_nothing():
    """Without feedback the vector is coded as it is, and the state holds no vector."""
    rows = vectors(3)
    _, state = run(Off(), rows, [0.1, None, 0.3])
    assert state.residual.size == 0
    assert np.array_equal(Off().corrected(state, rows[0])[0], rows[0])


@pytest.mark.parametrize("name", feedback_names())
def test_state_is_replaced_and_never_changed(name):
    """A skipped or undone step leaves no trace: neither method writes to the state or to its arguments."""
    rule = make_feedback(name)
    rows = vectors(4)
    _, state = run(rule, rows[:2], [0.1, 0.2])
    before = (state.residual.copy(), state.learning_rate)
    row = rows[2].copy()
    corrected, _ = rule.corrected(state, row, 0.3)
    assert name == "off" or not np.shares_memory(corrected, row)
    kept = corrected.copy()
    rule.settled(state, corrected, coded(corrected), 0.3)
    assert np.array_equal(row, rows[2])
    assert np.array_equal(corrected, kept)
    assert np.array_equal(state.residual, before[0])
    assert state.learning_rate == before[1]


@pytest.mark.parametrize("rates", [[0.1] * 8, [None] * 8])
@pytest.mark.parametrize("name", feedback_names())
def test_resumed_equals_uninterrupted(name, rates):
    """A state that went through a dictionary of tensors goes on exactly."""
    rule = make_feedback(name)
    rows = vectors(8)
    decoded, state = run(rule, rows, rates)
    _, half = run(rule, rows[:5], rates[:5])
    resumed = rule.from_dict(rule.to_dict(half), SIZE)
    for row, rate, expected in zip(rows[5:], rates[5:], decoded[5:], strict=True):
        corrected, _ = rule.corrected(resumed, row, rate)
        assert np.array_equal(coded(corrected), expected)
        resumed = rule.settled(resumed, corrected, expected, rate)
    assert np.array_equal(resumed.residual, state.residual)
    assert resumed.learning_rate == state.learning_rate


def test_saved_state_is_not_the_state():
    """Writing into a saved residual changes nothing in the state, and the other way round."""
    rule = Classic()
    _, state = run(rule, vectors(2), [0.1, 0.1])
    saved = rule.to_dict(state)
    loaded = rule.from_dict(saved, SIZE)
    saved["residual"].fill_(7)
    assert not (state.residual == 7).any()
    assert not (loaded.residual == 7).any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("residual", torch.zeros(SIZE + 1), "`residual` of error feedback must be"),
        ("residual", torch.zeros(SIZE, dtype=torch.float64), "`residual` of error feedback must be"),
        ("residual", torch.full((SIZE,), math.nan), "damaged"),
        ("learning_rate", torch.tensor(0.1), "`learning_rate` of error feedback must be"),
        ("learning_rate", torch.tensor(-0.1, dtype=torch.float64), "damaged"),
        ("learning_rate", None, "got None"),
    ],
)
def test_unfit_states_are_refused(name, value, message):
    """A state of another size or type, or one that no run reaches, is named."""
    saved = {**Classic().to_dict(Classic().initial(SIZE)), name: value}
    with pytest.raises(StateError, match=message):
        Classic().from_dict(saved, SIZE)


@pytest.mark.parametrize("name", feedback_names())
@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf, True])
def test_impossible_rates_are_refused(name, rate):
    """A learning rate is at least 0 and finite."""
    rule = make_feedback(name)
    row = vectors(1)[0]
    with pytest.raises(EncodeError, match="`learning_rate` must be a finite number"):
        rule.corrected(rule.initial(SIZE), row, rate)
    with pytest.raises(EncodeError, match="`learning_rate` must be a finite number"):
        rule.settled(rule.initial(SIZE), row, row, rate)


def test_unknown_rules_and_decays_are_refused():
    """Names and decays that there are not raise at once."""
    with pytest.raises(ConfigError, match="must be one of .'off', 'classic', 'leaky'., got 'ef21'"):
        make_feedback("ef21")
    for decay in (0.0, 1.1, True):
        with pytest.raises(ConfigError, match="`decay` must be above 0"):
            Leaky(decay)
