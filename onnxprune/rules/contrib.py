"""Operators of onnxruntime's own domain, which it writes into models that it has optimised.

These keep their form, as a rule says all that is needed. Those with weights are taken apart before
(``fused``, ``decompose``, ``attention``), because the numerics know Conv, Gemm and MatMul only.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.elementwise import broadcast, unary
from onnxprune.rules.normalization import mixes
from onnxprune.rules.registry import Facts, rule

MICROSOFT = "com.microsoft"

rule("Gelu", "QuickGelu", domain=MICROSOFT)(unary)
rule("BiasGelu", domain=MICROSOFT)(broadcast)


@rule("FastGelu", domain=MICROSOFT)
def fast_gelu(node: gs.Node, facts: Facts) -> None:
    """Y[i] = f(X[i] + bias[i]); the bias, where there is one, has the last axis."""
    biased = len(node.inputs) > 1 and not node.inputs[1].is_empty()
    (broadcast if biased else unary)(node, facts)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(node: gs.Node, facts: Facts) -> None:
    """The last axis of both inputs and of their sum is normalised; the others pass through."""
    x, skip, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if x.shape is None or skip.shape is None or y.shape is None:
        return
    last = len(x.shape) - 1
    lead = last + 1 - len(skip.shape)  # axes that the skip connection lacks
    carried = {*facts.live(x), *(axis + lead for axis in facts.live(skip))}
    places = {id(x): 0, id(skip): lead}
    tensors = [x, skip, *(t for t in node.outputs if not t.is_empty())]
    for axis in sorted(carried):
        for tensor in tensors:
            own = axis - places.get(id(tensor), 0)
            if own < 0:
                continue
            if axis == last:
                facts.freeze(facts.axis(tensor, own), mixes(node))
            else:
                facts.couple(facts.axis(y, axis), facts.axis(tensor, own))
