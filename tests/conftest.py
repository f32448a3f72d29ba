"""Fixtures every test file shares."""

from __future__ import annotations

import os
from collections import Counter

# matrices are small here: threads that wait for each other take several times as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from onnxprune.cache_folder import FOLDER_VARIABLE

os.environ[FOLDER_VARIABLE] = ""  # no test reads or writes the user's cache


THINNED = 6
"""Of the cases of a test that is marked so, the daily run takes every so many."""


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All but some cases of thinned tests are slow ones."""
    seen: Counter[str] = Counter()
    for item in items:
        if item.get_closest_marker("thinned"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % THINNED:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
