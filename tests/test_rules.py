"""Every rule: slicing equals masking, on the micro models with random keeps."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MAPS, MICRO_MODELS, build, ints
from onnx import numpy_helper, parser
from oracles import (
    Subject,
    distance,
    float_elements,
    masked,
    outputs_match,
    random_keeps,
    random_recovery,
    run,
    scattered,
    structure_ok,
    tolerance,
    weights_of,
)

from onnxprune.canonical import SHARED_CONSTANT_LIMIT, canonicalise
from onnxprune.groups import find_groups
from onnxprune.network import FROZEN, Network
from onnxprune.partition import UNEVEN
from onnxprune.rewrite import apply
from onnxprune.rules import find_rule, registered
from onnxprune.rules.registry import fixup, rule
from onnxprune.rules.shaping import match_axes


@functools.cache
def subject(name: str) -> Subject:
    return Subject(MICRO_MODELS[name]())


@pytest.mark.parametrize("name", MICRO_MODELS)
def test_slicing_equals_masking(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = subject(name)
    fewest = random_keeps(micro.network, rng, 0.0)
    for keeps in (random_keeps(micro.network, rng), random_keeps(micro.network, rng), fewest):
        pruned = apply(micro.model, micro.plan(keeps))
        structure_ok(pruned, micro.model)
        reference = masked(micro, micro.alive(keeps))
        outputs_match(pruned, reference, tolerance(micro.network), rng)
    assert float_elements(pruned) < float_elements(micro.canonical)


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_recovered_weights_equal_scattered_ones(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = subject(name)
    keeps = random_keeps(micro.network, rng)
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    pruned = apply(micro.model, micro.plan(keeps), weights_of(recovered))
    structure_ok(pruned, micro.model)
    reference = scattered(micro, micro.alive(keeps), recovered)
    outputs_match(pruned, reference, tolerance(micro.network), rng)


def carries(network: Network, node: gs.Node) -> bool:
    """Whether channels that can be cut enter and leave a node."""

    def cut(tensors: list[gs.Tensor]) -> bool:
        return any(
            (network.channels(tensor, axis) != FROZEN).any()
            for tensor in tensors
            if tensor.shape is not None
            for axis in range(len(tensor.shape))
        )

    if node.op in ("Pad", "Shape"):  # makes channels of its own; has none in its result
        return cut(node.outputs) or cut(node.inputs)
    return cut(node.outputs) and cut(node.inputs)


def test_every_operator_has_a_micro_model_that_is_cut_through_it() -> None:
    covered = {
        (node.domain or "", node.op)
        for name in MICRO_MODELS
        for node in subject(name).network.graph.nodes
        if carries(subject(name).network, node)
    }
    assert set(registered()) - covered == set()


@pytest.mark.parametrize("register", [rule, fixup])
def test_registering_an_operator_twice_raises(
    register: Callable[..., Callable[..., object]],
) -> None:
    with pytest.raises(ValueError, match=r"'Conv' of domain '' has a .* already"):
        register("Conv")(lambda node, facts: None)


def test_rules_are_keyed_by_domain() -> None:
    standard = gs.Node("Relu", "a", domain="ai.onnx")
    other = gs.Node("Relu", "b", domain="com.example")
    assert find_rule(standard) is registered()["", "Relu"]
    assert find_rule(other) is None


# --- what must not be cut -----------------------------------------------------------------------


def frozen_reasons(model: onnx.ModelProto) -> dict[str, str]:
    return {f.producer: f.reason for f in find_groups(canonicalise(model)).frozen}


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ("d = LRN <size=3> (c)", "LRN"),
        ("d = Softmax <axis=1> (c)", "Softmax"),
        ("d = com.example.Strange (c)", "Strange"),
        ("d = ReduceMean <axes=[1]> (c)", "ReduceMean"),
        ("d = CumSum(c, one)", "CumSum"),
    ],
)
def test_unknown_operators_freeze_and_the_rest_is_pruned(nodes: str, op: str) -> None:
    weights = CONVS | {
        "w3": (6, 1 if op == "ReduceMean" else 8, 1, 1),
        "w2": (4, 6, 1, 1),
    }
    weights |= {"one": np.ones((), np.int64)} if op == "CumSum" else {}
    model = build(f"{CONV_IN} {nodes} h = Conv(d, w3) {CONV_OUT}", weights)
    network = find_groups(canonicalise(model))
    reasons = {f.producer: f.reason for f in network.frozen}
    assert op in reasons["Conv_0"]
    if op != "Strange":  # whose output shape nobody knows
        assert [group.name for group in network.groups] == ["Conv_2"]


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("LayerNormalization <axis=1> (c, k)", 17),
        ("LayerNormalization <axis=-3> (c, k)", 17),
        ("Softmax <axis=1> (c)", 17),
        ("Softmax(c)", 12),  # all axes from the second on
        ("LogSoftmax <axis=1> (c)", 11),
        ("Hardmax <axis=-3> (c)", 13),
        ("LpNormalization <axis=1> (c)", 17),
        ("GroupNormalization <num_groups=1> (c, one, one)", 18),
    ],
)
def test_normalised_axes_are_frozen_with_the_operator_as_reason(nodes: str, opset: int) -> None:
    model = build(
        f"{CONV_IN} h = {nodes} {CONV_OUT}",
        CONVS | {"k": (8, 8, 8), "one": np.ones(1, np.float32)},
        opset=opset,
    )
    operator = nodes.replace("(", " ").split()[0]
    assert frozen_reasons(model)["Conv_0"] == f"{operator} '{operator}_1' mixes its channels"


def test_group_normalization_leaves_whole_groups() -> None:
    group = subject("GroupNormalization").network.groups[0]
    assert group.size == 4  # of two channels each
    network = subject("GroupNormalization").network
    made = network.channels(network.graph.nodes[0].outputs[0], 1)
    assert made.tolist() == np.repeat(group.channels, 2).tolist()


def test_parameters_of_a_group_normalization_may_belong_to_groups(
    rng: np.random.Generator,
) -> None:
    """As in opset 18, which onnxruntime runs and the checker of onnx calls deprecated."""
    model = build(
        f"{CONV_IN} h = GroupNormalization <num_groups=4> (c, s, t) {CONV_OUT}",
        CONVS | {"s": (4,), "t": (4,)},
        opset=18,
    )
    micro = Subject(model)
    keeps = {"Conv_0": np.array([0, 3])}
    pruned = apply(model, micro.plan(keeps))
    outputs_match(pruned, masked(micro, micro.alive(keeps)), tolerance(micro.network), rng)
    sizes = {t.name: list(t.dims) for t in pruned.graph.initializer}
    assert (sizes["s"], sizes["w1"]) == ([2], [4, 3, 3, 3])


def test_graph_outputs_and_inputs_are_frozen_with_their_names() -> None:
    model = build(
        f"{CONV_IN} r = Relu(c) d = Conv <pads=[1,1,1,1]> (r, w3) y = Add(d, r) z = Identity(x)",
        CONVS | {"w3": (8, 8, 3, 3)},
        outputs="float[N,8,8,8] y, float[N,3,8,8] z",
    )
    assert set(frozen_reasons(model).values()) == {"graph output 'y'"}
    assert len(frozen_reasons(model)) == 2
    added = build(
        f"{CONV_IN} e = Add(c, x) {CONV_OUT.replace('(h', '(e')}",
        CONVS | {"w1": (3, 3, 3, 3), "b1": (3,), "w2": (4, 3, 1, 1)},
    )
    assert frozen_reasons(added)["Conv_0"] == "graph input 'x'"


def test_an_inner_tensor_that_is_also_an_output_is_frozen() -> None:
    model = build(
        f"{CONV_IN} h = Relu(c) {CONV_OUT}", CONVS, outputs="float[N,4,6,6] y, float[N,8,8,8] c"
    )
    assert frozen_reasons(model)["Conv_0"] == "graph output 'c'"


def test_a_large_weight_read_in_other_ways_is_not_cut() -> None:
    """A table of embeddings that is the classifier as well: rows are words there."""
    model = build(
        "e = Gather (w, x) r = Relu (e) y = Gemm <transB=1> (r, w)",
        {"w": (100, 72)},
        inputs="int64[N] x",
        outputs="float[N,100] y",
    )
    assert SHARED_CONSTANT_LIMIT < 7200
    network = find_groups(canonicalise(model))
    assert network.groups == ()
    assert "shared" in {f.producer: f.reason for f in network.frozen}["Gemm_2"]


def test_indices_of_a_max_pool_freeze_its_channels() -> None:
    nodes = "h, i = MaxPool <kernel_shape=[2,2]> (c) j = Cast <to=1> (i)"
    read = build(f"{CONV_IN} {nodes} {CONV_OUT}", CONVS, outputs=f"{MAPS}, float[N,8,HI,WI] j")
    assert "MaxPool" in frozen_reasons(read)["Conv_0"]
    unread = build(f"{CONV_IN} h, i = MaxPool <kernel_shape=[2,2]> (c) {CONV_OUT}", CONVS)
    assert "Conv_0" not in frozen_reasons(unread)


@pytest.mark.parametrize(
    "nodes",
    [
        # Every second channel.
        "h = Slice(c, zero, many, one, two)",
        # Channels filled from other channels.
        'q = Pad <mode="reflect"> (c, pads) h = Slice(q, two, ten, one)',
        # Channels that change places.
        "t = Transpose <perm=[0,2,1,3]> (c) h = Reshape(t, shape)",
        # One channel, repeated.
        "s = ReduceSum <keepdims=1> (c, one) h = Expand(s, maps)",
        # The place of the largest channel.
        "s = ArgMax <axis=1> (c) t = Cast <to=1> (s) h = Mul(c, t)",
        # Channels picked by indices that are shared out along two axes.
        "p = Gather <axis=1> (c, table) h = ReduceMax <axes=[1], keepdims=0> (p)",
        # One sum over all channels, repeated.
        "s = ReduceSum <keepdims=1> (c, one) h = Mul(c, s)",
    ],
)
def test_what_mixes_or_renumbers_channels_freezes_them(nodes: str) -> None:
    w2 = (4, 4, 3, 3) if "many" in nodes else (4, 8, 3, 3)
    model = build(
        f"{CONV_IN} {nodes} {CONV_OUT}",
        CONVS
        | {
            "zero": ints(0),
            "one": ints(1),
            "two": ints(2),
            "ten": ints(10),
            "many": ints(99),
            "maps": ints(1, 8, 1, 1),
            "table": np.arange(8).reshape(1, 8),
            "pads": ints(0, 2, 0, 0, 0, 2, 0, 0),
            "shape": ints(0, 8, 8, 8),
            "w2": w2,
        },
    )
    network = find_groups(canonicalise(model))
    assert network.groups == ()
    assert {f.producer for f in network.frozen} == {"Conv_0", network.graph.nodes[-1].name}


def test_a_reshape_to_a_computed_shape_freezes() -> None:
    model = build(
        f"{CONV_IN} n = ReduceMax <keepdims=0> (k) m = Cast <to=7> (n) u = Unsqueeze(m, zero)"
        " o = ReduceMin <keepdims=0> (k) p = Cast <to=7> (o) v = Unsqueeze(p, zero)"
        " shape = Concat <axis=0> (u, v) h = Reshape(c, shape) y = Gemm(h, w3)",
        CONVS | {"zero": ints(0), "w3": (512, 5)},
        inputs="float[N,3,8,8] x, float[K] k",
        outputs="float[M,5] y",
    )
    assert "Reshape" in frozen_reasons(model)["Conv_0"]


def test_gather_and_expand_by_computed_values_freeze() -> None:
    gather = build(
        f"{CONV_IN} h = Gather <axis=1> (c, k) {CONV_OUT}",
        CONVS,
        inputs="float[N,3,8,8] x, int64[8] k",
    )
    assert "Gather" in frozen_reasons(gather)["Conv_0"]
    expand = build(
        f"{CONV_IN} s = Shape(z) h = Expand(c, s) {CONV_OUT}",
        CONVS,
        inputs="float[N,3,8,8] x, float[N,C,H,W] z",
    )
    assert "Conv_0" in frozen_reasons(expand)


def test_a_channel_taken_out_by_itself_is_frozen_and_the_others_are_cut() -> None:
    (group,) = subject("Gather one channel").network.groups
    assert group.size == 7
    reasons = frozen_reasons(MICRO_MODELS["Gather one channel"]())
    assert reasons["Conv_0"] == "Gather 'Gather_1' takes it out of its axis"


def test_a_resize_to_computed_sizes_freezes() -> None:
    model = build(
        f"{CONV_IN} s = Shape(z) h = Resize(c, , , s) {CONV_OUT}",
        CONVS,
        inputs="float[N,3,8,8] x, float[N,C,H,W] z",
    )
    assert "Conv_0" in frozen_reasons(model)


def test_a_convolution_with_a_computed_bias_is_no_producer() -> None:
    model = build(
        f"c = Conv <pads=[1,1,1,1]> (x, w1, k) h = Relu(c) {CONV_OUT}",
        CONVS,
        inputs="float[N,3,8,8] x, float[8] k",
    )
    assert "not constant" in frozen_reasons(model)["Conv_0"]


def test_dynamic_channels_freeze() -> None:
    model = build(
        f"{CONV_IN} h = Concat <axis=1> (c, z) {CONV_OUT}",
        CONVS,
        inputs="float[N,3,8,8] x, float[N,C,8,8] z",
    )
    assert frozen_reasons(model)["Conv_0"] == (
        "an extent is dynamic or does not match its neighbour's"
    )


IF_MODEL = """<ir_version: 8, opset_import: ["" : 17]>
captured (float[N,3,8,8] x, bool which) => (float[N,4,HY,WY] y) {
    c = Conv <pads=[1,1,1,1]> (x, w1)
    d = If (which) <
        then_branch = yes () => (float[N,8,8,8] p) { p = Relu(c) },
        else_branch = no () => (float[N,8,8,8] q) { q = Neg(c) }
    >
    e = Conv(d, w3)
    f = Relu(e)
    y = Conv(f, w2)
}"""


def test_channels_captured_by_a_subgraph_are_frozen_and_the_rest_is_cut(
    rng: np.random.Generator,
) -> None:
    model = parser.parse_model(IF_MODEL)
    for name, shape in {"w1": (8, 3, 3, 3), "w3": (6, 8, 1, 1), "w2": (4, 6, 1, 1)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    micro = Subject(model)
    reasons = {f.producer: f.reason for f in micro.network.frozen}
    assert "no channel rule for If" in reasons["Conv_0"]
    keeps = {"Conv_2": np.array([1, 4])}
    assert [group.name for group in micro.network.groups] == ["Conv_2"]
    pruned = apply(model, micro.plan(keeps))
    structure_ok(pruned, model)
    reference = masked(micro, micro.alive(keeps))
    for which in (True, False):
        feed = {"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32), "which": np.array(which)}
        assert distance(run(pruned, feed), run(reference, feed)) <= tolerance(micro.network)


def test_parts_that_a_cell_would_leave_empty_are_frozen() -> None:
    network = subject("Conv grouped beside a Slice").network
    assert UNEVEN in {f.reason for f in network.frozen}
    assert all("Conv_0" not in group.producers for group in network.groups)


# --- reshapes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "blocks"),
    [
        (["N", 8, 4, 4], ["N", 128], [([1, 2, 3], [1]), ([0], [0])]),
        ([None, 8, 4, 4], [None, 128], [([1, 2, 3], [1])]),
        (["N", 128], ["N", 8, 4, 4], [([1], [1, 2, 3]), ([0], [0])]),
        (["N", 8, 1, 1], ["N", 8], [([1, 2, 3], [1]), ([0], [0])]),
        (["N", 4, 6], ["N", 6, 4], [([1, 2], [1, 2]), ([0], [0])]),
        (["N", 8, "H", "W"], ["N", 8, "P"], [([0], [0]), ([1], [1])]),
        ([1, 8, None], [2, 8, None], []),
        ([2, 3, "H", 4], ["N", 6, 2], []),
        ([], [], []),
    ],
)
def test_match_axes(
    source: list[int | str | None],
    target: list[int | str | None],
    blocks: list[tuple[list[int], list[int]]],
) -> None:
    assert sorted(match_axes(source, target)) == sorted(blocks)
