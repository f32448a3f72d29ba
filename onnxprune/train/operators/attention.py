"""Attention in one node, standard and onnxruntime's own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.registry import Node, Result, limit, operator

MICROSOFT = "com.microsoft"
FLAT = 3
"""Axes of (batch, length, heads * width); heads apart have one more."""
FAR_BELOW = -1e4
"""What onnxruntime adds to the scores of what a mask hides, unless an attribute says so."""


@operator("Attention")
def attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
) -> Result:
    """Softmax(scale Q K^T + mask) V; several heads of Q may share one of K and V."""
    flat = query.dim() == FLAT
    if flat:
        query = _apart(query, node.attributes["q_num_heads"])
        key, value = (_apart(x, node.attributes["kv_num_heads"]) for x in (key, value))
    if past_key is not None and past_value is not None:
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    past = 0 if past_key is None else past_key.shape[2]
    present = (key, value)
    shared = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(shared, 1) for x in (key, value))
    scale = node.get("scale", None) or 1 / math.sqrt(query.shape[-1])
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    stages = [scores]
    if node.get("is_causal", 0):
        scores = _causal(scores, -math.inf, past)
    if mask is not None:
        scores = _with_mask(scores, mask)
    stages.append(scores)
    if cap := node.get("softcap", 0.0):
        scores = cap * torch.tanh(scores / cap)
    stages.append(scores)
    weights = functional.softmax(scores, -1)
    stages.append(weights)
    y = torch.matmul(weights, value)
    kept = stages[int(node.get("qk_matmul_output_mode", 0))]
    return _together(y) if flat else y, *present, kept


def _with_mask(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with a mask added, or what a mask of booleans leaves out set to minus infinity."""
    short = scores.shape[-1] - mask.shape[-1]
    if short > 0:
        hidden = False if mask.dtype == torch.bool else -math.inf
        mask = functional.pad(mask, (0, short), value=hidden)
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -math.inf)
    return scores + mask


@operator("MultiHeadAttention", domain=MICROSOFT, weights=(3,))
def multi_head_attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """Attention over queries, keys and values that have their heads in one axis."""
    if bias is not None:
        parts = torch.split(bias, [query.shape[-1], key.shape[-1], value.shape[-1]])
        query, key, value = (x + b for x, b in zip((query, key, value), parts, strict=True))
    return _attend(node, query, key, value, mask, scores)


@operator("Attention", domain=MICROSOFT, weights=(1, 2))
def packed_attention(
    node: Node,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """A projection to queries, keys and values, and attention over them."""
    projected = torch.matmul(x, weight)
    if bias is not None:
        projected = projected + bias
    sizes = list(node.get("qkv_hidden_sizes", ())) or [weight.shape[1] // 3] * 3
    query, key, value = torch.split(projected, sizes, -1)
    return _attend(node, query, key, value, mask, scores)


@limit("Attention", "MultiHeadAttention", domain=MICROSOFT)
def _no_cache(node: Node) -> str | None:
    """Only the mask and the scores are known behind the weights, and only the first output."""
    known = 6
    packed = node.op == "Attention" and len(node.inputs) > 4 and bool(node.inputs[4])
    more = any(node.inputs[known:]) or any(node.outputs[1:]) or packed
    return "it keeps keys and values of earlier tokens" if more else None


@limit("RotaryEmbedding", domain=MICROSOFT)
def _no_batches_in_one(node: Node) -> str | None:
    return "it holds several sequences in one" if node.get("is_packed_batching", 0) else None


@limit("Attention")
def _no_lengths(node: Node) -> str | None:
    return "it is given lengths of keys" if any(node.inputs[6:]) else None


def _attend(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scores: Tensor | None,
) -> Tensor:
    heads = node.attributes["num_heads"]
    query, key, value = (_apart(x, heads) for x in (query, key, value))
    scale = node.get("scale", 0.0) or 1 / math.sqrt(query.shape[-1])
    weights = torch.matmul(query * scale, key.transpose(-1, -2))
    low = node.get("mask_filter_value", FAR_BELOW)
    if mask is not None:
        weights = weights + torch.where(_shown(mask, weights), 0.0, low).to(weights.dtype)
    if scores is not None:
        weights = weights + scores
    if node.get("unidirectional", 0):
        weights = _causal(weights, low)
    return _together(torch.matmul(functional.softmax(weights, -1), value))


def _shown(mask: Tensor, scores: Tensor) -> Tensor:
    """Which keys a mask shows: lengths of sequences, keys, or pairs of queries and keys."""
    batch, _, _, keys = scores.shape
    if mask.dim() == 1:
        places = torch.arange(keys, device=scores.device)
        ends = mask[:batch].reshape(-1, 1, 1, 1)
        shown = places < ends
        if mask.numel() == 2 * batch:  # and where they start
            shown = shown & (places >= mask[batch:].reshape(-1, 1, 1, 1))
        return shown
    middle = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
    return middle > 0


def _causal(scores: Tensor, low: float, past: int = 0) -> Tensor:
    """Without what comes after each query."""
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    return scores.masked_fill(later.triu(1 + past), low)


def _apart(x: Tensor, heads: int) -> Tensor:
    """Axes (batch, length, heads * width) as (batch, heads, length, width)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _together(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


@operator("RotaryEmbedding")
def rotary_embedding(
    node: Node, x: Tensor, cosines: Tensor, sines: Tensor, places: Tensor | None = None
) -> Tensor:
    """Pairs of places in a head turned by angles that the position says."""
    if places is not None:
        cosines, sines = cosines[places.long()], sines[places.long()]
    return _rotated(node, x, cosines, sines)


@operator("RotaryEmbedding", domain=MICROSOFT)
def contrib_rotary_embedding(
    node: Node, x: Tensor, places: Tensor, cosines: Tensor, sines: Tensor
) -> Tensor:
    """As the standard one; one position for all samples is where the first token stands."""
    if places.numel() == 1:
        length = x.shape[2] if x.dim() != FLAT else x.shape[1]
        places = (places.reshape(()) + torch.arange(length, device=x.device)).expand(
            x.shape[0], length
        )
    return _rotated(node, x, cosines[places.long()], sines[places.long()])


def _rotated(node: Node, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """X turned by angles of shape (batch, length, half of what is turned)."""
    flat = x.dim() == FLAT
    if flat:
        heads = int(node.get("num_heads", 0)) or x.shape[-1] // (2 * cosines.shape[-1])
        x = _apart(x, heads)
    size = 2 * cosines.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    cos, sin = cosines[:, None], sines[:, None]
    if node.get("interleaved", 0):
        a, b = turned[..., ::2], turned[..., 1::2]
        y = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        y = torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
    y = torch.cat([y, rest], -1)
    return _together(y) if flat else y
