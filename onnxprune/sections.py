"""Residual sections: branches that a network can do without, z = x + F(x) becoming z = x.

A *join* is an Add of two activations. Its *branch* is what nobody needs once one of the two, the
sum's F, is gone: the nodes all of whose results reach the rest of the network through that
operand alone. What is left, the *skip*, is the x that the branch starts from, or what a shortcut
(a projection, a slice with padding) makes of it. Branches of two joins are disjoint, or one lies
in the other: a node of both reaches the rest through both operands, so one join feeds the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, Vector
from onnxprune.concrete import batch_known
from onnxprune.linear_map import LinearMap, results
from onnxprune.network import ChannelGroup, Network
from onnxprune.tails import BlockedError, Tail, TailFinder

LINEAR_OPS = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Dropout",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "MatMul",
        "Pad",
        "ReduceMean",
        "Reshape",
        "Slice",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators of shortcuts: with constant weights they are linear, or affine."""
FUSED_JOINS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipGroupNorm")


@dataclass(frozen=True)
class Section:
    """A branch that can be dropped.

    Attributes:
        join: the Add.
        operand: which of its inputs the branch makes; the other one is the skip.
        branch: names of the nodes that go with it, in the order of the graph.
        inputs: names of the activations that the branch reads.
        tail: what it adds, as a function of its last linear maps.
    """

    join: gs.Node
    operand: int
    branch: tuple[str, ...]
    inputs: tuple[str, ...]
    tail: Tail

    @property
    def name(self) -> str:
        """The join's name."""
        return str(self.join.name)

    @property
    def skip(self) -> gs.Tensor:
        """What is left of the sum."""
        return self.join.inputs[1 - self.operand]

    @property
    def channels(self) -> int:
        """Channels of the sum."""
        return int(self.tail.shift.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what the branch adds."""
        kind: np.dtype[Any] = self.tail.maps[0].weight.values.dtype
        return kind

    def holds(self, group: ChannelGroup) -> bool:
        """Whether a channel group goes with the section: nothing outside makes its channels."""
        return set(group.producers) <= set(self.branch)

    def replacements(self, means: Mapping[str, Vector]) -> dict[str, tuple[Array, Array]]:
        """Weights at which the full-size network computes what it does without the section.

        Args:
            means: names of last maps -> mean output, shape (outputs,), which the branch's bias
                becomes; without one, what the branch adds is zero where it can be.

        Returns:
            Name of every last map -> (zeros, bias).
        """
        return {
            m.name: (
                np.zeros_like(m.weight.values),
                self._bias(m, scale, means).astype(m.weight.values.dtype),
            )
            for m, scale in self.tail.parts
        }

    def _bias(self, linear_map: LinearMap, scale: Vector, means: Mapping[str, Vector]) -> Vector:
        if linear_map.name in means:
            return np.where(scale != 0, means[linear_map.name], 0.0)
        if linear_map is not self.tail.parts[0][0]:
            return np.zeros(scale.size)
        shift = self.tail.shift
        return -np.divide(shift, scale, out=np.zeros_like(shift), where=scale != 0)

    def constant(self, replaced: Mapping[str, tuple[Array, Array]]) -> Vector:
        """What the branch adds with these replacements, shape (channels,)."""
        biases = {name: np.asarray(bias, np.float64) for name, (_, bias) in replaced.items()}
        return self.tail.constant(biases)


@dataclass(frozen=True)
class FrozenSection:
    """A join whose branch cannot be dropped, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Sections:
    """What was found.

    Attributes:
        found: the sections, in the order of the graph: an inner one before the one it lies in.
        frozen: the other joins of a skip and a branch.
    """

    found: tuple[Section, ...]
    frozen: tuple[FrozenSection, ...]


def find_sections(network: Network, model: onnx.ModelProto) -> Sections:
    """The residual sections of a network.

    Args:
        network: the groups of the model.
        model: the canonical model itself.
    """
    with batch_known(network.graph, model):
        return _search(network)


def _search(network: Network) -> Sections:
    walk = _Walk(network)
    found: list[Section] = []
    frozen: list[FrozenSection] = []
    for node in network.graph.nodes:
        if node.op in FUSED_JOINS:
            frozen.append(FrozenSection(node.name, f"{node.op} joins and normalises at once"))
        if node.op not in ("Add", "Sum") or len(node.inputs) != 2:
            continue
        try:
            section = walk.section(node)
        except BlockedError as reason:
            frozen.append(FrozenSection(node.name, str(reason)))
            continue
        if section is not None:
            found.append(section)
    return Sections(tuple(found), tuple(frozen))


def dropped_groups(sections: Iterable[Section], groups: Iterable[ChannelGroup]) -> set[str]:
    """Names of the groups that go with these sections."""
    gone = tuple(sections)
    return {group.name for group in groups if any(section.holds(group) for section in gone)}


def seen_outside(graph: gs.Graph) -> set[int]:
    """Identities of the tensors that are read by more than the nodes: results, and captures."""
    inner = (part for node in graph.nodes for part in node.subgraphs(recursive=True))
    return results(graph) | {id(tensor) for part in inner for tensor in part.tensors().values()}


class _Walk:
    """The graph as the search for sections sees it."""

    def __init__(self, network: Network) -> None:
        self._nodes: Sequence[gs.Node] = list(network.graph.nodes)
        self._outside = seen_outside(network.graph)
        self._maps = {id(own.y): m for m in network.consumers.values() for own in m.sharers}

    def section(self, join: gs.Node) -> Section | None:
        """The section of a join; None where the join is none of a skip and a branch.

        Raises:
            BlockedError: it is one, but its branch cannot be dropped.
        """
        if join.inputs[0] is join.inputs[1]:
            return None
        if any(isinstance(tensor, gs.Constant) or not tensor.inputs for tensor in join.inputs):
            operands = [i for i, t in enumerate(join.inputs) if t.inputs]
            if len(operands) != 1 or isinstance(join.inputs[1 - operands[0]], gs.Constant):
                return None
        ancestors = [_ancestors(tensor) for tensor in join.inputs]
        candidates = []
        for operand in (0, 1):
            branch = self._branch(join, operand)
            read = _read(branch)
            starts = [t for t in read if id(t) in ancestors[1 - operand]]
            if self._weights(branch) and starts:
                candidates.append((self._size(branch), operand, branch, read))
            elif id(join.inputs[1 - operand]) in ancestors[operand] and self._weights(
                _nodes_of(join.inputs[operand], ancestors[1 - operand])
            ):
                raise BlockedError("what its branch computes is read elsewhere")
        if not candidates:
            return None
        candidates.sort(key=lambda candidate: candidate[0])
        if len(candidates) == 2 and candidates[0][0] == candidates[1][0]:
            raise BlockedError("neither of its branches is a shortcut of the other")
        _, operand, branch, read = candidates[-1]
        return self._checked(join, operand, branch, read)

    def _checked(
        self, join: gs.Node, operand: int, branch: list[gs.Node], read: list[gs.Tensor]
    ) -> Section:
        skip, made, y = join.inputs[1 - operand], join.inputs[operand], join.outputs[0]
        identity = any(tensor is skip for tensor in read)
        if not _same_shape(skip.shape, y.shape, open_too=identity):
            raise BlockedError("its skip has another shape than the sum, or one that is not known")
        names = tuple(node.name for node in branch)
        tail = TailFinder(self._maps, frozenset(names)).of(made)
        if len(made.shape or ()) != len(y.shape) or y.shape[tail.axis] != tail.shift.size:
            raise BlockedError("its branch is broadcast over channels")
        return Section(join, operand, names, tuple(tensor.name for tensor in read), tail)

    def _branch(self, join: gs.Node, operand: int) -> list[gs.Node]:
        """What nobody needs without an operand of a join, in the order of the graph."""
        gone: set[int] = set()
        found = []
        target = join.inputs[operand]
        for node in reversed(self._nodes):
            readers = [reader for tensor in node.outputs for reader in tensor.outputs]
            known = all(reader is join or id(reader) in gone for reader in readers)
            own = all(t is target for t in node.outputs if any(r is join for r in t.outputs))
            if readers and known and own and not self._is_seen(node):
                gone.add(id(node))
                found.append(node)
        return found[::-1]

    def _is_seen(self, node: gs.Node) -> bool:
        return any(id(tensor) in self._outside for tensor in node.outputs)

    def _size(self, nodes: Sequence[gs.Node]) -> tuple[int, bool]:
        """What tells a branch from its shortcut: more linear maps, or anything but linear maps."""
        return self._weights(nodes), any(node.op not in LINEAR_OPS for node in nodes)

    def _weights(self, nodes: Iterable[gs.Node]) -> int:
        """How many linear maps there are among nodes."""
        return sum(id(t) in self._maps for node in nodes for t in node.outputs)


def _same_shape(
    first: Sequence[int | str | None] | None,
    second: Sequence[int | str | None] | None,
    *,
    open_too: bool,
) -> bool:
    """Whether two shapes are equal; with ``open_too`` where both are known, else altogether."""
    if first is None or second is None or len(first) != len(second):
        return False
    return all(
        (a == b and a is not None) or (open_too and not (isinstance(a, int) and isinstance(b, int)))
        for a, b in zip(first, second, strict=True)
    )


def _ancestors(tensor: gs.Tensor) -> dict[int, gs.Tensor]:
    """A tensor and all that it is computed from, constants left out, by identity."""
    found = {id(tensor): tensor}
    pending = [tensor]
    while pending:
        for node in pending.pop().inputs:
            for source in node.inputs:
                if id(source) not in found and not isinstance(source, gs.Constant):
                    found[id(source)] = source
                    pending.append(source)
    return found


def _nodes_of(tensor: gs.Tensor, without: Mapping[int, gs.Tensor]) -> Iterator[gs.Node]:
    """The nodes behind a tensor that are not behind others."""
    seen: set[int] = set()
    for own in _ancestors(tensor).values():
        for node in own.inputs:
            if id(own) not in without and id(node) not in seen:
                seen.add(id(node))
                yield node


def _read(branch: Sequence[gs.Node]) -> list[gs.Tensor]:
    """The activations a branch reads from elsewhere, each once."""
    own = {id(tensor) for node in branch for tensor in node.outputs}
    read = {id(t): t for node in branch for t in node.inputs if isinstance(t, gs.Variable)}
    return [t for key, t in read.items() if key not in own and not t.is_empty()]
