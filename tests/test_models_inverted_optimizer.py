"""Gradients forecast by way of the weights that they lead to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, window_of
from torch import Tensor
from torch.testing import assert_close
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig
from deadreckon.forecast import Forecast, Window, WindowError
from deadreckon.forecast.errors import NotFittedError
from deadreckon.models import (
    Budget,
    ClosedForm,
    Hold,
    LearnedLinear,
    Linear,
    ModelError,
    OptimizerMoments,
    Quadratic,
    fit_forecaster,
)
from deadreckon.models.inverted_optimizer import SGD, Adam, InvertedOptimizer, InvertibleOptimizer

SIZE = 50
OPTIMIZERS = [SGD(0.1), SGD(0.1, momentum=0.9), Adam(0.01), Adam(0.01, beta1=0.0)]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)


def gradients(num_rows: int, seed: int = 0, signal: float = 1.0) -> Tensor:
    """A constant plus noise of a tenth of it, `[time, param]`."""
    generator = torch.Generator().manual_seed(seed)
    constant = signal * torch.randn(SIZE, generator=generator)
    return constant + 0.1 * torch.randn(num_rows, SIZE, generator=generator)


def window(rows: Tensor, spacing: int = 1) -> Window:
    return window_of(rows, range(0, spacing * len(rows), spacing), stream="gradients")


def one(forecaster: InvertedOptimizer, given: Window, horizon: int = 1) -> Forecast:
    (forecast,) = forecaster.forecast(given, [horizon])
    return forecast


class _Told(ClosedForm):
    """Forecasts weights that it was told, off by a given error."""

    name: ClassVar[str] = "told"
    history = 2

    def __init__(self, weights: dict[int, Tensor], error: float = 0.0) -> None:
        super().__init__("weights")
        self.weights, self.error = weights, error

    @property
    @override
    def options(self) -> dict[str, object]:
        return {}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            mean = self.weights[horizon] + self.error
            yield Forecast(horizon, mean, torch.full_like(mean, abs(self.error)))


def weights_after(optimizer: InvertibleOptimizer, rows: Tensor) -> list[Tensor]:
    """Where torch's own optimiser takes weights from zero, `[param]` after each gradient."""
    weights = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    if isinstance(optimizer, Adam):
        betas = (optimizer.beta1, optimizer.beta2)
        native: torch.optim.Optimizer = torch.optim.Adam([weights], optimizer.learning_rate, betas, optimizer.eps)
    else:
        assert isinstance(optimizer, SGD)
        native = torch.optim.SGD([weights], optimizer.learning_rate, momentum=optimizer.momentum)
    path = []
    for row in rows:
        weights.grad = row.clone()
        native.step()
        path.append(weights.detach().clone())
    return path


