"""The contract of forecasters that change or combine what others say."""

from collections.abc import Sequence

from .closed_form import ClosedForm
from .errors import ModelError
from .fitting import FittableForecaster

Member = ClosedForm | FittableForecaster
Members = Sequence[Member]


class Wrapper(FittableForecaster):
    """A forecaster made of others, its members.

    It needs the history of the member that needs most, and moments if one of them does. It is fitted once all members
    are that have to be; fitting it fits them first, each to the same examples cut to its own history. What is learned,
    its own and theirs, is saved and loaded as one: a member's tensors have its position as a prefix.

    Args:
        members: at least one, all of the same stream.
        stream: the stream they forecast.

    Raises:
        ModelError: if a member is no forecaster, or of another stream.
    """

    def __init__(self, members: Sequence[Member], stream: str) -> None:
        super().__init__(stream)
        if not members:
            raise ModelError(f"{self.name!r} needs at least one forecaster.")
        for member in members:
            if not isinstance(member, ClosedForm | FittableForecaster):
                raise ModelError(f"{self.name!r} is made of forecasters, got {member!r}.")
            if member.stream != stream:
                raise ModelError(
                    f"{self.name!r} forecasts {stream!r}, but {member.name!r} forecasts {member.stream!r}."
                )
        self._members = tuple(members)
        self.history = max(member.history for member in members)

    @property
    def members(self) -> tuple[Member, ...]:
        """The forecasters it is made of."""
        return self._members

    @property
    def needs_moments(self) -> bool:  # type: ignore[override]
        """Whether a member needs the optimiser's moments."""
        return any(member.needs_moments for member in self._members)
