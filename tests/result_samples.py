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
OTHERS = (  # name, setting, error asked for, error made, bits
    ("tensor_tables", "", 0.5, 0.49, 0.5),
    ("tensor_tables", "", 0.1, 0.099, 1.9),
    ("eden", "1 bit", None, 0.36, 1.03),
    ("eden", "2 bits", None, 0.098, 2.03),
    ("topk", "1 %", None, 0.98, 0.2),
)


def cost(seconds: float) -> dict[str, Any]:
    """A ledger's entry."""
    return {"wall_seconds": seconds, "cpu_seconds": seconds, "count": 10, "gradient_equivalents": 0.0}


def jump(step: int, horizon: int, outcome: str, margin: float | None = None) -> dict[str, Any]:
    """One opportunity to jump."""
    return {"step": step, "horizon": horizon, "outcome": outcome, "meaning": outcome, "margin": margin}


def losses() -> dict[str, Any]:
    """The loss on a plane: a bowl."""
    across, up = [-2.0 + 2 * place for place in range(7)], [-3.0 + place for place in range(7)]
    return {
        "x": across,
        "y": up,
        "values": [[0.1 + 0.02 * (x - 8) ** 2 + 0.1 * (y + 1) ** 2 for x in across] for y in up],
        "end": 0.146,
        "end_on_plane": 0.15,
        "num_evaluations": 51,
        "num_samples": 128,
        "seconds": 0.4,
    }


def anatomy() -> dict[str, Any]:
    """Packets of two tensors taken apart; the first takes most bits, the second costs more a coordinate."""
    packets = 60
    return {
        "stream": "gradients",
        "nmse": 0.1,
        "every": 5,
        "tensors": [{"name": TENSORS[0], "size": 6000}, {"name": TENSORS[1], "size": 570}],
        "steps": [5 * packet for packet in range(1, packets + 1)],
        "bits": [[4800.0, 1140.0 + 19 * packet] for packet in range(packets)],
        "coded_bits": [6000.0 + 19 * packet for packet in range(packets)],
        "expected_bits": 1.0,
        "histogram": [0.05] * 18 + [0.045, 0.055],
        "classes": [{"number": 1000 * place, "expected": 2.0**-place, "seen": 1.9**-place} for place in range(1, 9)],
    }


