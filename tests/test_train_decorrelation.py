"""Decorrelated backpropagation on ONNX graphs: fused weights, what is exported, what is learnt."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from micro_models import build  # noqa: E402
from small_networks import MODELS, digits, perceptron  # noqa: E402
from torch.nn import functional  # noqa: E402

from onnxprune.errors import TrainingError  # noqa: E402
from onnxprune.linear_map import FeatureSpec  # noqa: E402
from onnxprune.model import load  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.train import decorrelation  # noqa: E402
from onnxprune.train.decorrelation import Decorrelation  # noqa: E402
from onnxprune.train.decorrelation_options import DecorrelationOptions  # noqa: E402
from onnxprune.train.method import Backpropagation, Method, Step  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.sampled_rows import RowSampler  # noqa: E402
from onnxprune.train.write_back import write_back  # noqa: E402

PAD = "<pads=[1,1,1,1]>"
IMAGES = "float[N,3,8,8] x"
CLASSES = "float[N,5] y"
NETWORKS = {
    "convolutions": lambda: build(
        f"c = Conv {PAD} (x, w1, b1) h = Relu(c) "
        "d = Conv <strides=[2,2], pads=[0,1,1,0], dilations=[1,2]> (h, w2) g = Relu(d) "
        "p = GlobalAveragePool(g) f = Flatten(p) y = Gemm <transB=1> (f, w3, b3)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (6, 8, 3, 3), "w3": (5, 6), "b3": (5,)},
        inputs=IMAGES, outputs=CLASSES,
    ),
    "grouped, depthwise, residual": lambda: build(
        f"c = Conv {PAD} (x, w1) h = Relu(c) "
        "d = Conv <pads=[1,1,1,1], group=8> (h, w2) e = Conv <group=2> (d, w3) s = Add(h, e) "
        'g = Relu(s) k = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (g, w4) f = Flatten(k) '
        "y = MatMul(f, w5)",
        {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (8, 4, 1, 1), "w4": (4, 8, 3, 3),
         "w5": (64, 5)},
        inputs=IMAGES, outputs=CLASSES,
    ),
    "normalised, dropped out": lambda: build(
        f"c = Conv {PAD} (x, w1) n = BatchNormalization (c, s, t, m, v) h = Relu(n) "
        "f = Flatten(h) r = Dropout (f, half, yes) y = Gemm (r, w2, b2)",
        {"w1": (8, 3, 3, 3), "s": np.ones(8, np.float32), "t": (8,), "m": np.zeros(8, np.float32),
         "v": np.ones(8, np.float32), "half": np.float32(0.5)[None].reshape(()),
         "yes": np.array(False), "w2": (512, 5), "b2": (5,)},
        inputs=IMAGES, outputs=CLASSES,
    ),
    "tokens": lambda: build(
        "a = MatMul(x, w1) c = Add(a, b1) h = Gelu(c) e = MatMul(h, w2) y = ReduceMean"
        " <keepdims=0> (e, axes)",
        {"w1": (6, 16), "b1": (16,), "w2": (16, 5), "axes": np.array([1])},
        inputs="float[N,7,6] x", outputs=CLASSES, opset=20,
    ),
}  # fmt: skip
FAST = DecorrelationOptions(rate=0.05, share=0.5)
TRIANGULAR = DecorrelationOptions(triangular=True, rate=0.05, share=0.5)


def data(model: onnx.ModelProto, count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated inputs, and labels that depend on them."""
    extents = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *extents, generator=generator)
    x = x + 2 * torch.randn(count, *[1] * len(extents), generator=generator) + 0.5
    return x, (x.flatten(1)[:, 0] > 0.5).long() + 2 * (x.flatten(1).mean(1) > 0.5).long()


