"""Timings kept between runs, in the user's cache folder.

A cache only saves time: one that cannot be read or written is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import platform
from pathlib import Path

from onnxprune.alignment import block_size
from onnxprune.cache_folder import cache_folder
from onnxprune.errors import OnnxPruneError
from onnxprune.replacing import replacing
from onnxprune.runtime import VERSION, Provider

LONGEST = 1e9
"""Milliseconds; a kernel that takes longer was not timed."""

_CPU_LIST = Path("/proc/cpuinfo")


class TimingCache:
    """Accumulator: milliseconds by what was timed.

    Args:
        path: the JSON file behind it; None to remember in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._times = {} if path is None else _read(path)
        self._new: dict[str, float] = {}

    def get(self, key: str) -> float | None:
        """The time under a key, if there is one."""
        return self._times.get(key)

    def put(self, key: str, time: float) -> None:
        """Remember a time."""
        self._times[key] = self._new[key] = time

    def save(self) -> None:
        """Write what is new beside what other runs have written by now."""
        if self._path is None or not self._new:
            return
        merged = _read(self._path) | self._new
        text = json.dumps(merged, indent=0, sort_keys=True)
        with contextlib.suppress(OSError, OnnxPruneError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        self._new = {}


def timing_cache(
    provider: Provider, threads: int | None, folder: str | Path | None = None
) -> TimingCache:
    """The timings of this machine, this onnxruntime, this provider and number of threads.

    Args:
        provider: where models run.
        threads: threads within one operator.
        folder: where the cache is; None for ``ONNXPRUNE_CACHE`` or the user's cache folder.
    """
    place = cache_folder() if folder is None else Path(folder)
    if place is None:
        return TimingCache()
    where = [VERSION, provider, str(threads or "all"), machine_name(), f"block{block_size()}"]
    name = "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in w) for w in where)
    return TimingCache(place / f"timings_{name}.json")


def timing_files(folder: Path) -> list[Path]:
    """The files of timings in a cache folder."""
    return sorted(folder.glob("timings_*.json"))


def machine_name() -> str:
    """The model of the processor, as far as the system says it."""
    with contextlib.suppress(OSError):
        for line in _CPU_LIST.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, float]:
    """What a file holds; nothing if it is not a table of times."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if _is_time(v)}


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= LONGEST
