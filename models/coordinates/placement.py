"""Puts tensors where a module reads its parameters, for the time of a call."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from ...forecast.errors import LayoutError
from ...forecast.layout import Layout
from ...forecast.packing import plain_name, trainable_parameters
from ..errors import ModelError


class Place(NamedTuple):
    """Where a named tensor is used; a tied one has several places.

    Attributes:
        name: of the tensor.
        owner: the module that reads it.
        leaf: under which name.
    """

    name: str
    owner: nn.Module
    leaf: str


def find_places(module: nn.Module, layout: Layout) -> list[Place]:
    """Every place at which an expressed tensor is registered.

    Raises:
        LayoutError: if the layout does not fit the module.
        ModelError: if a place is in a recurrent layer.
    """
    parameters = trainable_parameters(module)
    names: dict[int, str] = {}
    for spec in layout:
        found = parameters.get(plain_name(spec.name))
        if found is None or tuple(found.shape) != spec.shape:
            what = "no such trainable tensor" if found is None else f"shape {tuple(found.shape)}"
            raise LayoutError(
                f"The layout names {spec.name!r} of shape {spec.shape}; the module has {what}. Make the "
                "layout from this module by `choose_layout`."
            )
        names[id(found)] = spec.name
    places: list[Place] = []
    for owner in module.modules():
        for leaf, value in owner._parameters.items():
            if value is not None and id(value) in names:
                if isinstance(owner, nn.RNNBase):
                    raise ModelError(
                        f"{names[id(value)]!r} belongs to {type(owner).__name__}, which keeps its weights a second "
                        "time. Leave recurrent layers out of the layout."
                    )
                places.append(Place(names[id(value)], owner, leaf))
    return places


def vacate(places: Sequence[Place]) -> None:
    """Take the parameters away; None stays in their place."""
    for place in places:
        place.owner._parameters[place.leaf] = None


@contextmanager
def placed(places: Sequence[Place], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """The tensors in their places, as long as the context lasts."""
    for place in places:
        place.owner._parameters[place.leaf] = tensors[place.name]  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        vacate(places)


def places_in_copy(places: Sequence[Place], module: nn.Module, twin: nn.Module) -> list[Place]:
    """The same places in a deep copy of the module."""
    owners = dict(zip(module.modules(), twin.modules(), strict=True))
    return [Place(place.name, owners[place.owner], place.leaf) for place in places]
