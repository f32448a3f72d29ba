"""The graph under autograd: what is trained, observed, left out and put in its place."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from micro_models import CONVS, MICRO_MODELS, SCORES, Builder, build, floats, ints, scalar
from onnx import helper, numpy_helper
from oracles import random_feed

torch = pytest.importorskip("torch")

from onnxprune.errors import OnnxPruneError, UnsupportedModelError  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.write_back import write_back  # noqa: E402

RESIDUAL = """
s = Conv <pads=[1,1,1,1]> (x, w0)
a = Conv <pads=[1,1,1,1]> (s, w1, b1) r = Relu (a) f = Conv <pads=[1,1,1,1]> (r, w2, b2)
z = Add (s, f) p = GlobalAveragePool (z) q = Flatten (p) y = Gemm (q, w3)
"""
BRANCH = {"w0": (6, 3, 3, 3), "w1": (8, 6, 3, 3), "b1": (8,), "w2": (6, 8, 3, 3), "b2": (6,)}


def residual() -> onnx.ModelProto:
    return build(RESIDUAL, BRANCH | {"w3": (6, 5)}, outputs=SCORES)


def feed_for(model: onnx.ModelProto, samples: int = 2) -> dict[str, torch.Tensor]:
    feed = random_feed(model, np.random.default_rng(3), samples)
    return {name: torch.from_numpy(values) for name, values in feed.items()}


# --- what is evaluated --------------------------------------------------------------------------


def test_names_and_weights() -> None:
    network = TrainableNetwork(residual())
    assert network.input_names == ("x",)
    assert network.output_names == ("y",)
    assert set(network.weights) == {*BRANCH, "w3"}
    assert len(list(network.parameters())) == len(network.weights)


def test_only_what_is_wanted_is_computed() -> None:
    model = residual()
    network = TrainableNetwork(model)
    found = network(feed_for(model), wanted=["r", "s"])
    assert list(found) == ["r", "s"]
    assert sorted(network.executed) == ["Conv_0", "Conv_1", "Relu_2"]
    network(feed_for(model))
    assert network.executed["Relu_2"] == 2
    assert network.executed["Gemm_7"] == 1


def test_a_tap_sees_and_changes_a_tensor() -> None:
    model = residual()
    network = TrainableNetwork(model)
    seen = []
    plain = network(feed_for(model), taps={"f": lambda f: seen.append(f) or f})["y"]
    halved = network(feed_for(model), taps={"f": lambda f: f / 2})["y"]
    gone = network(feed_for(model), taps={"f": lambda f: f * 0})["y"]
    assert seen[0].shape == (2, 6, 8, 8)
    assert torch.allclose(halved, (plain + gone) / 2, atol=1e-6)
    assert torch.equal(network(feed_for(model), taps={"x": lambda x: x})["y"], plain)


def test_an_absent_branch_is_not_computed_and_the_sum_passes_the_rest_on() -> None:
    model = residual()
    network = TrainableNetwork(model)
    gone = network(feed_for(model), taps={"f": lambda f: f * 0})["y"]
    network.executed.clear()
    short = network(feed_for(model), absent=["f"], taps={"z": lambda z: z * 1})["y"]
    assert torch.equal(short, gone)
    branch = {"Conv_1", "Relu_2", "Conv_3", "Add_4"}
    assert not branch & set(network.executed)
    assert network.executed["Conv_0"] == 1


def test_only_sums_do_without_an_operand() -> None:
    model = residual()
    network = TrainableNetwork(model)
    with pytest.raises(ValueError, match="Conv 'Conv_3' cannot do without 'r'"):
        network(feed_for(model), absent=["r"])
    with pytest.raises(ValueError, match="'Add_4' cannot do without"):
        network(feed_for(model), absent=["f", "s"])
    with pytest.raises(ValueError, match="wanted and absent"):
        network(feed_for(model), absent=["f"], wanted=["f"])


@pytest.mark.parametrize("options", [{"taps": {"no": abs}}, {"absent": ["no"]}, {"wanted": ["no"]}])
def test_names_that_are_not_in_the_graph_are_refused(options: dict[str, object]) -> None:
    model = residual()
    with pytest.raises(ValueError, match="no tensor 'no'"):
        TrainableNetwork(model)(feed_for(model), **options)


def test_a_missing_input_and_a_wrong_shape_are_named() -> None:
    network = TrainableNetwork(residual())
    with pytest.raises(ValueError, match="lacks the input 'x'"):
        network({})
    with pytest.raises(OnnxPruneError, match=r"Conv 'Conv_0' .* \[2, 4, 8, 8\]"):
        network({"x": torch.zeros(2, 4, 8, 8)})


def test_a_substitute_takes_the_place_of_a_weight() -> None:
    class Doubled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * self.factor

    model = residual()
    network = TrainableNetwork(model)
    plain = network(feed_for(model))["y"]
    module = Doubled()
    network.substitute("w3", module)
    doubled = network(feed_for(model))["y"]
    assert torch.allclose(doubled, 2 * plain)
    assert torch.equal(network.effective("w3"), 2 * network.weights["w3"])
    doubled.sum().backward()
    assert module.factor.grad is not None
    assert float(module.factor.grad) == pytest.approx(float(plain.detach().sum()), rel=1e-5)
    assert module.factor in set(network.parameters())
    with pytest.raises(ValueError, match="'z' is no weight"):
        network.substitute("z", module)


# --- what is trained ----------------------------------------------------------------------------


def weights_of(nodes: str, weights: dict[str, object], **options: object) -> set[str]:
    return set(TrainableNetwork(build(nodes, weights, **options)).weights)  # type: ignore[arg-type]


def test_scalars_and_bounds_are_not_trained() -> None:
    nodes = """c = Conv (x, w1, b1) d = Div (c, root) e = Clip (d, low, high)
    h = Mul (e, half) y = Conv (h, w2, b2)"""
    constants = {"root": floats(2.4), "low": scalar(0), "high": scalar(6), "half": scalar(0.5)}
    assert weights_of(nodes, CONVS | constants) == set(CONVS)


def test_the_preparation_of_the_input_is_not_trained() -> None:
    nodes = """p = Sub (x, mean) q = Div (p, std) c = Conv (q, w1, b1) h = Mul (c, gain)
    y = Conv (h, w2, b2)"""
    constants = {"mean": (1, 3, 1, 1), "std": (1, 3, 1, 1), "gain": (8, 1, 1)}
    assert weights_of(nodes, CONVS | constants) == {*CONVS, "gain"}


def test_masks_and_tables_of_angles_are_not_trained_but_positions_are() -> None:
    nodes = """t = MatMul (x, w) e = Add (t, places) k = Transpose <perm=[0,2,1]> (e)
    s = MatMul (e, k) m = Add (s, mask) p = Softmax <axis=-1> (m) v = MatMul (p, e)
    r = Mul (v, angles) y = MatMul (r, wo)"""
    mask = np.triu(np.full((7, 7), np.finfo(np.float32).min, np.float32), 1)
    constants = {"w": (6, 8), "places": (1, 7, 8), "mask": mask, "angles": (7, 8), "wo": (8, 5)}
    found = weights_of(nodes, constants, inputs="float[N,7,6] x", outputs="float[N,7,5] y")
    assert found == {"w", "places", "wo"}


def test_what_is_computed_from_weights_leads_to_them() -> None:
    nodes = "t = Transpose <perm=[1,0]> (w) u = Identity (t) v = Mul (u, gain) y = MatMul (x, v)"
    found = weights_of(
        nodes,
        {"w": (5, 6), "gain": scalar(0.7)},
        inputs="float[N,6] x",
        outputs=SCORES,
    )
    assert found == {"w"}


def test_class_tokens_are_trained_and_zeros_that_pad_are_not() -> None:
    nodes = """e = MatMul (x, w) s = Shape (e) n = Gather (s, zero)
    k = Concat <axis=0> (n, one, eight) c = Expand (token, k)
    z = Concat <axis=1> (c, e, pad) y = MatMul (z, wo)"""
    constants = {
        "w": (6, 8), "zero": ints(0), "one": ints(1), "eight": ints(8), "token": (1, 1, 8),
        "pad": np.zeros((1, 2, 8), np.float32), "wo": (8, 5),
    }  # fmt: skip
    found = weights_of(nodes, constants, inputs="float[1,7,6] x", outputs="float[1,10,5] y")
    assert found == {"w", "token", "wo"}


def test_embeddings_and_constant_nodes_are_trained() -> None:
    nodes = "g = Gather (table, x) r = ReduceMean <axes=[1], keepdims=0> (g) y = MatMul (r, w)"
    model = build(nodes, {"table": (9, 8)}, inputs="int64[N,4] x", outputs=SCORES)
    values = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(values))
    model.graph.node.insert(0, constant)
    network = TrainableNetwork(model)
    assert set(network.weights) == {"table", "w"}
    network({"x": torch.tensor([[0, 3, 3, 8]])})["y"].sum().backward()
    rows = network.weights["table"].grad
    assert rows is not None
    assert (rows.abs().sum(1) > 0).nonzero().flatten().tolist() == [0, 3, 8]


# --- layers that do something else in training --------------------------------------------------

NORM = "c = Conv (x, w1) h = BatchNormalization <momentum=0.8> (c, s, t, m, v) y = Conv (h, w2)"
MOMENTS = {"w1": (8, 3, 3, 3), "s": (8,), "t": (8,), "w2": (4, 8, 1, 1)} | {
    "m": np.linspace(-1, 1, 8, dtype=np.float32),
    "v": np.linspace(0.5, 2, 8, dtype=np.float32),
}


def test_batch_normalization_uses_the_batch_in_training_and_updates_the_running_statistics() -> (
    None
):
    model = build(NORM, MOMENTS)
    network = TrainableNetwork(model)
    assert set(network.weights) == {"w1", "s", "t", "w2"}
    feed = feed_for(model, 3)
    c = network.eval()(feed, wanted=["c"])["c"].double()
    mean, variance = c.mean((0, 2, 3)), c.var((0, 2, 3), unbiased=False)
    h = network.train()(feed, wanted=["h"])["h"]
    view = (1, 8, 1, 1)
    normal = (c - mean.reshape(view)) / (variance.reshape(view) + 1e-5).sqrt()
    s, t = (network.weights[name].detach().double().reshape(view) for name in "st")
    assert torch.allclose(h.double(), normal * s + t, atol=1e-5)
    found = network.statistics
    for name, batch in (("m", mean), ("v", variance)):
        expected = 0.8 * torch.tensor(MOMENTS[name]).double() + 0.2 * batch
        assert torch.allclose(found[name].double(), expected, atol=1e-6)


def test_frozen_statistics_stay_and_are_used() -> None:
    model = build(NORM, MOMENTS)
    network = TrainableNetwork(model)
    wanted = network.eval()(feed_for(model))["y"]
    network.train().frozen_statistics = True
    assert torch.equal(network(feed_for(model))["y"], wanted)
    assert torch.equal(network.statistics["m"], torch.tensor(MOMENTS["m"]))


def test_dropout_drops_in_training_with_its_ratio_and_the_generator_s_seed() -> None:
    model = build(
        "d = Dropout (x, ratio) y = Identity (d)",
        {"ratio": scalar(0.3)},
        inputs="float[N,1000] x",
        outputs="float[N,1000] y",
    )
    network = TrainableNetwork(model)
    ones = {"x": torch.ones(4, 1000)}
    assert torch.equal(network.eval()(ones)["y"], ones["x"])
    torch.manual_seed(1)
    first = network.train()(ones)["y"]
    assert float((first == 0).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert torch.allclose(first[first != 0], torch.tensor(1 / 0.7))
    torch.manual_seed(1)
    assert torch.equal(network(ones)["y"], first)


# --- what an exporter merged --------------------------------------------------------------------


def test_scales_of_ones_that_layers_share_are_trained_apart() -> None:
    nodes = """a = Conv (x, w1) b = BatchNormalization (a, ones, zeros, zeros, ones)
    i = Identity (ones) c = Conv (b, w2) d = BatchNormalization (c, i, zeros, zeros, ones)
    y = Conv (d, w3)"""
    fresh = {"ones": np.ones(8, np.float32), "zeros": np.zeros(8, np.float32)}
    model = build(nodes, fresh | {"w1": (8, 3, 1, 1), "w2": (8, 8, 1, 1), "w3": (4, 8, 1, 1)})
    network = TrainableNetwork(model)
    assert len(set(network.weights) - {"w1", "w2", "w3"}) == 4
    assert len(network.statistics) == 4
    network.train()(feed_for(model))["y"].sum().backward()
    means = [v for n, v in network.statistics.items() if "zeros" in n]
    assert not torch.equal(means[0], means[1])


def test_weights_that_are_tied_stay_tied() -> None:
    nodes = "a = MatMul (x, w) r = Relu (a) b = MatMul (r, w) y = MatMul (b, wo)"
    model = build(nodes, {"w": (6, 6), "wo": (6, 5)}, inputs="float[N,6] x", outputs=SCORES)
    assert set(TrainableNetwork(model).weights) == {"w", "wo"}


# --- what is refused ----------------------------------------------------------------------------


def test_unknown_operators_are_named_with_their_nodes() -> None:
    nodes = """c = Conv (x, w1, b1) d = com.example.Magic (c) h = com.example.Magic (d)
    y = Conv (h, w2, b2)"""
    model = build(nodes, CONVS)
    model.graph.node[1].name = "spell"
    with pytest.raises(UnsupportedModelError, match=r"com\.example\.Magic \('spell' and 1 more\)"):
        TrainableNetwork(model)


def test_forms_that_are_not_known_are_named() -> None:
    model = build(
        'y = RoiAlign <mode="max", output_height=2, output_width=2> (x, r, i)',
        {"r": np.zeros((1, 4), np.float32), "i": ints(0)},
    )
    with pytest.raises(UnsupportedModelError, match=r"RoiAlign 'RoiAlign_0' .* maxima of regions"):
        TrainableNetwork(model)


def test_old_opsets_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="opset 6"):
        TrainableNetwork(build("y = Relu (x)", {}, opset=6, ir=3))


FUNCTION = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
micro (float[N,6] x) => (float[N,5] y) {
    h = own.layer (x, w1, b1)
    y = Gemm (h, w2, b2)
}
<domain: "own", opset_import: ["" : 17]>
layer (x, w, b) => (h) { a = Gemm (x, w, b) k = Constant <value = float {0.5}> () m = Mul (a, k)
    s = Constant <value = float[8] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}> () h = Mul (m, s) }
"""


