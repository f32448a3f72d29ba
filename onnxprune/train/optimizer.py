"""The optimizers that the options name."""

from __future__ import annotations

import torch
from torch import nn

from onnxprune.train.options import TrainOptions


def make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimizer of all parameters; vectors (biases, scales) do not decay."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    wide = [p for p in parameters if sum(extent > 1 for extent in p.shape) > 1]
    known = {id(p) for p in wide}
    groups = [
        {"params": wide, "weight_decay": options.decay},
        {"params": [p for p in parameters if id(p) not in known], "weight_decay": 0.0},
    ]
    rate = options.largest_rate
    if options.optimizer == "sgd":
        nesterov = options.momentum > 0
        return torch.optim.SGD(groups, rate, momentum=options.momentum, nesterov=nesterov)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, rate)
