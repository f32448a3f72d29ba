"""What refits in order start from."""

from __future__ import annotations

import pytest

from onnxprune.finishing import FEW_SAMPLES, start_of
from onnxprune.recovery import BiasOnly, FixedRidge


@pytest.mark.parametrize(
    ("samples", "kind"), [(1, BiasOnly), (FEW_SAMPLES - 1, BiasOnly), (FEW_SAMPLES, FixedRidge)]
)
def test_few_samples_start_from_the_slice(samples: int, kind: type) -> None:
    assert isinstance(start_of(samples), kind)
