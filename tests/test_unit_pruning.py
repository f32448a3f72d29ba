"""Unit pruning in training: masks equal cuts, planted units, and the file that comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from gated_networks import Run, drawn, torch
from micro_models import positive, whole
from micro_sections import RESIDUALS
from oracles import distance, random_feed, structure_ok

from onnxprune.errors import UnsupportedModelError
from onnxprune.model import load
from onnxprune.runtime import Session
from onnxprune.train.gate_options import GateOptions
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.unit_masks import UnitMasks
from onnxprune.train.unit_pruning import UnitPruning
from onnxprune.train.write_back import write_back

MODELS = Path(__file__).parents[1] / "models"
ROUNDING = 2e-5
"""Some layers of float32 sums, in another order, and BatchNorms folded."""
USEFUL = 8
STEPS = 350


def planted(seed: int) -> onnx.ModelProto:
    """Sixteen hidden units, eight of which read noise and cannot read anything else.

    The first layer is two: one reads the features that the labels depend on, one the others.
    """
    return whole(
        "a = Gemm (x, w1, b1) b = Gemm (noise, w2, b2) c = Concat <axis=1> (a, b) h = Relu (c)"
        " y = Gemm (h, w3, b3)",
        {
            "w1": drawn(seed, 2, USEFUL), "b1": drawn(seed + 1, USEFUL),
            "w2": drawn(seed + 2, 6, 8), "b2": drawn(seed + 3, 8),
            "w3": drawn(seed + 4, 16, 2), "b3": drawn(seed + 5, 2),
        },
        inputs="float[N,2] x, float[N,6] noise",
        outputs="float[N,2] y",
    )()  # fmt: skip


def started(seed: int, steps: int = STEPS) -> tuple[Run, UnitPruning]:
    model = planted(100 * seed)
    network = TrainableNetwork(model)
    options = GateOptions(price=6e-3, rate=0.5, warm_up=0.1, every=1, decay=0.005)
    method = UnitPruning(network, model, options, samples=1000, seed=seed)

    def samples(step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        rng = np.random.default_rng([9, seed, step])
        x, noise = (torch.tensor(rng.standard_normal((64, k))).float() for k in (2, 6))
        return {"x": x, "noise": noise}, (x[:, 0] * x[:, 1] > 0).long()

    return Run(network, method, steps, samples, decay=1e-3), method


@pytest.mark.parametrize("seed", range(3))
def test_units_that_read_noise_go_and_useful_ones_stay(seed: int) -> None:
    run, method = started(seed)
    run.to(STEPS)
    theta = method.theta
    assert set(theta) == {"Gemm_0", "Gemm_1"}
    assert (theta["Gemm_1"] >= 0.5).sum() <= 1  # one of a group stays
    assert 3 <= (theta["Gemm_0"] >= 0.5).sum() <= USEFUL


def test_all_of_a_group_are_never_pruned() -> None:
    run, method = started(0, 300)
    run.to(300)
    assert all((units >= 0).all() and units.size == 8 for units in method.theta.values())
    assert method.theta["Gemm_1"].max() > 0


# --- masks equal cuts ---------------------------------------------------------------------------

GROUPED = whole(
    "a = Conv (x, w1, b1) n = BatchNormalization(a, s1, t1, m1, v1) r = Relu(n)"
    " b = Conv <group=2> (r, w2, b2) s = Relu(b) c = ConvTranspose <strides=[2,2]> (s, w3)"
    " t = Relu(c) p = GlobalAveragePool(t) f = Flatten(p) y = Gemm (f, w4)",
    {
        "w1": (8, 3, 3, 3), "b1": (8,), "s1": positive(1, 8), "t1": (8,), "m1": (8,),
        "v1": positive(2, 8), "w2": (6, 4, 3, 3), "b2": (6,), "w3": (6, 5, 2, 2), "w4": (5, 3),
    },
    inputs="float[N,3,9,9] x",
    outputs="float[N,3] y",
)  # fmt: skip
FLATTENED = whole(
    "a = Conv (x, w1, b1) r = Relu(a) f = Flatten(r) g = Gemm (f, w2, b2) s = Relu(g)"
    " y = Gemm <transB=1> (s, w3)",
    {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (294, 7), "b2": (7,), "w3": (4, 7)},
    inputs="float[N,3,9,9] x",
    outputs="float[N,4] y",
)
BUILDERS = {
    "grouped and transposed": GROUPED,
    "flattened": FLATTENED,
    **{name: RESIDUALS[name].build for name in ("post-activation", "projection", "nested")},
    "attention": RESIDUALS["attention"].build,
    **{
        f"{name}_digits": (lambda name=name: load(MODELS / f"{name}_digits.onnx"))
        for name in ("vgg", "resnet", "mlp", "vit")
    },
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_file_equals_the_masked_network(name: str) -> None:
    rng = np.random.default_rng(len(name))
    model = BUILDERS[name]()
    before = model.SerializeToString()
    network = TrainableNetwork(model)
    method = UnitPruning(network, model, GateOptions(), samples=10)
    state = method.state_dict()
    theta = rng.integers(0, 2, len(state["gates"]["theta"])).astype(float)
    method.load_state_dict(state | {"gates": state["gates"] | {"theta": theta.tolist()}})
    final = method.finish(write_back(model, network))
    structure_ok(final, model)
    assert model.SerializeToString() == before
    feed = random_feed(model, rng, 3, 9)
    network.eval()
    with torch.no_grad():
        made = network({k: torch.tensor(v) for k, v in feed.items()})
    masked = [made[output.name].numpy() for output in model.graph.output]
    assert distance(masked, Session(final, threads=1).run(feed)) < ROUNDING
    whole_model = Session(model, threads=1).run(feed)
    assert distance(masked, whole_model) > 1e-3
    sizes = [sum(int(np.prod(t.dims)) for t in m.graph.initializer) for m in (final, model)]
    assert sizes[0] < sizes[1]


def test_a_gate_of_balanced_parts_takes_one_unit_of_each() -> None:
    model = GROUPED()
    masks = UnitMasks(TrainableNetwork(model), model)
    groups = {group.name: group.gates.tolist() for group in masks.groups}
    (balanced,) = (gates for gates in groups.values() if len(gates) == 8)
    assert balanced == [balanced[0] + i for i in (0, 1, 2, 3)] * 2


def test_sizes_are_those_of_the_weights_that_read_a_unit() -> None:
    model = planted(0)
    network = TrainableNetwork(model)
    masks = UnitMasks(network, model)
    rows = network.weights["w3"].detach().norm(dim=1)
    assert torch.allclose(masks.sizes(), rows)
    factors = torch.linspace(0, 1, masks.count)
    expected = network.weights["w3"].detach() * factors[:, None]
    masks.scale(factors)
    assert torch.equal(network.weights["w3"], expected)


def test_between_steps_the_network_is_without_chance() -> None:
    run, method = started(0, 40)
    run.to(40)
    feed, _ = run.samples(0)
    run.network.eval()
    with torch.no_grad():
        first, second = (run.network(feed)["y"] for _ in range(2))
    assert torch.equal(first, second)
    final = method.finish(write_back(planted(0), run.network))
    numbers = {name: value.numpy() for name, value in feed.items()}
    assert distance([first.numpy()], Session(final, threads=1).run(numbers)) < ROUNDING


def test_groups_that_cannot_be_masked_say_why() -> None:
    model = load(MODELS / "vit_digits.onnx")
    masks = UnitMasks(TrainableNetwork(model), model)
    assert any("product" in group.reason for group in masks.frozen)
    lone = whole(
        "y = MatMul (x, w)", {"w": (6, 4)}, inputs="float[N,6] x", outputs="float[N,4] y"
    )()
    with pytest.raises(UnsupportedModelError, match="no channel can have a gate"):
        UnitPruning(TrainableNetwork(lone), lone, GateOptions(), samples=10)