def train(
    network: TrainableNetwork,
    method: Method,
    x: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int = 20,
    rate: float = 0.05,
    first: int = 0,
) -> list[float]:
    """The order of calls of the loop, without anything around it."""
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    network.train()
    losses = []
    for number in range(first, first + steps):
        torch.manual_seed(number)  # of Dropout
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(number))[:32]
        feed = {network.input_names[0]: x[chosen]}
        step = Step(number, steps, feed, labels[chosen], lambda _: torch.zeros(()), rate)
        changes = method.before_forward(step)
        scores = network(feed, taps=changes.taps, absent=changes.absent)
        loss = functional.cross_entropy(scores[network.output_names[0]], labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        method.after_backward(step)
        optimiser.step()
        method.after_step(step)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("settings", [FAST, TRIANGULAR], ids=["patches", "triangular"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_frozen_identity_is_backpropagation(name: str, settings: DecorrelationOptions) -> None:
    """R = I: every weight goes where it would have gone."""
    model = NETWORKS[name]()
    frozen = DecorrelationOptions(rate=0.0, triangular=settings.triangular)
    plain, decorrelated = TrainableNetwork(model), TrainableNetwork(model)
    method = Decorrelation(decorrelated, model, frozen)
    x, labels = data(model)
    assert train(plain, Backpropagation(), x, labels) == pytest.approx(
        train(decorrelated, method, x, labels), rel=1e-5
    )
    for weight in plain.weights:
        torch.testing.assert_close(
            decorrelated.effective(weight), plain.weights[weight], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("settings", [FAST, TRIANGULAR], ids=["patches", "triangular"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_exported_model_is_the_network_that_was_trained(
    name: str, settings: DecorrelationOptions
) -> None:
    model = NETWORKS[name]()
    network = TrainableNetwork(model)
    method = Decorrelation(network, model, settings)
    x, labels = data(model)
    losses = train(network, method, x, labels, steps=40)
    assert np.mean(losses[-5:]) < losses[0]
    for decorrelator in method.decorrelators.values():  # none is an identity any more
        size = decorrelator.transform.shape[1]
        moved = (decorrelator.transform - torch.eye(size)).abs().amax()
        assert float(moved) > 1e-3 or size == 1
    written = method.finish(write_back(model, network))
    assert [list(t.dims) for t in written.graph.initializer] == [
        list(t.dims) for t in model.graph.initializer
    ]
    network.eval()
    with torch.no_grad():
        expected = network({"x": x})["y"].numpy()
    (found,) = Session(written).run({"x": x.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    (before,) = Session(model).run({"x": x.numpy()})
    assert np.abs(found - before).max() > 0.01


def features(name: str, *, triangular: bool) -> dict[str, tuple[int, int]]:
    """Node -> (parts, features) of its R."""
    model = NETWORKS[name]()
    settings = TRIANGULAR if triangular else FAST
    method = Decorrelation(TrainableNetwork(model), model, settings)
    names = [
        node.op_type for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")
    ]
    shapes = [tuple(d.transform.shape[:2]) for d in method.decorrelators.values()]
    return dict(zip(map("{}{}".format, names, range(len(names))), shapes, strict=True))


def test_widths_are_those_of_patches_or_of_channels() -> None:
    assert features("convolutions", triangular=False) == {
        "Conv0": (1, 27), "Conv1": (1, 72), "Gemm2": (1, 6),
    }  # fmt: skip
    assert features("convolutions", triangular=True) == {
        "Conv0": (1, 3), "Conv1": (1, 8), "Gemm2": (1, 6),
    }  # fmt: skip
    assert features("grouped, depthwise, residual", triangular=False) == {
        "Conv0": (1, 27), "Conv1": (8, 9), "Conv2": (2, 4), "Conv3": (1, 72), "MatMul4": (1, 64),
    }  # fmt: skip
    assert features("grouped, depthwise, residual", triangular=True) == {
        "Conv0": (1, 3), "Conv1": (8, 1), "Conv2": (2, 4), "Conv3": (1, 8), "MatMul4": (1, 4),
    }  # fmt: skip


def correlations(rows: torch.Tensor) -> float:
    """Root mean square correlation coefficient about zero, shape (parts, rows, features) given."""
    second = rows.mT @ rows / rows.shape[1]
    scale = second.diagonal(dim1=1, dim2=2).clamp(min=1e-20).sqrt()
    coefficients = second / scale[:, :, None] / scale[:, None, :]
    coefficients.diagonal(dim1=1, dim2=2).zero_()
    return float(coefficients.square().mean().sqrt())


@pytest.mark.parametrize("settings", [FAST, TRIANGULAR], ids=["patches", "triangular"])
def test_planted_correlations_fall_tenfold(settings: DecorrelationOptions) -> None:
    """In the first layer, whose inputs are given: on rows that were not learnt from."""
    model = NETWORKS["convolutions"]()
    network = TrainableNetwork(model)
    method = Decorrelation(network, model, settings)
    x, labels = data(model, 600)
    seen, unseen = x[:500], x[500:]
    (first, *_), (layer, *_) = method.decorrelators.values(), network.linear_layers()
    losses = {}
    for part in range(2):
        train(network, method, seen, labels[:500], steps=120, rate=0.001, first=120 * part)
        losses[part] = method.columns()
    spec = FeatureSpec("x", 4, 1, None if settings.triangular else layer.window((8, 8)))
    rows = RowSampler(1.0, 64).rows(spec, unseen, torch.Generator())
    before, after = correlations(rows), correlations(rows @ first.transform.mT)
    assert before > 0.5
    assert after < before / 10
    assert list(losses[0]) == [f"decorrelation of {name}" for name in method.decorrelators]
    own = next(iter(losses[0]))
    assert 0 <= losses[1][own] < losses[0][own]


def test_settings_choose_the_layers() -> None:
    model = perceptron()
    every = Decorrelation(TrainableNetwork(model), model).decorrelators
    assert len(every) == 2
    (one,) = Decorrelation(
        TrainableNetwork(model), model, DecorrelationOptions(layers=f"^{next(iter(every))}$")
    ).decorrelators
    assert one == next(iter(every))
    with pytest.raises(TrainingError, match=r"no layer is decorrelated: .* 'nothing' is found in"):
        Decorrelation(TrainableNetwork(model), model, DecorrelationOptions(layers="nothing"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": -1.0}, "rate is at least 0, not -1"),
        ({"rate": math.nan}, "rate is at least 0"),
        ({"kappa": 1.5}, r"kappa is a share, from 0 to 1, not 1\.5"),
        ({"triangular": True, "kappa": 0.1}, "kappa has to be 0"),
        ({"loss": "square"}, "standard or normalised, not 'square'"),
        ({"share": 0.0}, "share of a batch is above 0"),
        ({"share": 1.5}, "share of a batch is above 0"),
        ({"points": 0}, "at least 1 position"),
        ({"layers": "("}, "not a regular expression"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecorrelationOptions(**settings)


def test_layers_that_are_too_wide_keep_the_identity(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decorrelation, "MAX_FEATURES", 30)
    model = NETWORKS["convolutions"]()
    with caplog.at_level(logging.INFO, "onnxprune"):
        method = Decorrelation(TrainableNetwork(model), model)
    assert len(method.decorrelators) == 2
    assert "reads 72 features and is not decorrelated" in caplog.text


TWINS = {
    "w1": (6, 6), "w2": (6, 5),
}  # fmt: skip


def test_layers_with_one_weight_learn_one_transform() -> None:
    model = build(
        "a = MatMul(x, w1) h = Relu(a) b = MatMul(h, w1) g = Relu(b) y = MatMul(g, w2)",
        TWINS, inputs="float[N,6] x", outputs=CLASSES,
    )  # fmt: skip
    network = TrainableNetwork(model)
    method = Decorrelation(network, model, FAST)
    assert len(method.decorrelators) == 2
    x, labels = data(model)
    method.before_forward(Step(0, 1, {"x": x}, labels, lambda _: torch.zeros(()), 0.1))
    train(network, method, x, labels, steps=5)
    written = write_back(model, network)
    network.eval()
    with torch.no_grad():
        expected = network({"x": x})["y"].numpy()
    np.testing.assert_allclose(Session(written).run({"x": x.numpy()})[0], expected, atol=1e-6)


def test_a_weight_read_in_two_ways_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = build(
        "t = Transpose(w1) a = MatMul(x, w1) h = Relu(a) b = MatMul(h, t) y = MatMul(b, w2)",
        TWINS, inputs="float[N,6] x", outputs=CLASSES,
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "onnxprune"):
        method = Decorrelation(TrainableNetwork(model), model, FAST)
    assert len(method.decorrelators) == 1
    assert "shares its weight in another way" in caplog.text


@pytest.mark.parametrize("settings", [FAST, TRIANGULAR], ids=["patches", "triangular"])
def test_it_goes_on_exactly_where_it_was_stopped(settings: DecorrelationOptions) -> None:
    model = NETWORKS["normalised, dropped out"]()
    x, labels = data(model)

    def start() -> tuple[TrainableNetwork, Decorrelation]:
        network = TrainableNetwork(model)
        return network, Decorrelation(network, model, settings)

    through, method = start()
    train(through, method, x, labels, steps=7)
    half, before = start()
    train(half, before, x, labels, steps=4)
    rest, after = start()
    rest.load_state_dict(half.state_dict())
    after.load_state_dict(before.state_dict())
    train(rest, after, x, labels, steps=3, first=4)
    for name, tensor in through.state_dict().items():
        assert torch.equal(tensor, rest.state_dict()[name]), name
    assert after.columns() == pytest.approx(method.columns())


def test_half_precision_leaves_the_transform_in_single() -> None:
    model = NETWORKS["convolutions"]()
    network = TrainableNetwork(model)
    method = Decorrelation(network, model, FAST)
    x, labels = data(model)
    with torch.autocast("cpu", torch.bfloat16):
        losses = train(network, method, x, labels, steps=5)
    assert all(map(math.isfinite, losses))
    for decorrelator in method.decorrelators.values():
        assert decorrelator.transform.dtype == torch.float32
        assert bool(decorrelator.transform.isfinite().all())
    assert network.effective("w1").dtype == torch.float32


def test_digits_are_learnt() -> None:
    """A sanity check on real images; the bench compares."""
    images = torch.tensor(digits("digits_test.npz"))
    labels = torch.tensor(digits("digits_test.npz", "labels"))
    model = load(MODELS / "mlp_digits.onnx")
    network = TrainableNetwork(model)
    with torch.no_grad():
        for parameter in network.weights.values():
            if parameter.dim() == 2:
                torch.nn.init.kaiming_uniform_(
                    parameter, generator=torch.Generator().manual_seed(0)
                )
            else:
                parameter.zero_()
    method = Decorrelation(network, model, DecorrelationOptions(rate=1e-3))
    losses = train(network, method, images, labels, steps=200)
    assert losses[-1] < losses[0] / 3


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [FAST, TRIANGULAR], ids=["patches", "triangular"])
def test_cuda_learns_what_the_cpu_does(
    settings: DecorrelationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    # With ten bits of mantissa, what is close to zero in a triangular R differs by half of it.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = NETWORKS["grouped, depthwise, residual"]()
    x, labels = data(model)
    learnt = []
    for device in ("cpu", "cuda"):
        network = TrainableNetwork(model).to(device)
        method = Decorrelation(network, model, settings)
        train(network, method, x.to(device), labels.to(device), steps=5)
        learnt.append([d.transform.cpu() for d in method.decorrelators.values()])
    for one, other in zip(*learnt, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
