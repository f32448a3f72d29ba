"""Make torchvision importable where its compiled half does not fit torch's build.

The wheel on PyPI is linked to CUDA and cannot be loaded beside a CPU build of torch. Its networks
need none of the compiled operators, but the import describes two of them.
"""

from __future__ import annotations

import torch

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::nms does not exist" not in str(error):
        raise
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor b, Tensor s, float iou) -> Tensor")
    import torchvision  # noqa: F401
