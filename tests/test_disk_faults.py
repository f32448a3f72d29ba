"""Full disks, forbidden folders and odd outputs: what was there stays, and the file is named."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import QUICK, files, run, working_folder

CALL = "import sys; from onnxprune import cli; raise SystemExit(cli.main(sys.argv[1:]))"
WORDS = ("in.onnx", "out.onnx", "--calib", "calib.npz", *QUICK, "--quiet")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("ONNXPRUNE_CACHE", "")
    found = working_folder(tmp_path / "work", monkeypatch)
    (found / "out.onnx").write_text("precious", encoding="utf-8")
    return found


def full(*words: str, limit: int) -> subprocess.CompletedProcess[str]:
    """The command where no file may grow beyond some bytes."""
    return subprocess.run(
        [sys.executable, "-c", CALL, *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "limit", "part"),
    [
        ((), 4096, "out.onnx: cannot be written (File too large)"),
        (("--max-memory", "1kB"), 100, "written); make room for temporary files"),
    ],
    ids=["output", "spilled"],
)
def test_a_full_disk(folder, words, limit, part):
    before = files(folder)
    done = full(*WORDS, *words, limit=limit)
    assert done.returncode == 1, done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert files(folder) == before
    assert [p.name for p in folder.iterdir() if p.is_dir()] == []
    assert list((folder.parent / "temporary").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_standard_output(folder):
    with Path("/dev/full").open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", CALL, "ops"], stdout=stream, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
def test_an_output_that_is_no_file(folder, capsys, what):
    out = folder / "odd"
    if what == "folder":
        out.mkdir()
    elif what == "pipe":
        os.mkfifo(out)
    else:
        out = Path("/dev/full")
    assert run(*QUICK, out=str(out)) in (1, 2)
    said = capsys.readouterr().err
    assert str(out) in said
    assert "name a file" in said
    assert out.exists()
    assert not out.is_file()


def test_a_folder_that_only_others_may_write(folder, capsys):
    """Root may write everywhere but to a file system that is read-only, as /proc and /sys are."""
    place = Path("/sys/out.onnx") if os.geteuid() == 0 else Path("/out.onnx")
    if not place.parent.exists():
        pytest.skip("no such folder")
    assert run(*QUICK, out=str(place)) == 1
    said = capsys.readouterr().err
    assert str(place) in said
    assert "cannot be written" in said


def test_samples_that_may_not_be_read(folder, capsys, monkeypatch):
    def forbidden(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", forbidden)
    np_file = folder / "other.npy"
    np_file.touch()
    assert run(*QUICK, "--calib", np_file) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_no_folder_for_temporary_files(folder, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder / "missing"))
    assert run(*QUICK, "--max-memory", "1kB") == 1
    assert "missing: cannot be written" in capsys.readouterr().err
