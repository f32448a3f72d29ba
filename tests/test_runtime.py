"""Sessions own their provider honestly and explain failures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxprune import flavours, model_source, runtime
from onnxprune.errors import CalibrationError, OnnxPruneError, UnsupportedModelError
from onnxprune.flavours import flavour_advice
from onnxprune.runtime import Session, TensorType


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,3] x, float16[2] h) => (float[N,2] y, float16[2] r)
        <float[3,2] w = {1, 2, 3, 4, 5, 6}> { y = MatMul(x, w) r = Neg(h) }"""
    )


@pytest.fixture
def feed() -> dict[str, np.ndarray]:
    return {"x": np.ones((4, 3), np.float32), "h": np.array([1, -2], np.float16)}


def test_one_flavour_needs_no_advice() -> None:
    assert flavour_advice(["onnxruntime-gpu"]) is None
    assert flavour_advice(["onnxruntime"], "darwin", "arm64") is None


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
    ],
)
def test_missing_flavour_names_the_one_for_the_platform(
    system: str, machine: str, wanted: str
) -> None:
    advice = flavour_advice([], system, machine)
    assert advice is not None
    assert f"`pip install {wanted}`" in advice


def test_several_flavours_are_all_uninstalled() -> None:
    advice = flavour_advice(["onnxruntime-gpu", "onnxruntime"], "linux", "x86_64")
    assert advice is not None
    assert "pip uninstall onnxruntime onnxruntime-gpu`" in advice


def test_import_warns_of_several_flavours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavours, "installed_flavours", lambda: ["onnxruntime", "onnxruntime-gpu"])
    with pytest.warns(UserWarning, match="overwrite each other"):
        flavours.check_flavours()


def test_import_fails_without_a_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavours, "installed_flavours", list)
    monkeypatch.setattr(flavours.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        flavours.check_flavours()


@pytest.mark.parametrize("optimization", ["none", "basic", "extended", "all"])
@pytest.mark.parametrize("arena", [True, False])
def test_runs_and_describes_the_model(
    model: onnx.ModelProto, feed: dict[str, np.ndarray], arena: bool, optimization: str
) -> None:
    session = Session(model, threads=1, arena=arena, optimization=optimization)
    assert session.providers == ("CPUExecutionProvider",)
    assert session.inputs == {
        "x": TensorType("float32", ("N", 3)),
        "h": TensorType("float16", (2,)),
    }
    assert list(session.outputs) == ["y", "r"]
    r, y = session.run(feed, ["r", "y"])
    np.testing.assert_array_equal(y, np.full((4, 2), [9, 12], np.float32))
    assert r.dtype == np.float16
    np.testing.assert_array_equal(r, [-1, 2])


def test_takes_bytes_and_paths(
    model: onnx.ModelProto, feed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path)
    for source in (model.SerializeToString(), path, str(path)):
        np.testing.assert_array_equal(Session(source, threads=1).run(feed)[0][0], [9, 12])


def test_large_model_goes_through_a_file_and_is_not_changed(
    model: onnx.ModelProto, feed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((300, 2), np.float32), "w")
    model.graph.initializer[0].CopyFrom(weights)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 300
    before = model.SerializeToString(deterministic=True)
    monkeypatch.setattr(model_source, "_MAX_WEIGHT_BYTES", 2000)
    with model_source.loadable(model) as source:
        assert isinstance(source, str)
        folder = Path(source).parent
        assert (folder / "weights").stat().st_size >= 2400
    assert not folder.exists()
    outputs = Session(model, threads=1).run(feed | {"x": np.ones((4, 300), np.float32)}, ["y"])
    np.testing.assert_array_equal(outputs[0], np.full((4, 2), 300))
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_that_does_not_start_is_an_error(model: onnx.ModelProto, provider: str) -> None:
    message = "is not active: .* use provider cpu"
    try:
        session = Session(model, provider=provider)
    except OnnxPruneError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert session.providers[0].lower().startswith(provider)
    assert not refusal or re.search(message, refusal, re.DOTALL)


@pytest.mark.parametrize("active", [["CPUExecutionProvider"], []])
def test_silent_fall_back_is_an_error(
    model: onnx.ModelProto, active: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FallenBack:
        def __init__(self, *args: object, **kwargs: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return active

    onnxruntime = runtime.onnxruntime
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(OnnxPruneError, match="CUDAExecutionProvider is not active: only"):
        Session(model, provider="cuda")


def test_provider_the_build_lacks_is_an_error(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = ["CPUExecutionProvider"]
    monkeypatch.setattr(runtime.onnxruntime, "get_available_providers", lambda: available)
    with pytest.raises(OnnxPruneError, match="this build has CPUExecutionProvider"):
        Session(model, provider="tensorrt")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"x": np.ones((4, 5), np.float32)}, r"got x float32\[4, 5\]"),
        ({"x": np.ones((4, 3))}, r"got x float64"),
        ({"z": np.ones(1)}, "expected x float32"),
    ],
)
def test_feed_that_does_not_fit(
    model: onnx.ModelProto,
    feed: dict[str, np.ndarray],
    change: dict[str, np.ndarray],
    what: str,
) -> None:
    with pytest.raises(CalibrationError, match=what):
        Session(model, threads=1).run({**feed, **change})


def test_missing_input(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> None:
    with pytest.raises(CalibrationError, match="expected x"):
        Session(model, threads=1).run({"x": feed["x"]})


def test_failing_operator_is_a_typed_error() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N] x, int64[1] s) => (float[M] y) { y = Reshape(x, s) }"""
    )
    feed = {"x": np.ones(3, np.float32), "s": np.array([2])}
    with pytest.raises(OnnxPruneError, match="failed while running"):
        Session(model, threads=1).run(feed)


def test_unreadable_models(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="cannot load the model"):
        Session(b"not a model")
    with pytest.raises(UnsupportedModelError, match=r"absent\.onnx"):
        Session(tmp_path / "absent.onnx")


def test_nothing_is_printed(
    model: onnx.ModelProto, feed: dict[str, np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    session = Session(model, threads=1)
    session.run(feed)
    with pytest.raises(CalibrationError):
        session.run({**feed, "x": np.ones((4, 5), np.float32)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing shows whether it is on")
def test_onnxruntime_reports_to_nobody(tmp_path):
    """Its reports need an identifier, which it keeps among the temporary files."""
    chosen = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    code = "import onnxprune.runtime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, said in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "true"}, "true")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=chosen | given | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deployed", [False, True])
def test_a_gpu_computes_in_full_float32_unless_it_is_timed(
    model: onnx.ModelProto, deployed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def opened(*_: object, providers: list[tuple[str, dict[str, str]]], **__: object) -> None:
        asked.update(providers)
        raise RuntimeError("no such device")

    monkeypatch.setattr(runtime.onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(
        runtime.onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    with pytest.raises(OnnxPruneError, match="no such device"):
        Session(model, provider="cuda", deployed=deployed)
    exact = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert asked == {
        "CUDAExecutionProvider": {} if deployed else exact,
        "CPUExecutionProvider": {},
    }


@pytest.mark.parametrize(("deployed", "spinning"), [(False, "0"), (True, None)])
def test_threads_that_wait_sleep_unless_they_are_timed(
    deployed: bool, spinning: str | None
) -> None:
    options = runtime._options(None, arena=True, optimization="all", deployed=deployed)
    if spinning is None:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.intra_op.allow_spinning")
    else:
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == spinning
