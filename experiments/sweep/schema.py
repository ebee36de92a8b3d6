"""What the result file of a sweep must hold."""

from ..spec import Items, Named, Record, Scalar

_TEXT = Scalar((str,))
_NUMBER = Scalar((int, float))
_VALUES = Named(Scalar((str, int, float, bool, list, dict), optional=True))  # of the parameters that vary, by name

SWEEP = Record(
    {
        "name": _TEXT,
        "method": _TEXT,
        "command": _TEXT,
        "metric": Record({"name": _TEXT, "goal": _TEXT}),
        "parameters": Items(_TEXT),
        "cells": Items(Record({"name": _TEXT, "values": _VALUES, "metric": _NUMBER, "wall_seconds": _NUMBER})),
        "failures": Items(Record({"name": _TEXT, "values": _VALUES, "reason": _TEXT})),
    },
    {"options": (_VALUES, {}), "attribution": (Scalar((str,), optional=True), None)},
)
