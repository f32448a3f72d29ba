"""The training loop: it learns, repeats itself, keeps the best and goes on after a stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from micro_models import SCORES, build, scalar

torch = pytest.importorskip("torch")

from onnxprune.calibration import InputSpec, Preprocessing  # noqa: E402
from onnxprune.errors import TrainingError  # noqa: E402
from onnxprune.train.distributed import Processes  # noqa: E402
from onnxprune.train.evaluation import Selection  # noqa: E402
from onnxprune.train.fit import Trainer  # noqa: E402
from onnxprune.train.history import COLUMNS, read_history  # noqa: E402
from onnxprune.train.method import Backpropagation, Changes, Step  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.objective import Classification  # noqa: E402
from onnxprune.train.options import TrainOptions  # noqa: E402
from onnxprune.train.records import Fitted  # noqa: E402
from onnxprune.train.samples import LabelledSamples, load_labelled  # noqa: E402
from onnxprune.train.training import train  # noqa: E402

INPUTS = 6
NODES = """a = Gemm (x, w1, b1) n = BatchNormalization (a, s, t, m, v) r = Relu (n)
d = Dropout (r, ratio) y = Gemm (d, w2, b2)"""
ALONE = Processes(0, 1, torch.device("cpu"))
FAST = TrainOptions(epochs=4, batch=16, progress=False, rate=0.01)


def network_model(ratio: float = 0.2, nodes: str = NODES) -> onnx.ModelProto:
    ones, zeros = np.ones(12, np.float32), np.zeros(12, np.float32)
    moments = {"s": ones, "t": zeros + 0.1, "m": zeros - 0.1, "v": ones + 0.1}
    weights = {"w1": (INPUTS, 12), "b1": (12,), "w2": (12, 5), "b2": (5,), "ratio": scalar(ratio)}
    return build(nodes, weights | moments, inputs=f"float[N,{INPUTS}] x", outputs=SCORES)


def labelled(count: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    """Classes that a linear map tells apart."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, INPUTS)).astype(np.float32)
    directions = np.random.default_rng(9).standard_normal((INPUTS, 5))
    return {"x": x, "labels": (x @ directions).argmax(1)}