def test_functions_are_inlined_and_what_is_passed_to_them_is_trained() -> None:
    model = onnx.parser.parse_model(FUNCTION)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (6, 8), "b1": (8,), "w2": (8, 5), "b2": (5,)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    network = TrainableNetwork(model)
    assert set(network.weights) == {"w1", "b1", "w2", "b2"}
    feed = {"x": rng.standard_normal((3, 6)).astype(np.float32)}
    (wanted,) = Session(model).run(feed)
    found = network({"x": torch.from_numpy(feed["x"])})["y"].detach().numpy()
    assert np.allclose(found, wanted, atol=1e-5)
    assert write_back(model, network).SerializeToString() == model.SerializeToString()


# --- gradients and precision --------------------------------------------------------------------

LAYERS: dict[str, Builder] = {
    name: MICRO_MODELS[name]
    for name in (
        "Conv depthwise",
        "ConvTranspose",
        "DeformConv",
        "Gemm",
        "MatMul and bias",
        "LSTM, bidirectional",
        "GRU, learnt initial state, repeated",
        "LayerNormalization",
        "InstanceNormalization",
        "PRelu",
        "com.microsoft Attention with a mask",
        "com.microsoft FusedConv",
    )
    if name in MICRO_MODELS
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_model_in_onnxruntime(name: str) -> None:
    """A step against the gradient changes a loss as the gradient says, computed elsewhere."""
    model = LAYERS[name]()
    network = TrainableNetwork(model).eval()
    feed = feed_for(model)
    y = network(feed)["y"]
    projection = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    (y * projection).sum().backward()
    session_feed = {key: value.numpy() for key, value in feed.items()}

    def loss(shift: dict[str, np.ndarray]) -> float:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for tensor in changed.graph.initializer:
            if tensor.name in shift:
                values = numpy_helper.to_array(tensor) + shift[tensor.name]
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
        (result,) = Session(changed, threads=1, optimization="none").run(session_feed)
        return float((result.astype(np.float64) * projection.numpy()).sum())

    for weight, parameter in network.weights.items():
        gradient = parameter.grad
        if gradient is None:
            assert weight == "wk"  # nothing reads the mask of this DeformConv
            continue
        norm = float(gradient.norm())
        assert norm > 0, weight
        direction = (gradient / norm).numpy()
        size = 1e-2
        rise = loss({weight: direction * size}) - loss({weight: -direction * size})
        assert rise / (2 * size) == pytest.approx(norm, rel=2e-2, abs=2e-3), weight


@pytest.mark.parametrize(
    "name", ["Conv", "Gemm", "BatchNormalization", "LayerNormalization", "LSTM"]
)
def test_gradcheck(name: str) -> None:
    model = MICRO_MODELS[name]()
    network = TrainableNetwork(model).double().eval()
    feed = {key: value.double() for key, value in feed_for(model, 1).items()}
    names = list(network.weights)

    def run(*values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, values, strict=True))
        original = network.effective
        network.effective = given.__getitem__  # type: ignore[method-assign]
        try:
            return network(feed)["y"]
        finally:
            network.effective = original  # type: ignore[method-assign]

    values = [network.weights[key].detach().requires_grad_() for key in names]
    assert torch.autograd.gradcheck(run, values, fast_mode=True)


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_mixed_precision_runs_forwards_and_backwards(name: str) -> None:
    model = MICRO_MODELS[name]()
    size = {"shuffle of series": 10}.get(name, 9)
    feed = random_feed(model, np.random.default_rng(3), 2, size)
    tensors = {key: torch.from_numpy(value) for key, value in feed.items()}
    network = TrainableNetwork(model)
    wanted = network(tensors)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(tensors)
    assert [value.shape for value in found.values()] == [v.shape for v in wanted.values()]
    differentiable = [value for value in found.values() if value.requires_grad]
    assert len(differentiable) == sum(value.requires_grad for value in wanted.values())
    if differentiable:
        sum(value.float().sum() for value in differentiable).backward()
        assert any(parameter.grad is not None for parameter in network.weights.values())


