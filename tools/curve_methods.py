"""The methods that ``bench_curves.py`` compares, each as a function of the MACs to be kept.

Those of this package are its own methods by name.
*Repaired* methods end as the published codes of folding and GRAIL do: every convolution's outputs
get the original's means and variances back. Peers take a ratio of channels, which is searched until
the MACs come closest. None fine-tunes.

    onnxsim                ``simplify``, then channels by the norm of their weights
    onnxsim, refit         by weights and activations, then ``apply_pruning_finetune``
    Torch-Pruning          MetaPruner with MagnitudeImportance (l2), on the folded network
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import onnx
from bench_peers import batches_of, quiet
from macs import layer_macs

from onnxprune import Options, Pruner, Target
from onnxprune.arrays import Feed
from onnxprune.canonical import canonicalise
from onnxprune.errors import OnnxPruneError
from onnxprune.methods import METHODS

Maker = Callable[[float], onnx.ModelProto]
"""A model by a fraction: of the MACs kept, or within a peer of the channels removed."""

NEAR = 0.05
"""How far a peer's MACs may be from the fraction, as a fraction."""

REPAIR_IMAGES, REPAIR_PIXELS = 256, 64 * 224 * 224
"""Images that repair looks at, and pixels of all of them together, at most: 64 photographs."""

REPAIRED = ", repaired"

STEPS = 8
"""Ratios a peer is tried at for one fraction: channels within 1 / 256."""


def macs_of(model: onnx.ModelProto) -> float:
    """MACs for one sample, counted in the canonical form."""
    (value,) = [v for v in model.graph.input if v.name not in _initializers(model)]
    extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return float(sum(layer_macs(canonicalise(model), {value.name: (1, *extents[1:])}).values()))


class Own:
    """One of this package's methods on a model with calibration samples, studied once.

    Args:
        method: its name.
        model: the original.
        samples: for calibration.
        seed: of the method.
        mirror: whether mirror images of the samples are fitted on, too.
    """

    def __init__(
        self, method: str, model: onnx.ModelProto, samples: Feed, seed: int, mirror: bool
    ) -> None:
        options = Options(method=method, seed=seed, latency=False, mirror=mirror)
        self._model = model
        (self._images,) = samples.values()
        self._pruner = Pruner(model, samples, options)

    def __call__(self, fraction: float) -> onnx.ModelProto:
        """The model with this fraction of its MACs."""
        return self._pruner.prune([Target("macs", fraction)]).model

    def repaired(self, fraction: float) -> onnx.ModelProto:
        """The same, repaired on some of the calibration images."""
        import torch
        from repair import repaired

        torch.set_num_threads(1)
        result = self._pruner.prune([Target("macs", fraction)])
        count = min(REPAIR_IMAGES, REPAIR_PIXELS // self._images[0, 0].size)
        return repaired(self._model, result.model, result.plan, self._images[:count])


def maker(method: str, model: onnx.ModelProto, samples: Feed, seed: int, *, mirror: bool) -> Maker:
    """The method on a model with calibration samples; what it learns of them is learnt once."""
    if method in METHODS:
        return Own(method, model, samples, seed, mirror)
    peer = PEERS[method]
    sized = by_onnxsim if peer is by_onnxsim_refit else peer  # cuts as many, and is quick
    return NearestMacs(partial(peer, model, samples), partial(sized, model, samples), model)


class NearestMacs:
    """A peer that takes a ratio of channels, asked for a fraction of the MACs.

    Args:
        prune: the model without this ratio of its channels.
        sized: a model of the same size; it is asked for often.
        original: the model itself.
    """

    def __init__(self, prune: Maker, sized: Maker, original: onnx.ModelProto) -> None:
        self._prune = prune
        self._sized = sized
        self._full = macs_of(original)
        self._tried: dict[float, float] = {}

    def __call__(self, fraction: float) -> onnx.ModelProto:
        """The model whose MACs come closest to the fraction of the original's.

        Raises:
            OnnxPruneError: that is not close.
        """
        ratios = list(self._search(fraction))
        best = min(ratios, key=lambda ratio: abs(self._kept(ratio) - fraction))
        if abs(self._kept(best) - fraction) > NEAR:
            raise OnnxPruneError(f"it keeps at least {self._kept(best):.0%} of the MACs")
        return self._prune(best)

    def _search(self, fraction: float) -> Iterator[float]:
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            ratio = (low + high) / 2
            yield ratio
            low, high = (ratio, high) if self._kept(ratio) > fraction else (low, ratio)

    def _kept(self, ratio: float) -> float:
        if ratio not in self._tried:
            self._tried[ratio] = macs_of(self._sized(ratio)) / self._full
        return self._tried[ratio]


def by_onnxsim(model: onnx.ModelProto, samples: Feed, ratio: float) -> onnx.ModelProto:
    """By the norm of the weights; the samples are not looked at."""
    import onnxsim

    with quiet():
        return onnxsim.apply_structured_pruning(_simplified(model), sparsity=ratio)


def by_onnxsim_refit(model: onnx.ModelProto, samples: Feed, ratio: float) -> onnx.ModelProto:
    """By weights and activations, then what it has for layers that are left: matrix products."""
    import onnxsim

    batches = list(batches_of(model, samples))
    with quiet():
        plain = _simplified(model)
        pruned = onnxsim.apply_structured_wanda_pruning(plain, batches, sparsity=ratio)
        return onnxsim.apply_pruning_finetune(plain, pruned, batches)


def by_torch_pruning(model: onnx.ModelProto, samples: Feed, ratio: float) -> onnx.ModelProto:
    """By the norm of the filters; streams that gain channels of zeros stay whole."""
    import torch
    import torch_peer
    from torch_graph import GraphModule, to_onnx

    torch.set_num_threads(1)
    module = GraphModule(model).eval()
    sample = torch.tensor(next(iter(samples.values()))[:1])
    whole = list(module.joined()) if module.pads_channels else []
    with quiet():
        return to_onnx(torch_peer.prune(module, (sample,), ratio, whole), sample)


PEERS: dict[str, Callable[[onnx.ModelProto, Feed, float], onnx.ModelProto]] = {
    "onnxsim": by_onnxsim,
    "onnxsim, refit": by_onnxsim_refit,
    "Torch-Pruning": by_torch_pruning,
}
METHOD_NAMES = (
    "onnxprune",
    *(name + end for name in METHODS if name != "onnxprune" for end in ("", REPAIRED)),
    *PEERS,
)
"""All methods; those of one name are measured together, since they share what they learn."""


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simple, _ = onnxsim.simplify(model)
    return simple


def _initializers(model: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}
