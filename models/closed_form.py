"""The contract of forecasters that are formulas."""

import abc

from ..forecast import Forecaster


class ClosedForm(Forecaster):
    """A forecaster without parameters: its options say all there is to know about it."""

    @property
    @abc.abstractmethod
    def options(self) -> dict[str, object]:
        """The constructor's arguments, as plain JSON values; `make_forecaster(name, **options)` rebuilds it."""