def test_mixed_precision_is_close() -> None:
    model = residual()
    network = TrainableNetwork(model)
    exact = network(feed_for(model))["y"].detach()
    with torch.autocast("cpu", torch.bfloat16):
        y = network(feed_for(model))["y"].detach()
    assert y.dtype == torch.bfloat16
    assert float((y - exact).norm() / exact.norm()) < 0.02


# --- linear layers ------------------------------------------------------------------------------


def test_linear_layers_say_what_they_read_and_by_which_weights() -> None:
    nodes = """c = Conv <group=3, strides=[2,1], pads=[1,0,0,1]> (x, w1, b1)
    p = GlobalAveragePool (c) q = Flatten (p) g = Gemm <transB=1> (q, w2, b2)
    m = MatMul (g, w3) a = Add (b3, m)
    t = Transpose (w4) y = MatMul (a, t)"""
    weights = {
        "w1": (6, 1, 3, 3), "b1": (6,), "w2": (7, 6), "b2": (7,), "w3": (7, 8), "b3": (8,),
        "w4": (5, 8),
    }  # fmt: skip
    layers = TrainableNetwork(build(nodes, weights, outputs=SCORES)).linear_layers()
    rows = [(v.operator, v.input, v.output, v.weight, v.bias, v.inputs_first) for v in layers]
    assert rows == [
        ("Conv", "x", "c", "w1", "b1", False),
        ("Gemm", "q", "g", "w2", "b2", False),
        ("MatMul", "g", "a", "w3", "b3", True),
        ("MatMul", "a", "y", "w4", None, False),
    ]
    assert layers[0].groups == 3
    window = layers[0].window((8, 8))
    assert (window.kernel, window.strides) == ((3, 3), (2, 1))
    assert (window.pads_begin, window.pads_end) == ((1, 0), (0, 1))
    assert [layer.convolutional for layer in layers] == [True, False, False, False]


