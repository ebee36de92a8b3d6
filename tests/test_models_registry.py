"""Forecasters by name."""

import pytest

from deadreckon.models import (
    ModelError,
    closed_form_names,
    forecaster_names,
    learned_names,
    make_forecaster,
    wrapper_names,
)


def test_names() -> None:
    """The names are public: removing or renaming one breaks users."""
    assert closed_form_names() == (
        "hold",
        "linear",
        "quadratic",
        "exponential",
        "ema",
        "lawa",
        "lookahead",
        "outer_momentum",
        "anderson",
        "dmd",
        "optimizer_moments",
    )
    assert learned_names() == (
        "scalar_extrapolation",
        "tuned_line",
        "lfd2",
        "learned_linear",
        "adaptive_linear",
        "neural_ode",
        "flow_matching",
        "introspection",
        "wnn",
        "wnn_plus",
        "nino",
    )
    assert wrapper_names() == ("damped", "trust_region", "per_kind", "blended", "best_of")
    assert forecaster_names() == closed_form_names() + learned_names() + wrapper_names()


def test_options_reach_the_constructor() -> None:
    """Options given by name are those of the object."""
    made = make_forecaster("neural_ode", rank=3, stream="updates", adjoint=True)
    assert made.options == {
        "coordinates": "window",
        "rank": 3,
        "width": 32,
        "history": 8,
        "method": "rk4",
        "step_size": 4.0,
        "adjoint": True,
        "jacobian_penalty": 0.0,
        "stream": "updates",
    }


def test_unknown_names_and_options_are_refused() -> None:
    """The message names what there is."""
    with pytest.raises(ModelError, match=r"no forecaster 'cubic'. There are: hold, linear, .*best_of\."):
        make_forecaster("cubic")
    with pytest.raises(ModelError, match="'linear' has no option 'window'. It has: history, stream"):
        make_forecaster("linear", window=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hold", {"history": 1}, "`history` must be a whole number of at least 2, got 1"),
        ("linear", {"history": 2.0}, "`history` must be a whole number of at least 2, got 2.0"),
        ("linear", {"stream": 3}, "`stream` must be the name of a stream, got 3"),
        ("linear", {"stream": ""}, "`stream` must be the name of a stream, got ''"),
        ("learned_linear", {"per": "layer"}, "`per` must be one of 'tensor', 'kind', 'all', got 'layer'"),
        ("learned_linear", {"per": ["all"]}, "`per` must be one of"),
        ("neural_ode", {"rank": 0}, "`rank` must be a whole number of at least 1, got 0"),
        ("neural_ode", {"width": None}, "`width` must be a whole number"),
        ("neural_ode", {"step_size": 0}, "`step_size` must be a finite number above 0, got 0"),
        ("neural_ode", {"step_size": float("nan")}, "`step_size` must be a finite number above 0, got nan"),
        ("neural_ode", {"step_size": "1"}, "`step_size` must be a finite number above 0, got '1'"),
        ("neural_ode", {"method": "euler"}, "`method` must be one of 'rk4', 'dopri5', got 'euler'"),
        ("neural_ode", {"adjoint": 1}, "`adjoint` must be true or false, got 1"),
        ("neural_ode", {"coordinates": "fft"}, "`coordinates` must be one of 'window', 'pca', got 'fft'"),
        ("neural_ode", {"jacobian_penalty": -1}, "`jacobian_penalty` must be a finite number of at least 0, got -1"),
    ],
)
def test_bad_values_are_refused(name: str, options: dict[str, object], message: str) -> None:
    """An option of the wrong type or out of range is named with its value."""
    with pytest.raises(ModelError, match=message):
        make_forecaster(name, **options)
