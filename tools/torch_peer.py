"""Torch-Pruning as its users call it, on networks whose attention classes are known here.

What a user has to tell it and this module tells it: which layers make the outputs (they keep their
channels), and how many heads each projection holds. What a user has to repair afterwards and this
module repairs: the numbers of heads that modules remember.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch_pruning
from torch import nn

Samples = tuple[torch.Tensor, ...]

PROJECTIONS = (
    ("qkv",),
    ("c_attn",),
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
)


def prune(
    module: nn.Module, samples: Samples, ratio: float, whole: Sequence[nn.Module] = ()
) -> nn.Module:
    """The module with this share of the channels and heads of every group removed.

    Args:
        module: it is changed.
        samples: its inputs.
        ratio: the share.
        whole: layers that keep their channels, beside those that make the outputs.
    """
    module.requires_grad_(True)  # the dependency graph is read from the gradient's
    heads = dict(_heads(module))
    pruner = torch_pruning.pruner.MetaPruner(
        module,
        samples,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        global_pruning=False,
        pruning_ratio=ratio,
        ignored_layers=[*output_layers(module, samples), *whole],
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=ratio,
    )
    pruner.step()
    _repair(module, pruner.num_heads)
    return module.requires_grad_(False)


def output_layers(module: nn.Module, samples: Samples) -> list[nn.Module]:
    """The layers whose channels are the outputs', found by walking the gradient's graph."""
    result = module(*samples)
    outputs = result if isinstance(result, tuple) else (result,)
    waiting = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen, found = set(waiting), set()
    while waiting:
        step = waiting.pop()
        weights = {id(weight) for weight in _weights(step)}
        found |= weights
        if not weights:
            fresh = [n for n, _ in step.next_functions if n is not None and n not in seen]
            seen.update(fresh)
            waiting += fresh
    return [  # ignoring a module that holds others would ignore these as well
        part
        for part in module.modules()
        if any(id(weight) in found for weight in part.parameters(recurse=False))
        and not any(True for _ in part.children())
    ]


def _weights(step: object) -> Iterator[nn.Parameter]:
    """The weight matrices that one step of the gradient's graph reads, transposed or not."""
    for following, _ in step.next_functions:
        inner = following
        if inner is not None and type(inner).__name__ in ("TBackward0", "TransposeBackward0"):
            inner = inner.next_functions[0][0]
        variable = getattr(inner, "variable", None)
        if variable is not None and variable.dim() > 1:
            yield variable


def _heads(module: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Projections, or whole attention modules of torch, and their numbers of heads."""
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            yield part, part.num_heads
            continue
        heads = getattr(part, "num_heads", getattr(part, "heads", None))
        for names in PROJECTIONS:
            if heads and all(hasattr(part, name) for name in names):
                for name in names:
                    fewer = getattr(part, "shared", heads) if name[0] in "kv" else heads
                    yield getattr(part, name), fewer


def _repair(module: nn.Module, heads: dict[nn.Module, int]) -> None:
    """Write the new numbers of heads into the modules that hold the projections."""
    for part in module.modules():
        for names in PROJECTIONS:
            if not all(getattr(part, name, None) in heads for name in names):
                continue
            count = heads[getattr(part, names[0])]
            width = getattr(part, names[0]).out_features // (3 if len(names) == 1 else 1)
            repaired = {"num_heads": count, "heads": count, "head_dim": width // count}
            repaired |= {"attn_dim": width, "width": width}
            if len(names) > 1:
                repaired["shared"] = heads[getattr(part, names[1])]
            for name, value in repaired.items():
                if isinstance(getattr(part, name, None), int):
                    setattr(part, name, value)
