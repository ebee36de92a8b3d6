"""What result files of each kind must hold."""

from collections.abc import Mapping

from .portrait_schema import ANATOMY, FORECASTS, LIKENESS, PLANE
from .spec import Items, Named, Record, Row, Scalar
from .sweep.schema import SWEEP

TEXT = Scalar((str,))
COUNT = Scalar((int,))
NUMBER = Scalar((int, float), optional=True)
FLAG = Scalar((bool,))
MAYBE_COUNT = Scalar((int,), optional=True)
MAYBE_TEXT = Scalar((str,), optional=True)
OPTIONS = Named(Scalar((str, int, float, bool, list, dict), optional=True))  # what it was made with, by option

LEDGER = Named(
    Record({"wall_seconds": NUMBER, "cpu_seconds": NUMBER, "count": COUNT}, {"gradient_equivalents": (NUMBER, 0.0)})
)
JUMPS = Items(
    Record(
        {"step": COUNT, "horizon": COUNT, "outcome": TEXT, "margin": NUMBER},
        {
            **{name: (NUMBER, None) for name in ("loss_before", "loss_after", "wall_seconds", "credited")},
            "step_scale": (NUMBER, 1.0),
            "regime": (TEXT, ""),
        },
    )
)
FINAL = Record({}, {"train_loss": (NUMBER, None), "test_loss": (NUMBER, None), "test_accuracy": (NUMBER, None)})

