"""What the pictures of a run must hold in a result file."""

from .spec import Items, Record, Row, Scalar

TEXT = Scalar((str,))
COUNT = Scalar((int,))
NUMBER = Scalar((int, float), optional=True)

POINT = Row((NUMBER, NUMBER))
LOSSES = Record(
    {
        "x": Items(NUMBER),
        "y": Items(NUMBER),
        "values": Items(Items(NUMBER)),
        "end": NUMBER,
        "end_on_plane": NUMBER,
        "num_evaluations": COUNT,
        "num_samples": COUNT,
        "seconds": NUMBER,
    },
    optional=True,
)
ARROWS = Items(Record({"step": COUNT, "horizon": COUNT, "outcome": TEXT, "start": POINT, "end": POINT}))
PLANE = Record(
    {"points": Items(POINT), "steps": Items(COUNT), "explained": POINT},
    {"losses": (LOSSES, None), "arrows": (ARROWS, []), "seed": (Scalar((int,), optional=True), None)},
    optional=True,
)
_POSITIONS = {"along": Items(NUMBER), "off": Items(NUMBER), "plane": Items(POINT)}
FORECASTS = Record(
    {
        "step": COUNT,
        "horizons": Items(COUNT),
        "start": POINT,
        "truth": Record(_POSITIONS),
        "by": Items(Record({"forecaster": TEXT, **_POSITIONS})),
    },
    optional=True,
)
ANATOMY = Record(
    {
        "stream": TEXT,
        "nmse": NUMBER,
        "every": COUNT,
        "tensors": Items(Record({"name": TEXT, "size": COUNT})),
        "steps": Items(COUNT),
        "bits": Items(Items(NUMBER)),
        "coded_bits": Items(NUMBER),
        "expected_bits": NUMBER,
        "histogram": Items(NUMBER),
        "classes": Items(Record({"number": COUNT, "expected": NUMBER, "seen": NUMBER})),
    },
    optional=True,
)
LIKENESS = Record(
    {
        "stream": TEXT,
        "steps": Items(COUNT),
        "cosines": Items(Items(NUMBER)),
        "apart": COUNT,
        "early": NUMBER,
        "late": NUMBER,
    },
    optional=True,
)
