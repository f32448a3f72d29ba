"""The training half: the ONNX graph itself under autograd. Only this package needs torch."""

from __future__ import annotations
