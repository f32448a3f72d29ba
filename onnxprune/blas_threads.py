"""How many threads the linear algebra libraries use: one, but for wide matrices.

Most products and factorisations of a run are small, and there are thousands of them. Shared among
threads they take several times as long, since the threads wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np  # noqa: F401 - it brings a library, which has to be loaded to be found
import scipy.linalg  # noqa: F401 - so does it
from threadpoolctl import ThreadpoolController

WIDE = 2048
"""Features from which a factorisation takes long enough to be shared."""

_LIBRARIES = ThreadpoolController().select(user_api="blas")
_STARTED_WITH = max((int(library["num_threads"]) for library in _LIBRARIES.info()), default=1)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread meanwhile; then as many as before."""
    with _LIBRARIES.limit(limits=1):
        yield


@contextmanager
def threads_for(features: int) -> Iterator[None]:
    """As many threads as the process started with if matrices are wide, else no other number.

    Args:
        features: width of the matrices.
    """
    with _LIBRARIES.limit(limits=_STARTED_WITH if features >= WIDE else None):
        yield
