"""An ONNX model under autograd: the graph is evaluated node by node, its weights are parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import onnx
import torch
from torch import Tensor, nn

from onnxprune.errors import UnsupportedModelError
from onnxprune.names import fresh
from onnxprune.train.forward_pass import ForwardPass, Step, forward_pass
from onnxprune.train.graph import Graph, read_graph
from onnxprune.train.layers import LinearLayer, linear_layers
from onnxprune.train.roles import (
    known_operator,
    running_statistics,
    shape_constants,
    trained,
)

Tap = Callable[[Tensor], Tensor]
Taps = Mapping[str, Tap]
NO_TAPS: Taps = MappingProxyType({})
SMALL = 1 << 10
"""Elements up to which a constant of whole numbers may be a shape, and stays with the CPU."""
PLANS = 1 << 8
"""Orders of evaluation that are remembered."""


class TrainableNetwork(nn.Module):
    """The graph of a model as a module of torch.

    The graph is the file's own: functions are inlined, nothing is folded. In training mode Dropout
    drops and BatchNormalization uses the batch's statistics and updates the running ones, unless
    ``frozen_statistics`` is set. Tensors of half precision are widened to single precision; use
    ``torch.autocast`` to compute in less.

    Attributes:
        input_names: the graph's inputs.
        output_names: the graph's outputs.
        weights: constants of the graph that act as weights, biases, scales or embeddings, by the
            names of their tensors: names of initializers, or of the outputs of Constant nodes. A
            scale of ones or a shift of zeros that several layers share has a name of its own for
            each of them, as the exporter has merged what was meant to be trained apart.
        executed: node name -> how often it has been computed.
        graph: the nodes and constants.

    Raises:
        UnsupportedModelError: the graph holds what cannot be computed here; it says which node.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.graph: Graph = read_graph(model)
        self.input_names = self.graph.inputs
        self.output_names = self.graph.outputs
        self.weights: dict[str, nn.Parameter] = {}
        self.executed: Counter[str] = Counter()
        self._buffer_keys: dict[str, str] = {}
        self._numbers: dict[str, Tensor] = {}
        self._substitutes: dict[str, nn.Module] = {}
        self._plans: dict[tuple[tuple[str, ...], frozenset[str]], ForwardPass] = {}
        self._statistics = tuple(dict.fromkeys(running_statistics(self.graph)))
        self._register()
        self._known = self._names()

    def _register(self) -> None:
        """Enter every constant as a parameter, a buffer, or plain numbers."""
        taken: set[str] = set()
        writable = self.graph.own | set(self.graph.untied)
        lost = [name for name in self._statistics if name not in writable]
        if lost:
            raise UnsupportedModelError(
                f"the running statistics '{lost[0]}' are a constant in a function of the model: "
                "inline its functions first, with onnx.inliner.inline_local_functions"
            )
        read_as_tensor = {
            name
            for node in self.graph.nodes
            for place, name in enumerate(node.inputs)
            if place not in known_operator(node).values
        }
        read_as_tensor -= shape_constants(self.graph)
        weights = set(trained(self.graph))
        for name, value in self.graph.constants.items():
            key = fresh(name.replace(".", "/") or "constant", taken)
            if name in weights:
                self.weights[name] = nn.Parameter(value)
                self.register_parameter(f"weight:{key}", self.weights[name])
            elif (value.is_floating_point() and name in read_as_tensor) or value.numel() > SMALL:
                self._buffer_keys[name] = f"constant:{key}"
                lasting = name in self._statistics
                self.register_buffer(self._buffer_keys[name], value, persistent=lasting)
            else:
                self._numbers[name] = value

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Running means and variances by name."""
        return {name: self._constant(name) for name in self._statistics}

    @property
    def frozen_statistics(self) -> bool:
        """Whether BatchNormalization keeps to its running statistics in training mode."""
        return self.graph.mode.frozen_statistics

    @frozen_statistics.setter
    def frozen_statistics(self, frozen: bool) -> None:
        self.graph.mode.frozen_statistics = frozen

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def linear_layers(self) -> list[LinearLayer]:
        """Every Conv, Gemm and MatMul whose weight is trained, in the graph's order."""
        return list(linear_layers(self.graph, self.weights))

    def substitute(self, name: str, module: nn.Module) -> None:
        """Compute with ``module(weight)`` instead of the weight; a second call replaces the first.

        Args:
            name: of the weight.
            module: takes and returns a tensor of the weight's shape; its own parameters and
                buffers become the network's.
        """
        if name not in self.weights:
            raise ValueError(f"'{name}' is no weight of the network")
        self._substitutes[name] = module
        self.add_module(f"of:{name.replace('.', '/')}", module)

    def effective(self, name: str) -> Tensor:
        """What is computed with for a weight."""
        module = self._substitutes.get(name)
        weight = self.weights[name]
        return weight if module is None else module(weight)

    def forward(
        self,
        feed: Mapping[str, Tensor],
        *,
        taps: Taps = NO_TAPS,
        absent: Collection[str] = (),
        wanted: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Evaluate the graph, or the part of it that is needed.

        Args:
            feed: input name -> batch; others than the inputs are left aside.
            taps: tensor name -> function that its value goes through as soon as it is computed.
            absent: names of tensors that are not computed, nor what only they need; an Add or a
                Sum passes on what it has besides.
            wanted: names of the tensors to return; the graph's outputs by default.

        Raises:
            ValueError: a name is not known, an input is missing, or something other than a sum
                needs an absent tensor.
            OnnxPruneError: a node cannot be computed on what it is given.
        """
        targets = self.output_names if wanted is None else tuple(wanted)
        plan = self._plan(targets, frozenset(absent))
        self._check_names(taps)
        self.graph.mode.training = self.training
        values = {name: self._constant(name) for name in plan.constants}
        for name in plan.inputs:
            if name not in feed:
                raise ValueError(f"the feed lacks the input '{name}'")
            value = feed[name]
            half = value.dtype in (torch.float16, torch.bfloat16)
            values[name] = self._tapped(name, value.float() if half else value, taps)
        elsewhere = any(value.device.type != "cpu" for value in values.values())
        for step in plan.steps:
            self._compute(step, values, taps, elsewhere)
        return {name: values[name] for name in targets}

    def cut(self, absent: Collection[str]) -> None:
        """Take tensors out of the graph for good, with all that only they need.

        The forward pass computes what it did with them absent; readers of a sum of which one
        operand is left read that operand. Weights, running statistics and other constants that the
        outputs do not need any more are the network's no longer.

        Raises:
            ValueError: a name is not known, or something other than a sum needs one.
        """
        self._check_names(absent)
        stands_for: dict[str, str] = {}
        nodes = []
        for step in self._plan(self.output_names, frozenset(absent)).steps:
            inputs = tuple(stands_for.get(name, name) for name in step.inputs)
            if step.is_alone and step.node.outputs[0] not in self.output_names:
                stands_for[step.node.outputs[0]] = inputs[0]
            else:
                op = "Identity" if step.is_alone else step.node.op
                nodes.append(replace(step.node, op=op, inputs=inputs))
        self.graph.nodes = nodes
        self._plans.clear()
        read = {name for node in self.graph.nodes for name in node.inputs} | set(self.output_names)
        for name in [name for name in self.graph.constants if name not in read]:
            del self.graph.constants[name]
            self._forget(name)
        self._statistics = tuple(name for name in self._statistics if name in read)
        self._known = self._names()

    def _forget(self, name: str) -> None:
        """Remove a constant, and what stands for it."""
        weight = self.weights.pop(name, None)
        if weight is not None:
            key = next(key for key, own in self._parameters.items() if own is weight)
            del self._parameters[key]
        if self._substitutes.pop(name, None) is not None:
            delattr(self, f"of:{name.replace('.', '/')}")
        buffer = self._buffer_keys.pop(name, None)
        if buffer is not None:
            delattr(self, buffer)
        self._numbers.pop(name, None)

    def _names(self) -> set[str]:
        """Names of all tensors."""
        made = (name for node in self.graph.nodes for name in node.outputs)
        return {*self.graph.inputs, *self.graph.constants, *made}

    def _check_names(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self._known]
        if unknown:
            raise ValueError(f"the graph has no tensor '{unknown[0]}'")

    def _plan(self, targets: tuple[str, ...], absent: frozenset[str]) -> ForwardPass:
        """The nodes that the targets need."""
        found = self._plans.get((targets, absent))
        if found is None:
            self._check_names([*absent, *targets])
            found = forward_pass(self.graph, targets, absent)
            if len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[targets, absent] = found
        return found

    def _compute(self, step: Step, values: dict[str, Tensor], taps: Taps, elsewhere: bool) -> None:
        inputs = [values[name] if name else None for name in step.inputs]
        if step.is_alone:
            result: object = inputs[0]
        else:
            result = step.run(step.together(inputs) if elsewhere else inputs)
            self.executed[step.node.name] += 1
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(step.node.outputs, results, strict=False):
            if name and isinstance(value, Tensor):
                values[name] = self._tapped(name, value, taps)
        for name in step.last:
            values.pop(name, None)

    def _tapped(self, name: str, value: Tensor, taps: Taps) -> Tensor:
        return taps[name](value) if name in taps else value

    def _constant(self, name: str) -> Tensor:
        """A weight as it is computed with, or another constant."""
        if name in self.weights:
            return self.effective(name)
        key = self._buffer_keys.get(name)
        if key is None:
            return self._numbers[name]
        buffer = self._buffers[key]
        assert buffer is not None
        return buffer