@every_optimizer
def test_the_optimiser_is_torchs(optimizer):
    """Updates take weights where torch's optimiser of the same settings takes them."""
    rows = gradients(8).double()
    state, weights = optimizer.initial(rows[0]), torch.zeros_like(rows[0])
    for row, expected in zip(rows, weights_after(optimizer, rows), strict=True):
        state, update = optimizer.advanced(state, row)
        weights = weights - update
        assert_close(weights, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_line_of_weights_repeats_the_last_update(momentum):
    """Behind SGD, the line through the last two weights asks for the update again: without momentum, the gradient."""
    before, last = gradients(2)
    found = one(InvertedOptimizer(Linear(history=2), SGD(0.1, momentum)), window(torch.stack([before, last])))
    update = momentum * before + last  # from a moment of zero
    assert_close(found.mean, (1 - momentum) * update, rtol=1e-4, atol=1e-5)


def test_standing_weights_cancel_the_moment():
    """Weights that stay where they are need a zero gradient from SGD, and minus the moment with momentum."""
    before, last = gradients(2)
    rows = window(torch.stack([before, last]))
    assert not one(InvertedOptimizer(Hold(), SGD(0.1)), rows).mean.any()
    found = one(InvertedOptimizer(Hold(), SGD(0.1, momentum=0.5)), rows).mean
    assert_close(found, -0.5 * (0.5 * before + last))


@every_optimizer
@pytest.mark.parametrize("horizon", [1, 3])
def test_the_way_back_from_the_true_weights_is_the_gradient(optimizer, horizon):
    """Told where torch's optimiser goes, it returns the gradient: SGD's to rounding, Adam's to 5 %, as v moves."""
    rows = gradients(30 + horizon)
    path = weights_after(optimizer, rows)
    member = _Told({ahead: path[29 + ahead] for ahead in range(1, horizon + 1)})
    found = one(InvertedOptimizer(member, optimizer, history=30), window(rows[:30]), horizon)
    wrong = float((found.mean - rows[-1]).norm() / rows[-1].norm())
    assert wrong < (1e-4 if isinstance(optimizer, SGD) else 0.05)
    assert not found.scale.any()


@pytest.mark.parametrize(
    ("optimizer", "factor"), [(SGD(0.01), 1.0), (SGD(0.01, 0.9), 1.0), (Adam(0.01, 0.0), 1.0), (Adam(0.01), 10.0)]
)
def test_adam_multiplies_the_error_by_ten(optimizer, factor):
    """An error of the weights, in units of what a gradient of typical size adds, comes out ten times as large."""
    rows = gradients(100)
    path = weights_after(optimizer, rows)
    typical = rows.square().mean(dim=0).sqrt()
    unit = optimizer.learning_rate if isinstance(optimizer, SGD) else optimizer.learning_rate / typical
    right = one(InvertedOptimizer(_Told({1: path[99]}), optimizer, history=100), window(rows))
    wrong = one(InvertedOptimizer(_Told({1: path[99]}, error=1e-3), optimizer, history=100), window(rows))
    for change in (right.mean - wrong.mean, wrong.scale):
        assert_close(change * unit / 1e-3, torch.full((SIZE,), factor), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), Adam(0.1)], ids=str)
