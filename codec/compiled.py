"""Machine code in the place of numpy: whether, and how functions become it."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

SWITCH = "DEADRECKON_COMPILED"
COMPILED = os.environ.get(SWITCH, "1") != "0" and importlib.util.find_spec("numba") is not None
"""Whether numba is installed (`pip install deadreckon[compiled]`) and the environment variable is not 0."""


def machine_code(**options: Any) -> Callable[[_Function], _Function]:
    """Let numba compile a function when it is first called, and keep the result on disk for the next process.

    Args:
        options: of `numba.njit`.

    Raises:
        ImportError: if numba is installed but does not work, with another version of numpy, say.
    """
    try:
        import numba  # half a second that only those pay who code
    except ImportError as error:
        raise ImportError(
            f"numba is installed but cannot be imported: {error} Mend it, or set {SWITCH}=0 to code without it."
        ) from error

    def compiled(function: _Function) -> _Function:
        options["nogil"], options["error_model"] = True, "numpy"
        try:
            return cast(_Function, numba.njit(cache=True, **options)(function))
        except RuntimeError:  # nowhere to keep it: neither beside the source nor in the user's folder
            return cast(_Function, numba.njit(**options)(function))

    return compiled
