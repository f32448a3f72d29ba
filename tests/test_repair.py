"""Peers that need torch: a graph as a module, and channels that get their moments back."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import build

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

from onnxprune import Keep, Plan, Weights, apply  # noqa: E402