def test_the_learning_rate_cancels(optimizer):
    """With a member that is homogeneous, another learning rate gives the same gradient and scale."""
    rows = window(gradients(8))
    first = one(InvertedOptimizer(Linear(), optimizer), rows)
    second = one(InvertedOptimizer(Linear(), replace(optimizer, learning_rate=0.003)), rows)
    assert_close(first.mean, second.mean, rtol=1e-3, atol=1e-4)
    assert_close(first.scale, second.scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_forecasts_are_as_the_contract_has_them(dtype):
    """In the window's type and shape, finite, equal whatever else was asked, from the newest rows, rows untouched."""
    forecaster = InvertedOptimizer(Quadratic(), Adam(0.01))
    given = window(gradients(forecaster.history + 2).to(dtype), spacing=5)
    before = given.values.clone()
    (alone,) = forecaster.forecast(given.tail(forecaster.history), [10])
    *_, among = forecaster.forecast(given, [5, 20, 10])
    assert torch.equal(given.values, before)
    for first, second in ((alone.mean, among.mean), (alone.scale, among.scale)):
        assert first.dtype == dtype
        assert first.shape == (SIZE,)
        assert bool(first.isfinite().all())
        assert torch.equal(first, second)
    assert bool((alone.scale > 0).all())


def test_the_distance_of_rows_does_not_count():
    """One row is one update: rows five steps apart, five steps ahead, give what neighbouring rows give for one."""
    forecaster = InvertedOptimizer(Quadratic(), Adam(0.01))
    rows = gradients(forecaster.history)
    apart, near = one(forecaster, window(rows, spacing=5), 5), one(forecaster, window(rows), 1)
    assert_close(apart.mean, near.mean, rtol=1e-4, atol=1e-5)


def test_coordinates_that_stand_still_stay_zero():
    """Where all gradients are zero the forecast is zero, with Adam's root of zero as well."""
    rows = gradients(6)
    rows[:, :10] = 0.0
    for optimizer in (SGD(0.1, 0.9), Adam(0.01), Adam(0.01, eps=0.0)):
        found = one(InvertedOptimizer(Linear(), optimizer), window(rows))
        assert not found.mean[:10].any()
        assert not found.scale[:10].any()
        assert bool(found.mean[10:].all())


def test_rows_and_horizons_must_fit_each_other():
    """Uneven rows, and a horizon between two rows, are refused when the forecast is taken."""
    forecaster = InvertedOptimizer(Linear(history=2), SGD(0.1))
    with pytest.raises(WindowError, match="multiple of that, got 3"):
        one(forecaster, window(gradients(2), spacing=2), 3)
    uneven = InvertedOptimizer(Linear(history=4), SGD(0.1))
    with pytest.raises(WindowError, match="must be evenly spaced"):
        one(uneven, window_of(gradients(3), [0, 1, 3], stream="gradients"))


def test_bad_settings_are_refused():
    """Members of another stream or with moments, too short a history and rates out of range are errors."""
    with pytest.raises(ModelError, match="needs a forecaster of 'weights', got one of 'gradients'"):
        InvertedOptimizer(Linear(stream="gradients"), SGD())
    with pytest.raises(ModelError, match="'optimizer_moments' needs the optimiser's moments"):
        InvertedOptimizer(OptimizerMoments(), SGD())
    with pytest.raises(ModelError, match="`history` must be a whole number of at least 4, got 3"):
        InvertedOptimizer(Linear(history=5), SGD(), history=3)
    with pytest.raises(ModelError, match="`learning_rate` must be a finite number above 0, got 0"):
        SGD(0)
    with pytest.raises(ModelError, match="`momentum` must be a number of at least 0 and below 1, got 1.0"):
        SGD(0.1, 1.0)
    with pytest.raises(ModelError, match="`beta2` must be a number of at least 0 and below 1, got 1"):
        Adam(0.1, beta2=1)
    with pytest.raises(ModelError, match="`eps` must be a finite number of at least 0, got -1"):
        Adam(0.1, eps=-1)


def test_what_the_member_has_learned_is_its_state():
    """A learned member must be fitted first; its state makes an equal forecaster of an unfitted one."""
    forecaster, other = (InvertedOptimizer(LearnedLinear(history=4), SGD(0.1)) for _ in range(2))
    assert not forecaster.fitted
    assert forecaster.state_dict() == {}
    with pytest.raises(NotFittedError, match="has not been fitted"):
        one(forecaster, window(gradients(3)))
    values = drifting_rows(24, SIZE, torch.Generator().manual_seed(0))
    found = cases_of(values, range(24), 4, [1, 2], flat_layout(SIZE))
    fit_forecaster(forecaster.member, found, Budget(), torch.Generator())
    other.load_state_dict(forecaster.state_dict())
    assert torch.equal(one(forecaster, window(gradients(3))).mean, one(other, window(gradients(3))).mean)
    with pytest.raises(NotFittedError, match="'linear' learns nothing"):
        InvertedOptimizer(Linear(), SGD()).load_state_dict({"gain": torch.ones(1)})


def test_it_sits_in_front_of_a_codec_of_gradients():
    """Behind SGD, with a line through two weights, it codes like `previous`; its settings are in the codec's digest."""
    layout = flat_layout(2000)
    generator = torch.Generator().manual_seed(0)
    constant = torch.randn(2000, generator=generator)
    rows = [constant + 0.3 * torch.randn(2000, generator=generator) for _ in range(6)]
    line = InvertedOptimizer(Linear(history=2), SGD(0.1))
    codecs = {name: Codec(layout, CodecConfig(chosen)) for name, chosen in (("line", line), ("previous", "previous"))}
    ends = {name: (codec.encoder(), codec.decoder()) for name, codec in codecs.items()}
    for step, row in enumerate(rows):
        for encoder, decoder in ends.values():
            decoded = decoder.decode(encoder.encode(row, step))
            assert torch.equal(decoded, encoder.reconstruction)
        ratios = [encoder.last_report.residual_ratio for encoder, _ in ends.values()]
        assert_close(ratios[0], ratios[1], rtol=1e-2, atol=0.0)
        assert ratios[0] < 0.5 or step == 0
    digests = {CodecConfig(InvertedOptimizer(Linear(history=2), kind)).digest for kind in (*OPTIMIZERS, SGD(0.2))}
    assert len(digests) == 5
