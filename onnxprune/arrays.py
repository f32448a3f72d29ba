"""Names for the kinds of arrays that travel between the modules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of any type: a tensor of the model."""

Matrix = NDArray[np.float64]
"""A float64 matrix of the numerics."""

Vector = NDArray[np.float64]
"""A float64 vector of the numerics."""

IndexArray = NDArray[np.int64]
"""Indices; a *keep* is a sorted IndexArray of what survives."""

Feed = dict[str, Array]
"""One batch of calibration samples: graph input name -> array."""
