"""Workers: forked, limited in memory and time, and watched for what they touch.

A worker takes inputs one after another and says after each how far it is, so that one that a
native library takes down, or that never comes back, tells which input did it.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from fuzzing.targets import READERS, SECRET, Files
from onnxprune import array_archive, scratch
from onnxprune.errors import OnnxPruneError

MEMORY = 1 << 30
"""Bytes of address space that a worker may take beyond what the libraries take."""
ARCHIVES = 1 << 26
"""Bytes of memory that a worker believes there are when it unpacks an archive."""
CPU_SECONDS = 10
"""What one input may take, of the processor's time: other work on the machine does not count."""
SILENCE = 180
"""Seconds without a word from a worker after which it is ended."""
BATCH = 500
"""Inputs of one worker."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FORBIDDEN = ("os.system", "os.exec", "subprocess.Popen", "socket.connect", "pickle.find_class")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


@dataclass
class Outcome:
    """What came of some inputs.

    Attributes:
        counts: "ok", "refused", or a kind of finding -> how many inputs.
        findings: what, where and the number of the input, for every finding.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, kind: str, number: int, where: str = "", said: str = "") -> None:
        """Note one input."""
        self.counts[kind] += 1
        if kind not in ("ok", "refused"):
            finding = {"kind": kind, "number": number, "where": where, "said": said}
            self.findings.append(finding)


class OutOfTimeError(BaseException):
    """Raised by the alarm; nothing that catches errors catches it."""


class ForbiddenError(BaseException):
    """Something was touched that no input may make the package touch."""


def made(seed: int, target: str, number: int) -> Files:
    """The input of a number."""
    return READERS[target].make(Random(f"{seed}/{target}/{number}"))


def written(files: Files, folder: Path) -> Path:
    """Put an input into an empty folder, beside which lies what must not be read."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if "weights.bin" in files:
        (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
        (folder / "hard").mkdir()
    return folder


def run(seed: int, target: str, numbers: range) -> Outcome:
    """Run inputs in workers, as many of them as it takes."""
    outcome = Outcome()
    start = numbers.start
    while start < numbers.stop:
        start = _one_worker(seed, target, range(start, min(start + BATCH, numbers.stop)), outcome)
    return outcome


def _one_worker(seed: int, target: str, numbers: range, outcome: Outcome) -> int:
    """Run inputs in one worker until it ends; the first input that was not run."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place, tempfile.TemporaryFile() as said:
        progress = mmap.mmap(-1, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that the libraries have started
            child = os.fork()
        if not child:
            _work(seed, target, numbers, Path(place), progress, said.fileno())
        status = _waited(child, progress)
        reached = struct.unpack("q", progress[:8])[0]
        said.seek(0)
        for line in said.read().decode().splitlines():
            outcome.add(**json.loads(line))
    if status == 0:
        return numbers.stop
    number = numbers.start + reached
    ended = -os.waitstatus_to_exitcode(status)
    kind = "hang" if ended == signal.SIGKILL else f"signal {ended}" if ended > 0 else "forbidden"
    outcome.add(kind, number)
    return number + 1


def _waited(child: int, progress: mmap.mmap) -> int:
    """The status a worker ends with; one that is silent for long is ended."""
    heard, last = time.monotonic(), progress[:8]
    pause = 0.002
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if progress[:8] != last:
            heard, last = time.monotonic(), progress[:8]
        if time.monotonic() - heard > SILENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _work(
    seed: int, target: str, numbers: range, place: Path, progress: mmap.mmap, said: int
) -> None:
    """The life of a worker."""
    code = 3
    try:
        faulthandler.disable()
        warnings.simplefilter("ignore")
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)  # native libraries complain there
        (place / "outside.bin").write_bytes(SECRET)
        folder = place / "folder"
        _limit()
        signal.signal(signal.SIGPROF, _ring)
        sys.addaudithook(Watch(place))
        for step, number in enumerate(numbers):
            progress[:8] = struct.pack("q", step)
            kind, where, text = attempt(made(seed, target, number), target, folder)
            line = {"kind": kind, "number": number, "where": where, "said": text}
            os.write(said, (json.dumps(line) + "\n").encode())
            if sorted(os.listdir(place)) not in (["outside.bin"], ["folder", "outside.bin"]):
                raise ForbiddenError(f"files in {place}: {os.listdir(place)}")
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    finally:
        os._exit(code)


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    array_archive.memory = lambda: ARCHIVES


def _ring(_: int, __: FrameType | None) -> None:
    raise OutOfTimeError


def attempt(files: Files, target: str, folder: Path) -> tuple[str, str, str]:
    """Run one input: what came of it, where, and what was said."""
    folder.mkdir()
    try:
        written(files, folder)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            READERS[target].read(folder)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return "ok", "", ""
    except OnnxPruneError as error:
        return ("refused", "", "") if str(error).strip() else ("no message", _place(error), "")
    except OutOfTimeError as error:
        return "slow", _place(error), ""
    except MemoryError as error:
        return "memory", _place(error), str(error)[:300]
    except BaseException as error:
        return type(error).__name__, _place(error), str(error)[:300]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(error: BaseException) -> str:
    """Where an error was raised: the last lines of the package, and the very last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/onnxprune/" in f.filename]
    chain = [*own[-2:], *(frames[-1:] if frames and frames[-1] not in own else [])]
    return " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in chain)


class Watch:
    """An audit hook that raises where a worker touches what lies outside of its folder.

    Args:
        place: where it may write.
    """

    def __init__(self, place: Path) -> None:
        self._place = str(place)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See ``sys.addaudithook``."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not self._inside(path):
                raise ForbiddenError(f"{path} was opened for writing")
        elif event in CHANGES and not self._inside(arguments[0], arguments[-1]):
            raise ForbiddenError(f"{event} {arguments[0]}")
        elif event in FORBIDDEN:
            raise ForbiddenError(f"{event} {arguments[:2]}")

    def _inside(self, path: object, folder: object = -1) -> bool:
        if isinstance(path, int) or path is None:
            return True
        name = os.fsdecode(path) if isinstance(path, bytes) else str(path)
        if name.startswith("/proc/self/fd/"):  # a file without a name, in the folder it was made in
            name = os.readlink(name)
        if isinstance(folder, int) and folder >= 0:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
        whole = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        parts = Path(whole).relative_to("/").parts
        temporary = any(part.endswith(scratch.SUFFIX) for part in parts[:2])
        return whole.startswith(self._place) or temporary or whole in ("/dev/null", "/dev/shm")
