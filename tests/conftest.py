"""Fixtures every test file shares."""

from __future__ import annotations

import os

# matrices are small here: threads that wait for each other take several times as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from onnxprune.cache_folder import FOLDER_VARIABLE

os.environ[FOLDER_VARIABLE] = ""  # no test reads or writes the user's cache


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
