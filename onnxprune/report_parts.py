"""The parts that the record of a run consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxprune.criteria.spectra import Spectrum
from onnxprune.latency import Latency


@dataclass(frozen=True)
class Footprint:
    """What one model costs.

    Attributes:
        params: floating-point parameters.
        macs: multiply-accumulates of convolutions, Gemm, MatMul and recurrent layers for one
            sample.
        bytes: size of the file.
        latency: measured, interleaved with the other model; None where it was not.
    """

    params: int
    macs: int
    bytes: int
    latency: Latency | None

    def to_dict(self) -> dict[str, Any]:
        """The costs as plain JSON values."""
        latency = None if self.latency is None else vars(self.latency)
        return {
            "params": self.params,
            "macs": self.macs,
            "bytes": self.bytes,
            "latency_ms": latency and latency | {"durations": list(latency["durations"])},
        }


@dataclass(frozen=True)
class Price:
    """What keeping so many of a group's channels costs, this group alone being cut.

    Attributes:
        count: channels kept.
        error: relative error of the consumers, recovered; summed over them.
        divergence: predicted divergence of the outputs, of softened scores (see ``comparison``);
            None unless sensitivity was measured.
    """

    count: int
    error: float
    divergence: float | None


@dataclass(frozen=True)
class ConsumerReport:
    """What happened to one layer that reads channels which were cut.

    Errors are squared, over the variance of what the original makes there, on samples that its
    weights were not fitted on. If consumers were recovered in order, they are measured on what the
    pruned network feeds the layer, and else on what the original does.

    Attributes:
        sliced: the error with the old weights of the inputs that are left; None where that was not
            measured.
        error: the error with the recovered weights, before any training; None as above.
        recovery: how these were found.
    """

    sliced: float | None
    error: float | None
    recovery: str


@dataclass(frozen=True)
class GroupReport:
    """What happened to one channel group.

    Attributes:
        name: the group.
        size: channels before.
        keep: indices of the channels that survive.
        curve: the prices of all counts that were allowed, ascending.
        consumers: consumer -> what happened to it.
        spectrum: how the variance of its channels is spread.
        producers: names of the layers that make its channels.
        macs_share: their share of the network's MACs before.
        residual: how far the trials lie from the law that the divergences of the curve follow: root
            mean square in natural logarithms; None unless sensitivity was measured.
    """

    name: str
    size: int
    keep: Sequence[int]
    curve: Sequence[Price] = field(repr=False)
    consumers: dict[str, ConsumerReport]
    spectrum: Spectrum = field(repr=False)
    producers: Sequence[str]
    macs_share: float
    residual: float | None = None

    @property
    def price(self) -> Price:
        """The price of the count that was chosen."""
        return next(price for price in self.curve if price.count == len(self.keep))

    def to_dict(self) -> dict[str, Any]:
        """What happened as plain JSON values."""
        return {
            "name": self.name,
            "producers": list(self.producers),
            "macs_share": self.macs_share,
            "size": self.size,
            "kept": len(self.keep),
            "keep": list(self.keep),
            "error": self.price.error,
            "divergence": self.price.divergence,
            "curve": [vars(price) for price in self.curve],
            "residual": self.residual,
            "spectrum": {name: list(v) for name, v in vars(self.spectrum).items()},
            "consumers": {name: vars(consumer) for name, consumer in self.consumers.items()},
        }


@dataclass(frozen=True)
class LayerReport:
    """The width of one layer that makes channels.

    Attributes:
        name: the node.
        size: channels before.
        kept: channels after; 0 if it went with a dropped section.
        macs_share: its share of the network's MACs before.
    """

    name: str
    size: int
    kept: int
    macs_share: float


@dataclass(frozen=True)
class SectionReport:
    """A residual section that was dropped.

    Attributes:
        name: the section.
        layers: the nodes that went with it.
        groups: the channel groups inside it, which are not among the report's groups.
        macs_share: its share of the network's MACs.
        divergence: divergence of the outputs when it alone is dropped.
    """

    name: str
    layers: Sequence[str]
    groups: Sequence[str]
    macs_share: float
    divergence: float | None

    def to_dict(self) -> dict[str, Any]:
        """What was dropped as plain JSON values."""
        return vars(self) | {"layers": list(self.layers), "groups": list(self.groups)}


@dataclass(frozen=True)
class FrozenReport:
    """A producer with channels that could not be cut.

    Attributes:
        name: the node.
        frozen: how many channels.
        size: of how many.
        reason: why.
        macs_share: the node's share of the network's MACs.
    """

    name: str
    frozen: int
    size: int
    reason: str
    macs_share: float


@dataclass(frozen=True)
class MetricReport:
    """What the user's metric says.

    Attributes:
        name: what was measured.
        before: its value for the original.
        after: its value for the pruned model.
    """

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Run:
    """What was run, when and where.

    Attributes:
        command: as it was typed, quoted for a shell; None if it was called from Python.
        model: name of the model's file, or of its graph.
        digests: SHA-256 of graph and weights, header and metadata aside, "before" and "after".
        started: date and time with the offset from UTC, ISO 8601.
        seconds: how long it took.
        platform: the operating system and the processor's architecture.
    """

    command: str | None
    model: str
    digests: dict[str, str]
    started: str
    seconds: float
    platform: str