def same_weights(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.SerializeToString() == other.SerializeToString()


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_it_learns(optimizer: str) -> None:
    options = replace(
        FAST, optimizer=optimizer, epochs=15, rate=None if optimizer == "sgd" else 0.02
    )
    fitted = train(network_model(), labelled(), options).fitted
    assert fitted.before is not None
    assert fitted.after is not None
    assert fitted.before.accuracy < 0.5
    assert fitted.after.accuracy > 0.8
    assert fitted.after.loss < fitted.before.loss


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_learns_in_half_precision(precision: str) -> None:
    options = replace(FAST, precision=precision, epochs=15, rate=0.02)
    fitted = train(network_model(), labelled(), options).fitted
    assert fitted.after is not None
    assert fitted.after.accuracy > 0.8


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_it_learns_on_a_gpu(precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device")
    options = replace(FAST, device="cuda", precision=precision, epochs=15, rate=0.02)
    fitted = train(network_model(), labelled(), options).fitted
    assert fitted.after is not None
    assert fitted.after.accuracy > 0.8


def test_a_seed_repeats_and_another_differs() -> None:
    first, again, other = (
        train(network_model(), labelled(), replace(FAST, seed=seed)).model for seed in (1, 1, 2)
    )
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_random_weights_are_a_start() -> None:
    options = replace(FAST, fresh=True, epochs=15, rate=0.02)
    result = train(network_model(), labelled(), options)
    assert result.fitted.after is not None
    assert result.fitted.after.accuracy > 0.7
    assert same_weights(result.model, train(network_model(), labelled(), options).model)


def test_time_ends_it() -> None:
    fitted = train(network_model(), labelled(), replace(FAST, epochs=None, seconds=0.5)).fitted
    assert 0.5 <= fitted.seconds < 2
    rates = [row["learning_rate"] for row in fitted.rows]
    assert rates[-1] is not None
    assert rates[-1] < 1e-3


def test_the_rate_follows_the_schedule_and_rows_say_so() -> None:
    options = replace(FAST, schedule="onecycle", history_every=3)
    rows = train(network_model(), labelled(), options).fitted.rows
    assert set(rows[0]) == set(COLUMNS)
    assert [row["epoch"] for row in rows if row["validation_loss"] is not None] == [0, 1, 2, 3, 4]
    assert [row["step"] for row in rows] == [0, 3, 6, 9, 11, 12, 15, 18, 21, 22, 24, 27, 30, 33, 36,
                                             39, 42, 44]  # fmt: skip
    rates = [float(row["learning_rate"] or 0) for row in rows]
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[-1] < 1e-4


def test_the_best_weights_are_kept_or_the_last() -> None:
    wild = replace(FAST, rate=3.0, schedule="constant", epochs=6)
    best = train(network_model(), labelled(), wild)
    accuracies = [float(row["validation_accuracy"] or 0) for row in best.fitted.rows]
    assert best.fitted.after is not None
    assert best.fitted.after.accuracy == max(accuracies)
    assert accuracies[-1] < max(accuracies)
    last = train(network_model(), labelled(), replace(wild, keep="last"))
    assert last.fitted.after is not None
    assert last.fitted.after.accuracy == accuracies[-1]
    assert not same_weights(best.model, last.model)


def test_without_validation_the_last_weights_are_kept() -> None:
    result = train(network_model(), labelled(), replace(FAST, validation=0))
    assert result.fitted.after is None
    assert result.fitted.step == result.fitted.rows[-1]["step"]


def test_weights_decay_and_vectors_do_not() -> None:
    options = replace(FAST, optimizer="sgd", rate=1e-9, weight_decay=1e8, momentum=0.0, epochs=1)
    result = train(network_model(), labelled(40), replace(options, keep="last"))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    before = {t.name: onnx.numpy_helper.to_array(t) for t in network_model().graph.initializer}
    assert np.abs(stored["w1"]).max() < np.abs(before["w1"]).max() * 0.95
    assert np.allclose(stored["b1"], before["b1"], atol=1e-6)
    assert np.allclose(stored["s"], before["s"], atol=1e-6)


def test_frozen_norms_keep_their_statistics() -> None:
    result = train(network_model(), labelled(), replace(FAST, freeze_norms=True, keep="last"))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    assert (stored["m"] == np.float32(-0.1)).all()
    assert not (stored["s"] == 1).all()


def test_a_fixed_batch_takes_several_parts_of_a_step() -> None:
    """The gradient of a batch does not depend on the parts it is computed in."""
    nodes = "a = Gemm (x, w1, b1) r = Relu (a) y = Gemm (r, w2, b2)"
    results = []
    for extent in ("N", "4"):
        model = network_model(nodes=nodes)
        if extent != "N":
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = int(extent)
        options = replace(FAST, optimizer="sgd", validation=0, epochs=2)
        result = train(model, labelled(96), options).model
        results.append({t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer})
    for name in ("w1", "b1", "w2", "b2"):
        assert np.allclose(results[0][name], results[1][name], atol=1e-5), name


def test_a_loss_that_grows_beyond_all_bounds_stops_it() -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) .* take a lower one"):
        train(
            network_model(nodes="a = Gemm (x, w1, b1) h = Exp (a) y = Gemm (h, w2, b2)"),
            labelled(),
            replace(FAST, optimizer="sgd", rate=1e6, momentum=0.9),
        )


def test_labels_beyond_the_outputs_are_found_before_training() -> None:
    data = labelled()
    data["labels"][17] = 5
    with pytest.raises(TrainingError, match=r"sample 17 is of class 5, but output 'y' scores 5"):
        train(network_model(), data, FAST)
    with pytest.raises(TrainingError, match="the validation samples: sample"):
        train(network_model(), labelled(), replace(FAST, validation="bad.npz"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = labelled(40, 5)
    np.savez("other.npz", **data)
    data["labels"][3] = 9
    np.savez("bad.npz", **data)


def test_separate_validation_samples() -> None:
    result = train(network_model(), labelled(), replace(FAST, validation="other.npz"))
    assert result.fitted.after is not None
    assert round(result.fitted.after.accuracy * 40, 6) == round(result.fitted.after.accuracy * 40)


def test_folders_of_validation_images_are_the_same_classes() -> None:
    from PIL import Image

    for name in ("train/a", "train/b", "train/c", "other/a", "other/c"):
        Path(name).mkdir(parents=True)
        pixels = np.full((8, 8, 3), 9, np.uint8)
        for number in range(4):
            Image.fromarray(pixels).save(f"{name}/{number}.png")
    nodes = "c = Conv (x, w1) p = GlobalAveragePool (c) y = Flatten (p)"
    model = build(nodes, {"w1": (5, 3, 3, 3)}, outputs=SCORES)
    options = replace(FAST, batch=4, preprocessing=Preprocessing(scale=0.01), epochs=1)
    assert train(model, "train", replace(options, validation="train")).fitted.after is not None
    with pytest.raises(TrainingError, match="its folders of classes are a, c, those of the other"):
        train(model, "train", replace(options, validation="other"))


def test_only_classifiers_learn_labels() -> None:
    model = network_model(nodes="a = Gemm (x, w1, b1) y = ReduceMean <axes=[1], keepdims=0> (a)")
    with pytest.raises(TrainingError, match="no output of the model is a row of class scores"):
        train(model, labelled(), FAST)
    with pytest.raises(TrainingError, match="no weights to train"):
        train(build("y = Relu (x)", {}, outputs=SCORES), labelled(), FAST)


def test_scores_are_taken_before_softmax_and_sigmoid() -> None:
    for ending in ("Softmax", "Sigmoid"):
        nodes = f"a = Gemm (x, w1, b1) r = Relu (a) z = Gemm (r, w2, b2) y = {ending} (z)"
        network = TrainableNetwork(network_model(nodes=nodes))
        feed = {"x": torch.from_numpy(labelled()["x"])}
        truth = torch.from_numpy(labelled()["labels"])
        objective = Classification(network, feed)
        assert objective.wanted == ("z",)
        values = network(feed, wanted=["y", "z"])
        loss = objective.loss(values, feed, truth).detach()
        chosen = values["y"].detach().gather(1, truth[:, None]).log().sum()
        if ending == "Softmax":
            assert float(loss) == pytest.approx(-float(chosen), rel=1e-5)
        else:
            others = (1 - values["y"].detach()).log().sum(1)
            others = others - (1 - values["y"].detach()).gather(1, truth[:, None]).log()[:, 0]
            assert float(loss) == pytest.approx(-float(chosen + others.sum()), rel=1e-5)


# --- methods ------------------------------------------------------------------------------------


class Watching(Backpropagation):
    """Writes down what the loop calls and gives."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.losses: list[tuple[float, float]] = []
        self.rates: list[float] = []
        self.network: TrainableNetwork | None = None

    def before_forward(self, step: Step) -> Changes:
        self.calls.append("before")
        assert self.network is not None
        running = self.network.statistics["m"].clone()
        plain = float(step.loss(Changes()).detach())
        gone = float(step.loss(Changes(taps={"r": lambda r: r * 0})).detach())
        assert torch.equal(running, self.network.statistics["m"])
        self.losses.append((plain, gone))
        self.rates.append(step.rate)
        return Changes(taps={"n": self._seen})

    def _seen(self, n: torch.Tensor) -> torch.Tensor:
        self.calls.append("forward")
        return n

    def penalty(self, step: Step) -> torch.Tensor:
        self.calls.append("penalty")
        assert self.network is not None
        return self.network.weights["w1"].square().sum()

    def after_backward(self, step: Step) -> None:
        self.calls.append("backward")
        assert self.network is not None
        assert self.network.weights["b1"].grad is not None
        self.network.weights["b1"].grad.zero_()

    def after_step(self, step: Step) -> None:
        self.calls.append("after")

    def columns(self) -> Mapping[str, float]:
        return {"calls": float(len(self.calls))}

    def may_keep(self) -> bool:
        return False


def trained_by(method: Any, options: TrainOptions = FAST) -> tuple[TrainableNetwork, Fitted]:
    network = TrainableNetwork(network_model())
    method.network = network
    samples = load_labelled(labelled(), [*module_inputs()])
    indices = np.arange(len(samples))
    objective = Classification(network, {"x": torch.zeros(2, INPUTS)})
    trainer = Trainer(
        network,
        method,
        objective,
        Selection(samples, indices[:160]),
        Selection(samples, indices[160:]),
        options,
        ALONE,
    )
    return network, trainer.run()


def module_inputs() -> list[Any]:
    return [InputSpec("x", ("N", INPUTS), np.dtype(np.float32))]


def test_the_loop_calls_a_method_in_order() -> None:
    method = Watching()
    options = replace(FAST, weight_decay=0.0)
    network, fitted = trained_by(method, options)
    round_ = ["before", "forward", "penalty", "backward", "after"]
    calls = method.calls
    assert calls == round_ * 40
    assert all(plain != gone for plain, gone in method.losses)
    assert all(gone == pytest.approx(math.log(5), abs=1.0) for _, gone in method.losses)
    before = onnx.numpy_helper.to_array(
        next(t for t in network_model().graph.initializer if t.name == "b1")
    )
    assert torch.equal(network.weights["b1"].detach(), torch.from_numpy(before.copy()))
    assert [row["calls"] for row in fitted.rows] == [0, 50, 100, 150, 200]
    assert fitted.step == 40  # the method let nothing be kept before the end
    assert max(method.rates) == pytest.approx(0.01, rel=0.05)


def test_a_penalty_pulls_weights() -> None:
    class Plain(Watching):
        def penalty(self, step: Step) -> float:  # type: ignore[override]
            self.calls.append("penalty")
            return 0.0

    norms = [float(trained_by(m)[0].weights["w1"].detach().norm()) for m in (Watching(), Plain())]
    assert norms[0] < 0.8 * norms[1]


# --- going on after a stop ----------------------------------------------------------------------


class StoppedError(Exception):
    pass


class Stopping(Backpropagation):
    """Stops the loop in the middle of a step, and has a state of its own."""

    def __init__(self, at: int | None) -> None:
        self.at, self.steps = at, 0

    def after_backward(self, step: Step) -> None:
        if step.number == self.at:
            raise StoppedError

    def after_step(self, step: Step) -> None:
        self.steps += 1

    def columns(self) -> Mapping[str, float]:
        return {"steps": float(self.steps)}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("at", [5, 23, 30])
def test_it_goes_on_exactly_as_it_would_have(at: int, optimizer: str) -> None:
    """Whatever step it is stopped in: at a checkpoint within an epoch, or after one."""
    options = replace(FAST, optimizer=optimizer, checkpoint=Path("run.pt"), history=Path("log.csv"))
    whole, wanted = trained_by(Stopping(None), replace(options, checkpoint=None, history=None))
    stepwise = replace(options, checkpoint_seconds=0.0)
    with pytest.raises(StoppedError):
        trained_by(Stopping(at), stepwise)
    torch.manual_seed(123)  # what was drawn elsewhere does not matter
    resumed, found = trained_by(Stopping(None), replace(stepwise, resume=True))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    for row, other in zip(found.rows, wanted.rows, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    assert read_history(Path("log.csv")) == found.rows


def test_a_checkpoint_of_other_settings_is_refused() -> None:
    options = replace(FAST, epochs=1, checkpoint=Path("run.pt"))
    train(network_model(), labelled(), options)
    again = replace(options, resume=True)
    for changed, name in (
        (replace(again, seed=5), "seed 0, now it is 5"),
        (replace(again, batch=8), "batch 16, now it is 8"),
        (replace(again, optimizer="sgd"), "optimizer adamw"),
    ):
        with pytest.raises(TrainingError, match=f"was written with {name}"):
            train(network_model(), labelled(), changed)
    with pytest.raises(TrainingError, match="was written with the model"):
        train(network_model(0.3), labelled(), again)
    with pytest.raises(TrainingError, match="was written with samples 200"):
        train(network_model(), labelled(100), again)
    with pytest.raises(TrainingError, match=r"none\.pt: no such checkpoint"):
        train(network_model(), labelled(), replace(again, checkpoint=Path("none.pt")))
    Path("run.pt").write_bytes(b"something else")
    with pytest.raises(TrainingError, match=r"run\.pt: cannot be read as a checkpoint"):
        train(network_model(), labelled(), again)


def test_a_finished_training_goes_on_to_the_same_end() -> None:
    options = replace(FAST, checkpoint=Path("run.pt"))
    first = train(network_model(), labelled(), options)
    again = train(network_model(), labelled(), replace(options, resume=True))
    assert same_weights(first.model, again.model)


def test_code_in_a_checkpoint_is_not_run() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path("sprung").write_text, ("x",))

    torch.save({"format": 1, "trap": Trap()}, "run.pt")
    options = replace(FAST, checkpoint=Path("run.pt"), resume=True)
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        train(network_model(), labelled(), options)
    assert not Path("sprung").exists()


def test_samples_of_the_loop_are_drawn_without_repetition() -> None:
    class Counting(LabelledSamples):
        seen: list[int] = []  # noqa: RUF012

        def parts(self, indices: Any, size: int) -> Any:
            self.seen.extend(np.asarray(indices).tolist())
            return super().parts(indices, size)

    base = load_labelled(labelled(100), module_inputs())
    counting = Counting(base._samples)
    network = TrainableNetwork(network_model())
    objective = Classification(network, {"x": torch.zeros(2, INPUTS)})
    options = replace(FAST, epochs=2, batch=25)
    selection = Selection(counting, np.arange(100))
    Trainer(network, Backpropagation(), objective, selection, None, options, ALONE).run()
    first, second = counting.seen[:100], counting.seen[100:]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
