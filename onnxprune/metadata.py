"""What a pruned model says in ``metadata_props`` of where it comes from; the model's own stay.

The keys of ``KEYS`` are those of the last pruning. A model that is pruned again keeps those of the
prunings before in ``PREVIOUS``, a JSON list of objects with the same keys, the oldest first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx

PREFIX = "onnxprune."
KEYS = tuple(
    PREFIX + name
    for name in (
        "version",
        "source_sha256",
        "source_graph_sha256",
        "targets",
        "method",
        "settings_sha256",
        "plan_sha256",
        "recovered_layers",
        "samples",
        "source_macs",
        "macs",
        "source_params",
        "params",
        "relative_error",
    )
)
"""The keys of one pruning; those of what is not known are left out."""

PREVIOUS = PREFIX + "previous"
PLAN = PREFIX + "plan_sha256"
RECOVERED = PREFIX + "recovered_layers"
ORIGIN = tuple(PREFIX + name for name in ("version", "source_sha256", "source_graph_sha256"))
"""The keys that say what was pruned, and not how."""

RESERVED = 1024
"""Bytes by which a record makes a file larger, at most, unless its targets are many."""

Record = Mapping[str, str]


def records(model: onnx.ModelProto) -> list[dict[str, str]]:
    """What a model says of the prunings that made it, the oldest first; none for any other."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    last = {key: said[key] for key in KEYS if key in said}
    return [*_former(said.get(PREVIOUS)), *([last] if last else [])]


def _former(text: str | None) -> list[dict[str, str]]:
    """The records in a list of former ones; what is none stays, as a record of its own."""
    if text is None:
        return []
    try:
        found = json.loads(text)
    except ValueError:
        return [{PREVIOUS: text}]
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        return [{PREVIOUS: text}]
    return [{str(key): str(value) for key, value in entry.items()} for entry in found]


def own_entries(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """The entries that are not of a pruning, in order."""
    ours = {*KEYS, PREVIOUS}
    return [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in ours]


def stamp(model: onnx.ModelProto, record: Record) -> None:
    """Write the record of a pruning into a model, which has those of its original.

    Args:
        model: the pruned model; it is changed.
        record: some of ``KEYS`` with their values; nothing is written without any.
    """
    if not record:
        return
    own, former = own_entries(model), records(model)
    del model.metadata_props[:]
    entries = [*own, *((key, record[key]) for key in KEYS if key in record)]
    if former:
        entries.append((PREVIOUS, json.dumps(former, sort_keys=True)))
    for key, value in entries:
        model.metadata_props.add(key=key, value=value)


def record_for(record: Record, plan: str, layers: int) -> dict[str, str]:
    """A record as far as it is true of what a plan and weights make.

    Args:
        record: what a run has measured on its model; empty for no run.
        plan: SHA-256 of the edits that are made; those of the run may have been others.
        layers: layers whose recovered weights are written.

    Returns:
        All of it for the edits of the run with its weights, else only where the model comes from.
    """
    if record.get(PLAN) == plan and record.get(RECOVERED) == str(layers):
        return dict(record)
    kept = {key: record[key] for key in ORIGIN if key in record}
    return kept | {PLAN: plan, RECOVERED: str(layers)} if kept else {}
