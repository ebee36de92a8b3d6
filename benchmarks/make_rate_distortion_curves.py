"""Puts the rate-distortion functions of all fitted shapes into `codec/limits/curves.npz`.

Run: `python benchmarks/make_rate_distortion_curves.py`, about a minute on one thread.
"""

import numpy as np

from deadreckon.codec.limits.marginals import GeneralisedGaussian, shapes
from deadreckon.codec.limits.rate_distortion import CURVES, computed_curve


def main() -> None:
    found = {}
    for shape in shapes():
        curve = computed_curve(GeneralisedGaussian(shape))
        found[f"{shape:g}"] = np.stack([curve.slopes, curve.distortions, curve.rates]).astype(np.float32)
        print(f"{shape:g}: {found[f'{shape:g}'].shape[1]} points", flush=True)
    np.savez_compressed(CURVES, **found)


if __name__ == "__main__":
    main()
