"""The search for residual sections (see ``sections``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx
import onnx_graphsurgeon as gs

from onnxprune.concrete import batch_known
from onnxprune.linear_map import results
from onnxprune.network import Network
from onnxprune.sections import FrozenSection, Section, Sections
from onnxprune.tails import BlockedError, TailFinder

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
