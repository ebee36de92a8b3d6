"""Another forecaster, followed only as far as it trusts itself."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

import torch
from typing_extensions import override

from ..forecast import Forecast, Window
from .fitting import Examples
from .linear import Linear
from .options import require_positive
from .saved_options import describe
from .wrapper import Member, Wrapper, step_of


@final
class TrustRegion(Wrapper):
    """The member's step, cut for each tensor where the error it expects is large compared with the step itself.

    With d the member's step and s its scale in one tensor,

        rho = min(1, radius |d| / |s|),    mean = last + rho d,    scale^2 = s^2 + (1 - rho)^2 d^2.

    A step whose expected error is at most `radius` times its length is taken whole; one with twice that error is
    halved. So it is the member's own scale that decides, and a member whose scale is too narrow is not held back
    (`score` tells how often the truth lies within it).

    Args:
        member: whose steps are cut; `linear` if not given.
        radius: larger trusts more. 1 where scales are right; 0.3 for scales known to be too narrow, as those of
            polynomials on weights are.
        stream: the stream it forecasts.

    Raises:
        ModelError: if the radius is not above 0, or the member is of another stream.
    """

    name: ClassVar[str] = "trust_region"

    def __init__(self, member: Member | None = None, radius: float = 1.0, stream: str = "weights") -> None:
        super().__init__([member if member is not None else Linear(stream=stream)], stream)
        self.radius = require_positive("radius", radius)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"member": describe(self.members[0]), "radius": self.radius, "stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        dtype = window.values.dtype
        for horizon in horizons:
            step, scale, last = step_of(self.members[0], window, horizon)
            for spec in window.layout:
                own, noise = step[spec.span], scale[spec.span]
                unit = torch.maximum(own.abs().amax(), noise.amax()) if spec.numel else own.new_zeros(())
                length, error = (own / unit).norm(), (noise / unit).norm()  # in this unit nothing overflows
                rho = torch.clamp(self.radius * length / error, max=1.0) if float(error) > 0 else 1.0
                noise.hypot_((1 - rho) * own)
                own *= rho
            yield Forecast(horizon, (last + step).to(dtype), scale.to(dtype))

    @override
    def _fit_own(self, examples: Examples) -> None:
        return None
