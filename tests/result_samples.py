"""Made-up but plausible results, of the form that experiments write."""

import math
import random
from typing import Any

TENSORS = ("network.1.weight", "network.1.bias")
SKILLS = {
    "hold": (0.0, 0.0, 0.0),
    "linear": (0.35, -0.4, -2.9),
    "quadratic": (0.1, -5.0, -30.0),
    "learned_linear": (0.41, 0.21, 0.05),
}
BITS = {
    "none": {0.5: 0.35, 0.1: 1.62, 0.01: 3.1},
    "previous": {0.5: 0.55, 0.1: 1.81, 0.01: 3.35},
    "fitted": {0.5: 0.33, 0.1: 1.49, 0.01: 2.97},
}


def cost(seconds: float) -> dict[str, Any]:
    """A ledger's entry."""
    return {"wall_seconds": seconds, "cpu_seconds": seconds, "count": 10, "gradient_equivalents": 0.0}


def jump(step: int, horizon: int, outcome: str, margin: float | None = None) -> dict[str, Any]:
    """One opportunity to jump."""
    return {"step": step, "horizon": horizon, "outcome": outcome, "meaning": outcome, "margin": margin}


def record() -> dict[str, Any]:
    """A recorded run."""
    noise = random.Random(0)
    online = [
        {"step": step, "forecaster": name, "horizon": 10, "skill": value, "fit_seconds": 0.3}
        for step in (200, 400)
        for name, value in (("hold", 0.0), ("linear", 0.2 + step / 4000), ("neural_ode", None))
    ]
    return {
        "task": "digits",
        "network": "mlp",
        "num_parameters": 6570,
        "steps": 400,
        "seed": 0,
        "streams": {
            "weights": {"rows": 41, "every": 10, "bytes": 41 * 6570 * 4},
            "gradients": {"rows": 400, "every": 1, "bytes": 400 * 6570 * 4},
        },
        "final": {"train_loss": 0.0213, "test_loss": 0.1456, "test_accuracy": 0.965},
        "loss_curve": [[step, 2.3 * math.exp(-step / 90) + 0.02 * noise.random()] for step in range(1, 401)],
        "wall_seconds": 14.2,
        "ledger": {"recording": cost(0.9), "fitting": cost(3.1)},
        "attribution": "Digits: E. Alpaydin and C. Kaynak (1998), CC BY 4.0.",
        "pca": {
            "points": [[8 * (1 - math.exp(-row / 20)), 2 * math.sin(row / 18)] for row in range(41)],
            "steps": [10 * row for row in range(41)],
            "explained": [0.81, 0.093],
        },
        "trajectory": "trajectory",
        "trajectory_digest": "ab" * 32,
        "online": online,
        "jumps": [jump(100, 0, "no_history"), jump(150, 10, "kept", 0.004), jump(200, 20, "not_better", -0.03)],
        "compression": {"bits_per_coordinate": 1.5, "packets": 400, "bytes": 492_750},
        "options": {"task": "digits", "steps": 400, "streams": ["weights", "gradients"], "data": None},
    }


def compare() -> dict[str, Any]:
    """Front-ends and forecasters compared."""
    rows: list[dict[str, Any]] = [
        {"predictor": "raw", "nmse_target": None, "nmse": 0.0, "bits_per_coordinate": 32.1, "bytes": 10_545_000}
    ]
    rows += [
        {
            "predictor": name,
            "nmse_target": target,
            "nmse": 0.985 * target,
            "bits_per_coordinate": bits,
            "bytes": int(bits * 6570 * 400 / 8),
            "encode_seconds": 1.2,
            "decode_seconds": 1.0,
        }
        for name, line in BITS.items()
        for target, bits in line.items()
    ]
    skill = [
        {"forecaster": name, "horizon": horizon, "skill": value, "coverage": 0.6, "num_cases": 22}
        for name, values in SKILLS.items()
        for horizon, value in zip((10, 50, 100), values, strict=True)
    ]
    per_tensor = [
        {"forecaster": "linear", "horizon": 10, "tensor": tensor, "skill": 0.3 + index / 10}
        for index, tensor in enumerate(TENSORS)
    ]
    return {
        "stream": "gradients",
        "num_packets": 400,
        "num_coordinates": 6570,
        "rows": rows,
        "skill": skill,
        "skill_per_tensor": per_tensor,
        "options": {"trajectory": "runs/record/trajectory", "nmse": [0.5, 0.1, 0.01]},
    }


def arm(name: str, seed: int, steps: int, seconds_a_step: float, reached: bool = True) -> dict[str, Any]:
    """One run of a race that reaches an accuracy of 0.95 after `steps` steps."""
    curve = [
        [step, step * seconds_a_step, step * seconds_a_step, float(step), min(0.97, 0.95 * step / steps)]
        for step in range(0, 301, 10)
    ]
    return {
        "name": name,
        "seed": seed,
        "reached": reached,
        "steps_to_target": steps if reached else None,
        "cpu_seconds_to_target": steps * seconds_a_step if reached else None,
        "wall_seconds_to_target": steps * seconds_a_step if reached else None,
        "gradient_evaluations_to_target": float(steps) if reached else None,
        "final": {"test_loss": 0.12, "test_accuracy": 0.966},
        "curve": curve,
        "jumps": [jump(50, 5, "kept", 0.01), jump(100, 10, "not_better", -0.01)] if name == "jumps" else [],
        "ledger": {"recording": cost(0.05), "verifying": cost(0.11)} if name == "jumps" else {},
    }


def race(jump_steps: int = 180, seconds_a_step: float = 0.003) -> dict[str, Any]:
    """Three pairs of runs; plain ones take 200 steps of 2 milliseconds."""
    arms = [arm("plain", seed, 200, 0.002) for seed in range(3)]
    arms += [arm("jumps", seed, jump_steps, seconds_a_step) for seed in range(3)]
    return {
        "task": "digits",
        "network": "mlp",
        "target": {"metric": "accuracy", "value": 0.95},
        "arms": arms,
        "forecaster": "linear",
        "attribution": "Digits: E. Alpaydin and C. Kaynak (1998), CC BY 4.0.",
        "options": {"seeds": [0, 1, 2], "forecaster": "linear"},
    }
