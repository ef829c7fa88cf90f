"""The one decorator of compiled loops, typed, so that `mypy --strict` sees through it.

Kernels are compiled by Numba on first call, cached beside the source, and release the GIL.  They
take and return NumPy arrays and scalars, never Python objects.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., object])


def kernel(function: _F) -> _F:
    """Compile `function` for the data path."""
    return cast(_F, numba.njit(function, cache=True, nogil=True, error_model="numpy"))
