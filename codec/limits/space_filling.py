"""What the shape of a quantiser's cells costs at high rate, against the sphere of infinite dimension.

With the normalised second moment G, the mean squared error a coordinate of a cell of volume 1 a coordinate, it is
1/2 log2(2 pi e G) bits, whatever the source (Zamir and Feder 1992). At low rate entropy coding loses less: next to
nothing where most coordinates are zero.

The moments of lattices are the literature's; those of trellises were measured here on 2^24 uniform coordinates.

References:
    J. H. Conway, N. J. A. Sloane. Sphere Packings, Lattices and Groups, table 2.3. R. Zamir, M. Feder. On universal
    quantization by randomized uniform/lattice quantizers. IEEE Transactions on Information Theory 38(2), 1992.
"""

import math

from ..errors import ConfigError

SPHERE = 1 / (2 * math.pi * math.e)  # no cell is rounder
SECOND_MOMENTS = {
    "Z": 1 / 12,
    "A2": 5 / (36 * math.sqrt(3)),
    "D4": 0.076603,
    "E8": 929 / 12960,
    "Leech": 0.065771,
    "T8": 0.06492,
    "T64": 0.06240,
}


def space_filling_loss(name: str) -> float:
    """Bits a coordinate above the rate-distortion function that cells of a lattice or trellis cost at high rate.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name not in SECOND_MOMENTS:
        raise ConfigError(f"A lattice must be one of {tuple(SECOND_MOMENTS)}, got {name!r}.")
    return 0.5 * math.log2(SECOND_MOMENTS[name] / SPHERE)
