"""Forecasters that come with the package."""

import importlib.resources

import pytest
import torch
from problems import cases_of, relaxing_rows, small_layout

from deadreckon.forecast import score
from deadreckon.models import ModelError, load_pretrained, pretrained_card, pretrained_names

LAYOUT = small_layout({"first.weight": (20, 10), "first.bias": (20,), "second.weight": (5, 20), "second.bias": (5,)})
HORIZONS = [10, 50, 200]
pretrained = pytest.mark.parametrize("name", pretrained_names())


def test_there_are_some() -> None:
    """The names are public; the one that README shows is among them. Patented methods are not."""
    assert "adaptive_linear" in pretrained_names()
    assert "introspection" not in pretrained_names()


@pretrained
def test_they_forecast_smooth_motion_of_any_network(name: str) -> None:
    """On a network and a path that none of them has seen, each is better than standing still at every horizon."""
    forecaster = load_pretrained(name)
    num_rows = 50 + forecaster.history
    rows = relaxing_rows(num_rows, LAYOUT.size, 4, torch.Generator().manual_seed(0))
    cases = cases_of(
        rows, range(0, 10 * num_rows, 10), forecaster.history, HORIZONS, LAYOUT, with_graph=forecaster.needs_graph
    )
    results = score(forecaster, cases)
    assert [result.horizon for result in results] == HORIZONS
    assert min(result.skill for result in results) > 0.1


@pretrained
def test_cards_say_what_must_be_known(name: str) -> None:
    """Data, cost, skill on a task that was not seen, and limits."""
    card = pretrained_card(name)
    for needed in ("## Data", "CPU hours", "which it has not seen", "## Limits", f'load_pretrained("{name}")'):
        assert needed in card


def test_they_are_small() -> None:
    """All together they take less than 5 MB of the package."""
    files = importlib.resources.files("deadreckon.models.weights").iterdir()
    sizes = [len(file.read_bytes()) for file in files if file.name.endswith(".safetensors")]
    assert 0 < sum(sizes) < 5_000_000


def test_unknown_names_are_refused() -> None:
    """The message names what there is."""
    for call in (load_pretrained, pretrained_card):
        with pytest.raises(ModelError, match=r"no pretrained forecaster '../x'. There are: adaptive_linear, "):
            call("../x")