RECORD = Record(
    {
        "task": TEXT,
        "network": TEXT,
        "num_parameters": COUNT,
        "steps": COUNT,
        "seed": COUNT,
        "streams": Named(Record({"rows": COUNT, "every": COUNT, "bytes": COUNT})),
        "final": FINAL,
        "loss_curve": Items(Row((COUNT, NUMBER))),
        "wall_seconds": NUMBER,
        "ledger": LEDGER,
        "attribution": TEXT,
    },
    {
        "pca": (PLANE, None),
        "forecasts": (FORECASTS, None),
        "anatomy": (ANATOMY, None),
        "likeness": (LIKENESS, None),
        "options": (OPTIONS, {}),
        "cost_curve": (Items(Row((COUNT, NUMBER, NUMBER))), []),  # step, wall seconds and CPU seconds by then
        "trajectory": (MAYBE_TEXT, None),
        "trajectory_digest": (MAYBE_TEXT, None),
        "online": (
            Items(
                Record(
                    {"step": COUNT, "forecaster": TEXT, "horizon": COUNT, "skill": NUMBER},
                    {"fit_seconds": (NUMBER, None)},
                )
            ),
            [],
        ),
        "jumps": (JUMPS, []),
        "compression": (
            Record({"bits_per_coordinate": NUMBER, "packets": COUNT, "bytes": COUNT}, optional=True),
            None,
        ),
    },
)
COMPARE = Record(
    {
        "stream": TEXT,
        "num_packets": COUNT,
        "num_coordinates": COUNT,
        "rows": Items(
            Record(
                {
                    "predictor": TEXT,
                    "nmse_target": NUMBER,
                    "nmse": NUMBER,
                    "bits_per_coordinate": NUMBER,
                    "bytes": COUNT,
                },
                {"encode_seconds": (NUMBER, None), "decode_seconds": (NUMBER, None), "header_bits": (NUMBER, None)},
            )
        ),
        "skill": Items(
            Record(
                {"forecaster": TEXT, "horizon": COUNT, "skill": NUMBER},
                {"coverage": (NUMBER, None), "num_cases": (MAYBE_COUNT, None), "seconds_per_forecast": (NUMBER, None)},
            )
        ),
    },
    {
        "options": (OPTIONS, {}),
        "skill_per_tensor": (
            Items(Record({"forecaster": TEXT, "horizon": COUNT, "tensor": TEXT, "skill": NUMBER})),
            [],
        ),
        "limits": (
            Items(
                Record(
                    {
                        "coder": TEXT,
                        "setting": TEXT,
                        "nmse": NUMBER,
                        "bits": NUMBER,
                        "bound": NUMBER,
                        "gap": NUMBER,
                        "headers": NUMBER,
                        "lattice": NUMBER,
                        "tables": NUMBER,
                        "misfit": NUMBER,
                    }
                )
            ),
            [],
        ),
        "references": (
            Items(
                Record(
                    {
                        "reference": TEXT,
                        "setting": TEXT,
                        "nmse_target": NUMBER,
                        "nmse": NUMBER,
                        "bits_per_coordinate": NUMBER,
                        "bytes": COUNT,
                    },
                    {"encode_seconds": (NUMBER, None), "decode_seconds": (NUMBER, None)},
                )
            ),
            [],
        ),
        "trajectory_digest": (MAYBE_TEXT, None),
        "attribution": (MAYBE_TEXT, None),
    },
)
RACE = Record(
    {
        "task": TEXT,
        "network": TEXT,
        "target": Record({"metric": TEXT, "value": Scalar((int, float))}),
        "arms": Items(
            Record(
                {
                    "name": TEXT,
                    "seed": COUNT,
                    "reached": FLAG,
                    "steps_to_target": MAYBE_COUNT,
                    "cpu_seconds_to_target": NUMBER,
                    "wall_seconds_to_target": NUMBER,
                    "gradient_evaluations_to_target": NUMBER,
                    "curve": Items(Row((COUNT, NUMBER, NUMBER, NUMBER, NUMBER))),
                },
                {
                    "final": (FINAL, {}),
                    "jumps": (JUMPS, []),
                    "ledger": (LEDGER, {}),
                    "losses": (Items(Row((COUNT, NUMBER))), []),
                },
            )
        ),
    },
    {
        "options": (OPTIONS, {}),
        "forecaster": (MAYBE_TEXT, None),
        "picture": (PLANE, None),
        "attribution": (MAYBE_TEXT, None),
    },
)
CORPUS = Record(
    {
        "every": COUNT,
        "runs": Items(
            Record(
                {
                    "name": TEXT,
                    "task": TEXT,
                    "network": TEXT,
                    "width": NUMBER,
                    "optimizer": TEXT,
                    "learning_rate": NUMBER,
                    "schedule": TEXT,
                    "batch_size": COUNT,
                    "seed": COUNT,
                    "steps": COUNT,
                    "num_parameters": COUNT,
                    "train_loss": NUMBER,
                    "test_loss": NUMBER,
                    "test_accuracy": NUMBER,
                    "diverged": FLAG,
                    "cpu_seconds": NUMBER,
                    "seconds_per_step": NUMBER,
                }
            )
        ),
        "failures": Items(Record({"name": TEXT, "reason": TEXT})),
        "cpu_seconds": NUMBER,
        "bytes": COUNT,
        "attribution": TEXT,
    },
    {"options": (OPTIONS, {})},
)
FIT = Record(
    {
        "forecaster": TEXT,
        "file": TEXT,
        "stopped": TEXT,
        "iterations": COUNT,
        "training_error": NUMBER,
        "validation_error": NUMBER,
        "wall_seconds": NUMBER,
        "cpu_seconds": NUMBER,
        "num_numbers": COUNT,
        "spacing": COUNT,
        "runs": Items(Record({"folder": TEXT, "task": TEXT, "role": TEXT, "num_cases": COUNT, "left_out": COUNT})),
        "skill": Items(
            Record(
                {
                    "task": TEXT,
                    "role": TEXT,
                    "horizon": COUNT,
                    "num_runs": COUNT,
                    "error": NUMBER,
                    "skill": NUMBER,
                    "worst": NUMBER,
                    "coverage": NUMBER,
                }
            )
        ),
    },
    {
        "curve": (Items(Row((COUNT, NUMBER, NUMBER))), []),
        "excluded_tasks": (Items(TEXT), []),
        "options": (OPTIONS, {}),
        "attribution": (MAYBE_TEXT, None),
    },
)
SCORE = Record(
    {
        "stream": TEXT,
        "spacing": COUNT,
        "horizons": Items(COUNT),
        "resamples": COUNT,
        "forecasters": Items(
            Record(
                {"name": TEXT, "family": TEXT, "source": TEXT, "num_numbers": COUNT},
                {"known_runs": (COUNT, 0), "known_tasks": (Items(TEXT), [])},
            )
        ),
        "runs": Items(
            Record(
                {
                    "folder": TEXT,
                    "task": TEXT,
                    "network": TEXT,
                    "num_parameters": COUNT,
                    "num_cases": COUNT,
                    "left_out": COUNT,
                    "seconds_per_step": NUMBER,
                }
            )
        ),
        "skill": Items(
            Record(
                {
                    "forecaster": TEXT,
                    "horizon": COUNT,
                    "task": TEXT,
                    "kind": TEXT,
                    "phase": TEXT,
                    "num_runs": COUNT,
                    "skill": NUMBER,
                    "low": NUMBER,
                    "high": NUMBER,
                    "worst": NUMBER,
                    "worst_run": MAYBE_TEXT,
                    "share_above_zero": NUMBER,
                    "within_one": NUMBER,
                    "within_two": NUMBER,
                }
            )
        ),
        "against": Items(
            Record(
                {
                    "forecaster": TEXT,
                    "reference": TEXT,
                    "horizon": COUNT,
                    "ratio": NUMBER,
                    "low": NUMBER,
                    "high": NUMBER,
                }
            )
        ),
        "cost": Items(
            Record(
                {
                    "forecaster": TEXT,
                    "horizon": COUNT,
                    "wall_seconds": NUMBER,
                    "cpu_seconds": NUMBER,
                    "step_equivalents": NUMBER,
                }
            )
        ),
    },
    {"options": (OPTIONS, {}), "fit_in_run": (FLAG, False), "attribution": (MAYBE_TEXT, None)},
)
_PLACE = {"run": COUNT, "stream": TEXT}
_PHASE = {**_PLACE, "phase": TEXT}
CHARACTERIZE = Record(
    {
        "nmse": NUMBER,
        "runs": Items(
            Record(
                {"folder": TEXT, "num_parameters": COUNT},
                {
                    **{name: (MAYBE_TEXT, None) for name in ("task", "network", "optimizer", "init")},
                    "batch_size": (MAYBE_COUNT, None),
                    "learning_rate": (NUMBER, None),
                },
            )
        ),
        "marginals": Items(
            Record(
                {
                    **_PHASE,
                    **{name: TEXT for name in ("group", "name", "best")},
                    "size": COUNT,
                    **{name: NUMBER for name in ("gap", "p_gaussian", "p_best")},
                    **{name: NUMBER for name in ("kurtosis", "beyond", "zeros", "top_energy")},
                    "bits": Named(NUMBER),
                },
                {"rms": (NUMBER, None), "shapes": (Named(NUMBER), {})},
            )
        ),
        "scales": Items(
            Record(
                {**_PHASE, "level": TEXT, "best": TEXT}
                | {name: NUMBER for name in ("gaussian_bits", "best_bits", "gap", "kurtosis", "rate")}
            )
        ),
        "time": Items(
            Record(
                {**_PHASE, **{name: NUMBER for name in ("momentum", "nmse", "bits")}}
                | {name: NUMBER for name in ("noise_batch", "noise_predicted", "noise_measured")}
                | {
                    "lags": Items(Record({"lag": COUNT, "cosine": NUMBER, "spread": NUMBER, "autocorrelation": NUMBER}))
                },
                {name: (NUMBER, None) for name in ("own_update", "last_update")},
            )
        ),
        "space": Items(
            Record(
                {**_PHASE, **{name: Named(NUMBER) for name in ("magnitude", "sign", "value")}}
                | {name: NUMBER for name in ("rank_one", "value_bits", "sign_bits")}
            )
        ),
        "drift": Items(
            Record(
                {**_PLACE, "tensor": TEXT, "kind": TEXT, "size": COUNT, "scales": Named(NUMBER)}
                | {"octaves": NUMBER, "bits": NUMBER}
            )
        ),
        "advice": Items(
            Record(
                {**_PLACE, "setting": TEXT, "config": OPTIONS}
                | {name: NUMBER for name in ("mean_bits", "scale_bits", "neighbours")}
            )
        ),
        "checks": Items(
            Record(
                {**_PLACE, "name": TEXT, "setting": TEXT, "packets": COUNT}
                | {name: NUMBER for name in ("bits", "nmse", "seconds")}
            )
        ),
        "heat": Items(Record({**_PHASE, "steps": Items(COUNT), "cosines": Items(Items(NUMBER))})),
        "densities": Items(
            Record({**_PHASE, "at": Items(NUMBER), "measured": Items(NUMBER), "fits": Named(Items(NUMBER))})
        ),
    },
    {"options": (OPTIONS, {}), "attribution": (MAYBE_TEXT, None)},
)
ENVIRONMENT = Record(
    {},
    {
        "python": (MAYBE_TEXT, None),
        "platform": (MAYBE_TEXT, None),
        "processor": (MAYBE_TEXT, None),
        "num_cpus": (MAYBE_COUNT, None),
        "num_threads": (MAYBE_COUNT, None),
        "packages": (Named(TEXT), {}),
        "date": (MAYBE_TEXT, None),
    },
)
KINDS: Mapping[str, Record] = {
    "record": RECORD,
    "corpus": CORPUS,
    "fit": FIT,
    "score": SCORE,
    "compare": COMPARE,
    "characterize": CHARACTERIZE,
    "race": RACE,
    "sweep": SWEEP,
}