# --- another device -----------------------------------------------------------------------------

NEED_VALUES = {"Compress", "Compress by a computed condition"}
"""Micro models in which the extent of a tensor depends on what another one holds."""


@pytest.mark.thinned
@pytest.mark.parametrize("name", sorted(set(MICRO_MODELS) - NEED_VALUES))
def test_all_but_numbers_is_on_the_network_s_device(name: str) -> None:
    """A device without values: nothing can be read back from it, and nothing mixed with it."""
    model = MICRO_MODELS[name]()
    feed = random_feed(model, np.random.default_rng(3), 2, {"shuffle of series": 10}.get(name, 9))
    tensors = {key: torch.from_numpy(value) for key, value in feed.items()}
    network = TrainableNetwork(model)
    wanted = network(tensors)
    network.to("meta")
    found = network({key: value.to("meta") for key, value in tensors.items()})
    for key, value in found.items():
        assert value.device.type == "meta"
        assert (value.shape, value.dtype) == (wanted[key].shape, wanted[key].dtype)


@pytest.mark.gpu
@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_a_gpu_computes_the_same(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device")
    model = MICRO_MODELS[name]()
    feed = feed_for(model)
    network = TrainableNetwork(model).eval()
    wanted = network(feed)
    network.to("cuda")
    found = network({key: value.to("cuda") for key, value in feed.items()})
    for key, value in wanted.items():
        assert torch.allclose(found[key].cpu(), value, rtol=1e-2, atol=1e-2)
