"""Do verified jumps pay on the digits? Ten seeds that tuned nothing, against the tuned baseline, every cost counted.

`hold` is the control: it proposes nothing worth verifying, so what it costs is recording and waiting. Run:
`python benchmarks/digits_race.py`.
"""

import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from deadreckon.experiments.options import RaceOptions
from deadreckon.experiments.race import command as race
from deadreckon.experiments.results import read_result

FORECASTERS = ("hold", "linear", "quadratic", "learned_linear")
SEEDS = tuple(range(10, 20))
MEASURES = ("steps", "gradient_evaluations", "cpu_seconds")


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the mean ratio over paired seeds, by 10,000 bootstrap samples."""
    generator = random.Random(0)
    means = sorted(statistics.mean(generator.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return means[250], means[-251]


def main() -> None:
    print(f"{'forecaster':15s} {'kept':>5s} {'of':>4s}  reached  mean ratio with / without [95 % interval]: {MEASURES}")
    for forecaster in FORECASTERS:
        with tempfile.TemporaryDirectory() as folder:
            options = RaceOptions(
                out=str(Path(folder) / "race"), seeds=SEEDS, forecaster=forecaster, logger="none", progress=False
            )
            race.run(options)
            arms: list[dict[str, Any]] = read_result(options.out).data["arms"]
        pairs = {name: {arm["seed"]: arm for arm in arms if arm["name"] == name} for name in ("plain", "jumps")}
        both = [seed for seed in SEEDS if all(pairs[name][seed]["reached"] for name in pairs)]
        jumps = [jump for arm in arms for jump in arm["jumps"] if jump["loss_after"] is not None]
        kept = sum(jump["outcome"] == "kept" for jump in jumps)
        texts = []
        for measure in MEASURES:
            key = f"{measure}_to_target"
            ratios = [pairs["jumps"][seed][key] / pairs["plain"][seed][key] for seed in both]
            low, high = interval(ratios)
            texts.append(f"{statistics.mean(ratios):.2f} [{low:.2f}, {high:.2f}]")
        print(
            f"{forecaster:15s} {kept:5d} {len(jumps):4d}  {len(both):2d} / {len(SEEDS)}  {'  '.join(texts)}", flush=True
        )


if __name__ == "__main__":
    main()
