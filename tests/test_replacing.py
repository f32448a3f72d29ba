"""Files appear whole or not at all, even if the process is killed, and leave nothing behind."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from micro_models import MICRO_MODELS, build

from onnxprune import model as models
from onnxprune.errors import OnnxPruneError
from onnxprune.model import load, pending
from onnxprune.replacing import replacing, unnamed
from onnxprune.scratch import scratch_folder

OLD, NEW = MICRO_MODELS["Conv"](), MICRO_MODELS["Concat"]()
WRITERS = {"folder": replacing, "no name": unnamed}


def killed(work: Callable[[], object], after: float | None = None) -> int:
    """Run in a process of its own, which is killed after some seconds unless it kills itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the libraries have started
        child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write(model: onnx.ModelProto, path: Path, inside: Callable[[], object] = bool) -> None:
    with pending(model, path):
        inside()


@pytest.mark.parametrize("existing", [False, True])
def test_killed_while_it_is_checked_nothing_is_left(tmp_path, existing):
    path = tmp_path / "out.onnx"
    if existing:
        write(OLD, path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert killed(lambda: write(NEW, path, die)) == -signal.SIGKILL
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("call", ["replace", "link"])
@pytest.mark.parametrize("late", [False, True])
def test_killed_around_the_rename_the_old_or_the_new_is_there(tmp_path, call, late):
    path = tmp_path / "out.onnx"
    write(OLD, path)
    real = getattr(os, call)

    def planted(*arguments, **options):
        if late:
            real(*arguments, **options)
        die()

    def work():
        setattr(os, call, planted)
        write(NEW, path)

    assert killed(work) == -signal.SIGKILL
    assert load(path) == (NEW if late and call == "replace" else OLD)
    write(NEW, path)  # clears away what the other could not
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    assert load(path) == NEW


@pytest.mark.parametrize("repeats", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_killed_at_any_time(tmp_path, repeats):
    path, rng = tmp_path / "out.onnx", random.Random(0)
    write(OLD, path)

    def work():
        while True:
            write(NEW, path)
            write(OLD, path)

    for _ in range(repeats):
        killed(work, rng.uniform(0.0, 0.03))
        assert load(path) in (OLD, NEW)
    write(OLD, path)
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_model_with_a_file_of_weights_never_reads_those_of_another(
    tmp_path, monkeypatch, number, late
):
    """Killed at each of the renames: of the weights inside, of the weights, of the model."""
    monkeypatch.setattr(models, "PROTOBUF_LIMIT", 1000)
    shapes = {"inputs": "float[N,64] x", "outputs": "float[N,64] y"}
    old, new = (build("y = MatMul(x, w)", {"w": (64, 64)}, seed=s, **shapes) for s in (0, 1))
    path = tmp_path / "out.onnx"
    write(old, path)
    real, calls = os.replace, iter(range(9))

    def planted(*arguments):
        due = next(calls) == number
        if not due or late:
            real(*arguments)
        if due:
            die()

    def work():
        os.replace = planted
        write(new, path)

    assert killed(work) == -signal.SIGKILL
    wanted = new if number == 2 and late else old
    assert weights(load(path)) == weights(wanted)
    write(new, path)
    assert weights(load(path)) == weights(new)
    assert len(list(tmp_path.iterdir())) == 2


def weights(model: onnx.ModelProto) -> list[bytes]:
    return [onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer]


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("what", ["a folder", "a device", "a link to a device"])
def test_only_files_are_replaced(tmp_path, writer, what):
    path = tmp_path / "out"
    if what == "a folder":
        path.mkdir()
    elif what == "a device":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(OnnxPruneError, match="would not be replaced"), writer(path):
        pytest.fail("it was let in")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path, writer):
    (tmp_path / "precious").write_text("precious")
    path = tmp_path / "out"
    path.symlink_to("precious")
    with writer(path) as temporary:
        temporary.write_text("new")
    assert not path.is_symlink()
    assert (path.read_text(), (tmp_path / "precious").read_text()) == ("new", "precious")


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_files_have_the_rights_that_the_user_wants(tmp_path, writer):
    before = os.umask(0o027)
    try:
        with writer(tmp_path / "out") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("lacking", ["files without names", "links to them"])
@pytest.mark.parametrize("existing", [False, True])
def test_file_systems_that_do_less_have_whole_files_too(tmp_path, monkeypatch, lacking, existing):
    def unknown(*_, **__):
        raise OSError(95, "Operation not supported")

    path = tmp_path / "out.onnx"
    if existing:
        write(OLD, path)
    if lacking == "links to them":
        monkeypatch.setattr(os, "link", unknown)
    else:
        monkeypatch.setattr("onnxprune.replacing._UNNAMED", None)
    write(NEW, path)
    assert load(path) == NEW
    with pytest.raises(KeyError):
        write(OLD, path, lambda: {}["failure"])
    assert load(path) == NEW
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_folders_in_use_stay_and_those_left_behind_go(tmp_path):
    used, remove = scratch_folder("spilled-", tmp_path)
    assert killed(lambda: (scratch_folder("spilled-", tmp_path), die())) == -signal.SIGKILL
    (tmp_path / "spilled-of-somebody-else").mkdir()
    assert len(list(tmp_path.iterdir())) == 3
    third, remove_third = scratch_folder("spilled-", tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {used.name, third.name, "spilled-of-somebody-else"}
    remove()
    remove_third()
    assert {p.name for p in tmp_path.iterdir()} == {"spilled-of-somebody-else"}


def test_on_a_file_system_without_locks_nothing_is_swept(tmp_path, monkeypatch):
    first, _ = scratch_folder("spilled-", tmp_path)

    def unknown(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    second, remove = scratch_folder("spilled-", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {first.name, second.name}
    remove()
    assert not second.exists()
