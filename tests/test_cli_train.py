"""``onnxprune train``: files in, files out, and words for what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import files
from micro_models import SCORES, build, scalar
from onnx import numpy_helper
from small_networks import MODELS, accuracy, digits

torch = pytest.importorskip("torch")

from onnxprune.cli import COMMANDS, main  # noqa: E402
from onnxprune.cli import train as command  # noqa: E402
from onnxprune.train.history import read_history  # noqa: E402
from onnxprune.train.options import TrainOptions  # noqa: E402

NODES = """a = Gemm (x, w1, b1) n = BatchNormalization (a, s, t, m, v) r = Relu (n)
d = Dropout (r, ratio) y = Gemm (d, w2, b2)"""
PLAIN = "a = Gemm (x, w1, b1) r = Relu (a) y = Gemm (r, w2, b2)"


def small(nodes: str = NODES) -> onnx.ModelProto:
    ones = np.ones(12, np.float32)
    moments = {"s": ones, "t": ones, "m": ones, "v": ones, "ratio": scalar(0.3)}
    weights = {"w1": (6, 12), "b1": (12,), "w2": (12, 5), "b2": (5,)} | moments
    model = build(nodes, weights, inputs="float[N,6] x", outputs=SCORES)
    model.metadata_props.add(key="kept", value="as it is")
    return model


def initializers(path: str) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples of classes that a linear map tells apart."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small(), "in.onnx")
    onnx.save(small(PLAIN), "plain.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((203, 6)).astype(np.float32)
    labels = (x @ rng.standard_normal((6, 5))).argmax(1)
    np.savez("train.npz", x=x, labels=labels)
    np.save("x.npy", x)
    np.save("labels.npy", labels.astype(np.uint8))
    return tmp_path


def run(*words: object, model: str = "in.onnx", out: str = "out.onnx") -> int:
    given = [str(word) for word in words]
    if "--data" not in given:
        given += ["--data", "train.npz"]
    try:
        return main(["train", model, out, *given])
    except SystemExit as stopped:
        return int(stopped.code or 0)


QUICK = ("--epochs", 2, "--batch", 16)


def test_it_trains_and_says_what_it_came_to(folder: Path, capsys) -> None:
    before = files(folder)
    words = ("--epochs", 12, "--batch", 16, "--learning-rate", 0.02, "--history", "log.csv")
    assert run(*words) == 0
    said = capsys.readouterr()
    assert "validation accuracy" in said.out
    assert "trained for 132 steps" in said.out
    assert {name: files(folder)[name] for name in before} == before
    onnx.checker.check_model("out.onnx", full_check=True)
    model = onnx.load("out.onnx")
    assert [entry.value for entry in model.metadata_props] == ["as it is"]
    rows = read_history(Path("log.csv"))
    assert rows[-1]["validation_accuracy"] is not None
    assert rows[-1]["validation_accuracy"] > 0.75


def test_digits_are_learnt_from_random_weights(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "mlp_digits.onnx", "in.onnx")
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    test = {image.tobytes() for image in digits("digits_test.npz")}
    own = [place for place, image in enumerate(images) if image.tobytes() not in test]
    np.savez("train.npz", input=images[own], labels=labels[own])
    words = ("--fresh", "--epochs", 12, "--learning-rate", 0.004, "--keep", "last", "-q")
    assert run(*words) == 0
    assert capsys.readouterr().out == ""
    assert accuracy(onnx.load("in.onnx")) > 0.97
    assert accuracy(onnx.load("out.onnx")) > 0.95
    changed, before = initializers("out.onnx"), initializers("in.onnx")
    assert all(not np.array_equal(changed[name], before[name]) for name in before)


def test_labels_validation_and_changes_in_files_of_their_own(folder: Path) -> None:
    Path("own.py").write_text(
        "def noisy(feed, rng):\n"
        "    return {'x': feed['x'] + 0.1 * rng.standard_normal(feed['x'].shape)}\n"
    )
    words = ("--data", "x.npy", "--labels", "labels.npy", "--augment", "own.py:noisy")
    more = ("--validation", "x.npy", "--validation-labels", "labels.npy")
    assert run(*QUICK, *words, *more) == 0
    assert Path("out.onnx").exists()


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", 2, "--time", "10s"), "not allowed with argument"),
        (("--epochs", 0), "epochs is at least 1"),
        (("--time", "soon"), "write a time as 90s, 10m or 2h"),
        (("--resume",), "to resume, name the checkpoint"),
        (("--history", "log.txt"), "name a history that ends in .csv or .jsonl"),
        (("--smoothing", 1), "smoothing is a share"),
        (("--history", "train.npz.csv", "--checkpoint", "train.npz.csv"), "would overwrite"),
        (("--checkpoint", "in.onnx"), "--checkpoint would overwrite IN"),
        (("--method", "magic"), "invalid choice"),
        (("--method", "unit-pruning", "--statistics", "m.npz"), "cuts the network on the way"),
    ],
)
def test_wrong_usage(folder: Path, capsys, words, message: str) -> None:
    before = files(folder)
    assert run(*words) == 2
    assert message in capsys.readouterr().err
    assert files(folder) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "none.npz"), "none.npz: no such file"),
        (("--data", "x.npy"), "--labels FILE.npy gives them"),
        (("--data", "x.npy", "--labels", "x.npy"), "expected one class per sample"),
        (("--augment", "spin"), "unknown augmentation 'spin'"),
        (("--augment", "flip"), "no input has four axes"),
        (("--device", "cuda"), "torch sees no CUDA device"),
        (("--checkpoint", "run.pt", "--resume"), "run.pt: no such checkpoint"),
        (("--learning-rate", 1e30, "--optimizer", "sgd"), "take a lower one (--learning-rate)"),
    ],
)
def test_what_is_refused(folder: Path, capsys, words, message: str) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    before = files(folder)
    assert run(*QUICK, *words) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert files(folder) == before


def test_a_model_that_cannot_be_trained_is_refused_with_the_operator(folder: Path, capsys) -> None:
    onnx.save(small(PLAIN.replace("Relu", "com.example.Magic")), "magic.onnx")
    assert run(*QUICK, model="magic.onnx") == 1
    assert "no gradient is known here for com.example.Magic" in capsys.readouterr().err


def test_without_torch_it_says_what_to_install(folder: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from onnxprune.cli import main\n"
        "sys.exit(main(['train', 'in.onnx', 'out.onnx', '--data', 'train.npz']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install torch, or this package with its extra [train]" in done.stderr
    assert not Path("out.onnx").exists()


def test_flags_state_the_settings() -> None:
    parser = command.parser()
    given = parser.parse_args(["a.onnx", "b.onnx", "--data", "d.npz"])
    assert command.options(given) == TrainOptions(progress=True)
    words = ["--time", "10m", "--checkpoint-every", "1h", "--validation", "v.npz"]
    given = parser.parse_args(["a.onnx", "b.onnx", "--data", "d.npz", *words])
    found = command.options(given)
    assert (found.seconds, found.checkpoint_seconds) == (600.0, 3600.0)
    assert found.validation == "v.npz"


def test_no_flag_is_taken_for_one_of_torchrun_s() -> None:
    """It looks at all words, and takes a flag for what it is the beginning of."""
    from torch.distributed.run import get_args_parser

    own = {flag for action in COMMANDS["train"].parser()._actions for flag in action.option_strings}
    theirs = {flag for action in get_args_parser()._actions for flag in action.option_strings}
    shared = {flag for flag in own for other in theirs if other.startswith(flag)}
    assert shared <= {"-h", "--help"}


def test_pruning_and_help_import_no_torch() -> None:
    script = (
        "import sys; from onnxprune.cli import train; train.parser().format_help();"
        "train.options(train.parser().parse_args(['a', 'b', '--data', 'd']));"
        "print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout == "False\n", shown.stderr


def test_a_training_that_is_interrupted_says_how_to_go_on(folder: Path, capsys) -> None:
    Path("own.py").write_text(
        "CALLS = []\n"
        "def change(feed):\n"
        "    CALLS.append(1)\n"
        "    if len(CALLS) == 15:\n"
        "        raise KeyboardInterrupt\n"
        "    return feed\n"
    )
    words = ("--augment", "own.py:change", *QUICK)
    assert run(*words) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert run(*words, "--checkpoint", "run.pt") == 130
    assert "interrupted; go on from run.pt with --resume" in capsys.readouterr().err
    assert not Path("out.onnx").exists()
    assert run(*words, "--checkpoint", "run.pt", "--resume") == 0
    assert Path("out.onnx").exists()


# --- processes ----------------------------------------------------------------------------------

KILLER = """
import os, signal
import numpy as np
CALLS = 0
def change(feed, rng):
    global CALLS
    CALLS += 1
    if CALLS == int(os.environ.get("KILL_AT", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": feed["x"] + 0.1 * rng.standard_normal(feed["x"].shape)}
"""


def started(*words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "onnxprune", "train", *map(str, words)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(folder: Path) -> None:
    """Killed by SIGKILL within an epoch; Dropout, running statistics and changes are random."""
    Path("own.py").write_text(KILLER)
    shared = ("in.onnx", "--data", "train.npz", "--augment", "own.py:change", "--epochs", 3)
    shared = (*shared, "--batch", 16, "--optimizer", "adamw")
    finished(started(*shared, "whole.onnx", "--history", "whole.csv"))
    checkpoint = ("--checkpoint", "run.pt", "--checkpoint-every", 0, "--history", "log.csv")
    killed = started(*shared, "out.onnx", *checkpoint, KILL_AT="17")
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not Path("out.onnx").exists()
    assert sorted(p.name for p in folder.glob(".*")) == []
    finished(started(*shared, "out.onnx", *checkpoint, "--resume"))
    assert Path("out.onnx").read_bytes() == Path("whole.onnx").read_bytes()
    rows, whole = read_history(Path("log.csv")), read_history(Path("whole.csv"))
    assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in whole]


def together(*words: object, count: int) -> list[str]:
    """Run processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    return [
        finished(process)
        for process in [
            started(*words, RANK=str(rank), LOCAL_RANK=str(rank), **where) for rank in range(count)
        ]
    ]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(folder: Path) -> None:
    """Batches of 15 are divided into 8 and 7; the gradient is that of the whole batch."""
    words = ("--data", "train.npz", "--epochs", 3, "--batch", 15, "--optimizer", "sgd")
    words = (*words, "--clip", 0.5, "--smoothing", 0.1)
    finished(started("plain.onnx", "one.onnx", *words, "--history", "one.csv"))
    said = together("plain.onnx", "two.onnx", *words, "--history", "two.csv", count=2)
    assert "validation accuracy" in said[0]
    assert said[1] == ""
    one, two, before = (initializers(f"{name}.onnx") for name in ("one", "two", "plain"))
    for name in ("w1", "b1", "w2", "b2"):
        assert np.abs(one[name] - before[name]).max() > 1e-2
        assert np.allclose(one[name], two[name], atol=1e-5), name
    for row, other in zip(
        read_history(Path("one.csv")), read_history(Path("two.csv")), strict=True
    ):
        assert row["train_accuracy"] == other["train_accuracy"]
        assert row["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-4)
