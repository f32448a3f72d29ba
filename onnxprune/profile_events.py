"""onnxruntime's own record of a model's runs: which kernel ran where, and how long it took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import OnnxPruneError
from onnxprune.model_source import ModelSource
from onnxprune.runtime import Provider, Session
from onnxprune.scratch import scratch

_SUFFIX, _RUN = "_kernel_time", "model_run"


@dataclass(frozen=True)
class KernelEvent:
    """One run of one kernel, or of the whole model.

    Attributes:
        name: the kernel's; None for a run of the whole model, which follows those of its kernels.
        op: its operator.
        provider: the execution provider that ran it, as onnxruntime calls it.
        time: milliseconds. On a GPU a kernel is only launched in that time.
    """

    name: str | None
    op: str
    provider: str
    time: float


@contextmanager
def recording(
    model: ModelSource, provider: Provider, threads: int | None
) -> Iterator[tuple[Session, list[KernelEvent]]]:
    """A session, and the record of its runs once the block ends.

    Raises:
        OnnxPruneError: the record cannot be read.
    """
    events: list[KernelEvent] = []
    with scratch() as folder:
        session = Session(
            model,
            provider=provider,
            threads=threads,
            profile=folder / "kernels",
            deployed=True,
        )
        yield session, events
        events += _kernels(_read(session.end_profile()))


def _kernels(events: list[dict[str, Any]]) -> Iterator[KernelEvent]:
    for event in events:
        name, time = str(event.get("name", "")), float(event.get("dur", 0)) / 1000
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            facts = event.get("args", {})
            op, provider = (str(facts.get(key, "")) for key in ("op_name", "provider"))
            yield KernelEvent(name.removesuffix(_SUFFIX), op, provider, time)
        elif name == _RUN:
            yield KernelEvent(None, "", "", time)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return events
    except (OSError, ValueError) as error:
        raise OnnxPruneError(
            f"onnxruntime's record of kernel times cannot be read ({error}); latency targets and "
            "bench need it: make room for temporary files"
        ) from error