def likeness() -> dict[str, Any]:
    """Gradients that are alike early and not late."""
    steps = [20 * row + 1 for row in range(12)]
    cosines = [[1.0 if row == column else 0.5 / (1 + row + column) for column in range(12)] for row in range(12)]
    return {"stream": "gradients", "steps": steps, "cosines": cosines, "apart": 1, "early": 0.31, "late": 0.04}


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
        "cost_curve": [[step, 0.03 * step, 0.05 * step] for step in range(0, 401, 2)],
        "ledger": {"recording": cost(0.9), "fitting": cost(3.1)},
        "attribution": "Digits: E. Alpaydin and C. Kaynak (1998), CC BY 4.0.",
        "pca": {
            "points": [[8 * (1 - math.exp(-row / 20)), 2 * math.sin(row / 18)] for row in range(41)],
            "steps": [10 * row for row in range(41)],
            "explained": [0.81, 0.093],
            "losses": losses(),
            "arrows": [],
            "seed": None,
        },
        "anatomy": anatomy(),
        "likeness": likeness(),
        "forecasts": {
            "step": 350,
            "horizons": [10, 50],
            "start": [7.0, 1.0],
            "truth": {"along": [0.3, 1.0], "off": [0.2, 0.0], "plane": [[7.1, 1.0], [7.2, 1.1]]},
            "by": [
                {"forecaster": name, "along": along, "off": off, "plane": [[7.1, 1.0], [7.2, 1.2]]}
                for name, along, off in (
                    ("hold", [0.0, 0.0], [0.0, 0.0]),
                    ("linear", [0.3, 1.4], [0.1, 0.3]),
                    ("quadratic", [0.5, 4.0], [0.5, 3.0]),
                )
            ],
        },
        "trajectory": "trajectory",
        "trajectory_digest": "ab" * 32,
        "online": online,
        "jumps": [jump(100, 0, "no_history"), jump(150, 10, "kept", 0.004), jump(200, 20, "not_better", -0.03)],
        "compression": {"bits_per_coordinate": 1.5, "packets": 400, "bytes": 492_750},
        "options": {
            "task": "digits",
            "steps": 400,
            "batch_size": 64,
            "optimizer": "adam",
            "streams": ["weights", "gradients"],
            "data": None,
        },
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
    limits: list[dict[str, Any]] = [
        {
            "coder": "deadreckon",
            "setting": row["predictor"],
            "nmse": row["nmse"],
            "bits": row["bits_per_coordinate"],
            "bound": row["nmse"] ** -0.25 - 0.9,
            "gap": row["bits_per_coordinate"] - row["nmse"] ** -0.25 + 0.9,
            "headers": 0.02,
            "lattice": 0.03,
            "tables": 0.01,
            "misfit": row["bits_per_coordinate"] - row["nmse"] ** -0.25 + 0.84,
        }
        for row in rows[1:]
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
        "references": [
            {
                "reference": name,
                "setting": setting,
                "nmse_target": target,
                "nmse": nmse,
                "bits_per_coordinate": bits,
                "bytes": int(bits * 6570 * 400 / 8),
                "encode_seconds": 0.4,
                "decode_seconds": 0.3,
            }
            for name, setting, target, nmse, bits in OTHERS
        ],
        "limits": limits,
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
        "losses": [[row[0], 2.3 - 2.2 * row[4]] for row in curve],
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
        "picture": {
            "seed": 0,
            "points": [[8 * (1 - math.exp(-row / 20)), 2 * math.sin(row / 18)] for row in range(41)],
            "steps": [5 * row for row in range(41)],
            "explained": [0.7, 0.2],
            "losses": losses(),
            "arrows": [
                {"step": step, "horizon": 5, "outcome": outcome, "start": start, "end": end}
                for step, outcome, start, end in (
                    (50, "kept", [3.0, 1.0], [4.0, 1.5]),
                    (100, "not_better", [5.0, 1.5], [5.5, 2.5]),
                )
            ],
        },
        "attribution": "Digits: E. Alpaydin and C. Kaynak (1998), CC BY 4.0.",
        "options": {"seeds": [0, 1, 2], "forecaster": "linear", "batch_size": 64},
    }


def corpus() -> dict[str, Any]:
    """Runs of two tasks, one of which diverged, and one that failed."""
    runs = [
        {
            "name": f"{task}_mlp_w1_sgd_lr{rate:g}_cosine_b64_s{seed}",
            "task": task,
            "network": "mlp",
            "width": 1.0,
            "optimizer": "sgd",
            "learning_rate": rate,
            "schedule": "cosine",
            "batch_size": 64,
            "seed": seed,
            "steps": 1000,
            "num_parameters": 6570,
            "trajectory_digest": "ab" * 32,
            "train_loss": None if rate > 1 else 0.02,
            "test_loss": None if rate > 1 else 0.12,
            "test_accuracy": 0.1 if rate > 1 else 0.96,
            "diverged": rate > 1,
            "cpu_seconds": 4.5,
            "seconds_per_step": 0.0042,
        }
        for task, rate, seed in (("digits", 0.1, 0), ("digits", 300.0, 1), ("teacher", 0.01, 0))
    ]
    return {
        "every": 10,
        "runs": runs,
        "failures": [{"name": "teacher_mlp_w64_adam_lr0.01_linear_b32_s1", "reason": "OSError: no space left"}],
        "cpu_seconds": 13.5,
        "bytes": 8_000_000,
        "attribution": "Digits: E. Alpaydin and C. Kaynak (1998), CC BY 4.0.",
        "options": {"tasks": ["digits", "teacher"], "runs": 2, "steps": 1000},
    }


