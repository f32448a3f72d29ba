"""Which moments of plain channels the methods ask for that know no patches."""

from __future__ import annotations

import onnx

from onnxprune.canonical import canonicalise
from onnxprune.contractions import contraction_views
from onnxprune.groups import find_groups
from onnxprune.linear_map import FeatureSpec
from onnxprune.problems import consumer_views, readers_of


def plain_specs(model: onnx.ModelProto) -> list[FeatureSpec]:
    """The features of every layer that reads channels which can be cut, each once.

    The tensors are those of the canonical model; nearly all of them are the model's own.

    Raises:
        UnsupportedModelError: the model is quantised, or of an old opset.
    """
    canonical = canonicalise(model)
    network = find_groups(canonical)
    views = consumer_views(network, readers_of(network.groups), max_features=0)
    contractions = contraction_views(canonical, network, network.groups)
    found = [spec for view in views.values() for spec in view.specs]
    found += [spec for view in contractions.values() for spec in view.specs]
    return list(dict.fromkeys(found))