def fit() -> dict[str, Any]:
    """A forecaster fitted to runs of two tasks."""
    runs = [
        {"folder": f"runs/corpus/{task}_{number}", "task": task, "role": role, "num_cases": 40, "left_out": 0}
        for task in ("digits", "teacher")
        for number, role in enumerate(("training", "training", "validation"))
    ]
    skill = [
        {
            "task": task,
            "role": role,
            "horizon": horizon,
            "num_runs": 2 if role == "training" else 1,
            "error": error,
            "skill": 1 - error,
            "worst": 0.9 - error,
            "coverage": 0.66,
        }
        for task, shift in (("digits", 0.0), ("teacher", 0.2))
        for role, gap in (("training", 0.0), ("validation", 0.05))
        for horizon, error in ((10, 0.5 + shift + gap), (50, 0.6 + shift + gap), (200, 0.9 + shift + gap))
    ]
    return {
        "forecaster": "learned_linear",
        "file": "forecaster.safetensors",
        "stopped": "converged",
        "iterations": 900,
        "training_error": 0.61,
        "validation_error": 0.66,
        "wall_seconds": 12.0,
        "cpu_seconds": 11.5,
        "num_numbers": 101,
        "spacing": 10,
        "runs": runs,
        "skill": skill,
        "curve": [[20 * look, 0.6 + 0.5 / (1 + look), 0.66 + 0.4 / (1 + look)] for look in range(45)],
        "excluded_tasks": ["shakespeare"],
        "options": {"forecaster": "learned_linear", "forecaster_options": {"per": "kind"}},
    }


FIELD = {
    # Log ratios of squared error to that of standing still at 10, 50 and 200 steps, and the family.
    "hold": ("closed", (0.0, 0.0, 0.0)),
    "linear": ("closed", (-0.2, 0.3, 2.0)),
    "exponential": ("closed", (-0.6, -0.5, -0.1)),
    "tuned_line": ("control", (-0.5, -0.55, -0.2)),
    "learned_linear": ("learned", (-0.62, -0.9, -0.6)),
    "neural_ode": ("learned", (-0.3, -0.4, 0.4)),
}


def score(field: dict[str, Any] = FIELD, num_runs: int = 8) -> dict[str, Any]:
    """Forecasters scored on runs of one task, from log ratios with a spread over runs."""
    noise = random.Random(1)
    runs = [
        {
            "folder": f"runs/corpus/digits_{number}",
            "task": "digits",
            "network": "mlp",
            "num_parameters": 6570,
            "num_cases": 20,
            "left_out": 0,
            "seconds_per_step": 0.002,
        }
        for number in range(num_runs)
    ]
    skill, against, cost_rows = [], [], []
    for place, (name, (_, logs)) in enumerate(field.items()):
        for horizon, log in zip((10, 50, 200), logs, strict=True):
            half = 0.0 if name == "hold" else 0.1 + 0.05 * noise.random()
            for kind, phase, shift in (
                ("all", "all", 0.0),
                ("weight", "all", 0.05),
                ("bias", "all", -0.1),
                ("all", "early", 0.1),
                ("all", "middle", 0.0),
                ("all", "late", -0.1),
            ):
                moved = 0.0 if name == "hold" else shift
                skill.append(
                    {
                        "forecaster": name,
                        "horizon": horizon,
                        "task": "all",
                        "kind": kind,
                        "phase": phase,
                        "num_runs": num_runs,
                        "skill": 1 - math.exp(log + moved),
                        "low": 1 - math.exp(log + moved + half) if num_runs >= 6 else None,
                        "high": 1 - math.exp(log + moved - half) if num_runs >= 6 else None,
                        "worst": 1 - math.exp(log + moved + 3 * half),
                        "worst_run": runs[0]["folder"],
                        "share_above_zero": 1.0 if log < 0 else 0.0,
                        "within_one": 0.66,
                        "within_two": 0.93,
                    }
                )
            for other, (_, others) in field.items():
                if other != name:
                    difference = log - others[(10, 50, 200).index(horizon)]
                    against.append(
                        {
                            "forecaster": name,
                            "reference": other,
                            "horizon": horizon,
                            "ratio": math.exp(difference),
                            "low": math.exp(difference - 0.1) if num_runs >= 6 else None,
                            "high": math.exp(difference + 0.1) if num_runs >= 6 else None,
                        }
                    )
            seconds = 0.0002 * 1.4**place
            cost_rows.append(
                {
                    "forecaster": name,
                    "horizon": horizon,
                    "wall_seconds": seconds,
                    "cpu_seconds": seconds,
                    "step_equivalents": seconds / 0.002,
                }
            )
    return {
        "stream": "weights",
        "spacing": 10,
        "horizons": [10, 50, 200],
        "resamples": 2000,
        "fit_in_run": False,
        "forecasters": [
            {"name": name, "family": family, "source": "", "num_numbers": 0} for name, (family, _) in field.items()
        ],
        "runs": runs,
        "skill": skill,
        "against": against,
        "cost": cost_rows,
        "options": {"forecasters": list(field), "resamples": 2000},
    }
