"""What the numerics decide: a *plan* says what to cut, *weights* are what recovers it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.array_archive import read_archive
from onnxprune.arrays import Array
from onnxprune.errors import PlanMismatchError
from onnxprune.replacing import explained, replacing

FORMAT = 2
_NUMBERS = "biufV"
"""Kinds of NumPy's types that weights may have; V is how it saves those that it does not know."""
_NAMES = ("name", "section", "initializer", "plan")
"""Arrays of a file of weights that hold words."""
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class Keep:
    """The edit "of this group's units, keep these".

    Attributes:
        group: the group's name.
        keep: the sorted units that survive.
        size: the group's number of units before the edit.
    """

    group: str
    keep: tuple[int, ...]
    size: int

    def __post_init__(self) -> None:
        wrong = _wrong_units(self.keep, self.size)
        if wrong:
            raise PlanMismatchError(
                f"group '{self.group}': keep must be sorted, without repeats and within "
                f"0..{self.size - 1}, but {wrong}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"type": "keep", "group": self.group, "size": self.size, "keep": list(self.keep)}


def _wrong_units(keep: Sequence[int], size: int) -> str:
    """What is wrong with the units that an edit keeps; empty if nothing is."""
    if not keep:
        return "it is empty: a group keeps at least one channel"
    outside = [unit for unit in keep if not 0 <= unit < size]
    if outside:
        return f"it has {outside[0]}"
    for before, after in itertools.pairwise(keep):
        if after == before:
            return f"it has {after} twice"
        if after < before:
            return f"{after} follows {before}"
    return ""


@dataclass(frozen=True)
class Drop:
    """The edit "do without this residual section".

    Attributes:
        section: the section's name. Keeps of groups that go with it say nothing.
    """

    section: str

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"type": "drop", "section": self.section}


Edit = Keep | Drop


def _edit(given: Mapping[str, Any]) -> Edit:
    """The edit that JSON values state."""
    if given["type"] == "drop":
        return Drop(str(given["section"]))
    if given["type"] != "keep":
        raise ValueError(f"an edit of the unknown type '{given['type']}'")
    group, keep, size = given["group"], given["keep"], given["size"]
    if not isinstance(keep, list) or not all(type(number) is int for number in (*keep, size)):
        raise ValueError(f"group '{group}': keep is a list of whole numbers, and size is one")
    return Keep(str(group), tuple(keep), size)


@dataclass(frozen=True)
class Plan:
    """What to cut from one model: an ordered list of edits.

    Attributes:
        model: digest of the model the plan was made for.
        edits: the edits; groups and sections without one stay whole.
        record: what the run that made the plan measured, which ``apply`` writes into the model if
            neither edits nor weights are others since; empty for a plan that no run made.
    """

    model: str
    edits: tuple[Edit, ...]
    record: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def keeps(self) -> tuple[Keep, ...]:
        """The edits that keep some units of a group."""
        return tuple(edit for edit in self.edits if isinstance(edit, Keep))

    @property
    def drops(self) -> tuple[str, ...]:
        """Names of the sections that are dropped."""
        return tuple(edit.section for edit in self.edits if isinstance(edit, Drop))

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of what is cut, by which weights know their plan; the order does not count."""
        edits = sorted(json.dumps(edit.to_dict(), sort_keys=True) for edit in self.edits)
        return hashlib.sha256("\n".join(edits).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON.

        Raises:
            OnnxPruneError: it cannot be written.
        """
        edits = [edit.to_dict() for edit in self.edits]
        document: dict[str, Any] = {"format": FORMAT, "model": self.model, "edits": edits}
        if self.record:
            document["record"] = dict(self.record)
        with replacing(Path(path)) as temporary, explained(Path(path)):
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.

        Raises:
            PlanMismatchError: the file is not a plan of a format this version reads.
        """
        try:
            document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise PlanMismatchError(
                    f"{path}: a plan of format {document['format']}, made by another version of "
                    f"onnxprune; this one reads format {FORMAT}. Make the plan again with --plan"
                )
            record = {str(k): str(v) for k, v in document.get("record", {}).items()}
            edits = tuple(_edit(e) for e in document["edits"])
            return cls(str(document["model"]), edits, record)
        except PlanMismatchError as error:
            named = str(error).startswith(f"{path}: ")
            raise PlanMismatchError(str(error) if named else f"{path}: {error}") from error
        except _UNREADABLE as error:
            raise PlanMismatchError(
                f"{path}: not a readable plan ({error}); make it with --plan"
            ) from error


@dataclass(frozen=True)
class Weights:
    """Recovered weights of the maps a plan touches.

    They are consumers of channels that are cut, and projections whose outputs take over for those.

    Attributes:
        arrays: name -> (weight tensor in the model's layout, with all of its outputs
            and only the kept inputs; what to write as, or for a MatMul to add as, bias: shape
            (outputs,)).
        constants: name of a section that is dropped -> what is added in its place, shape
            (channels,), all channels of the sum; without one, nothing is.
        refined: name of an initializer of the pruned model -> the values that training has given
            it, whatever it held before; none without a refinement.
        plan: fingerprint of the plan they were recovered for; empty where that is not known.
    """

    arrays: Mapping[str, tuple[Array, Array]]
    constants: Mapping[str, Array] = field(default_factory=dict)
    refined: Mapping[str, Array] = field(default_factory=dict)
    plan: str = ""

    def save(self, path: str | Path) -> None:
        """Write the weights as .npz: two arrays per consumer, one per section and initializer.

        Raises:
            OnnxPruneError: they cannot be written.
        """
        flat: dict[str, Any] = {}
        for index, (name, (weight, bias)) in enumerate(self.arrays.items()):
            flat |= {f"name.{index}": name, f"weight.{index}": weight, f"bias.{index}": bias}
        for index, (name, constant) in enumerate(self.constants.items()):
            flat |= {f"section.{index}": name, f"constant.{index}": constant}
        for index, (name, values) in enumerate(self.refined.items()):
            flat |= {f"initializer.{index}": name, f"refined.{index}": values}
        if self.plan:
            flat["plan"] = self.plan
        where = Path(path)
        with replacing(where) as temporary, explained(where), temporary.open("wb") as file:
            np.savez(file, **flat)

    @classmethod
    def load(cls, path: str | Path) -> Weights:
        """Read weights.

        Raises:
            PlanMismatchError: the file does not hold weights.
        """
        try:
            file = read_archive(Path(path))
            count = sum(name.startswith("name.") for name in file)
            dropped = sum(name.startswith("section.") for name in file)
            refined = sum(name.startswith("initializer.") for name in file)
            plan = str(file["plan"]) if "plan" in file else ""
            if len(file) != 3 * count + 2 * dropped + 2 * refined + bool(plan):
                raise ValueError("it holds other arrays than names, weights and biases")
            for key, array in file.items():
                if array.dtype.kind not in _NUMBERS and key.partition(".")[0] not in _NAMES:
                    raise ValueError(f"{key} holds no numbers, but {array.dtype}")
            return cls(
                {
                    str(file[f"name.{i}"]): (file[f"weight.{i}"], file[f"bias.{i}"])
                    for i in range(count)
                },
                {str(file[f"section.{i}"]): file[f"constant.{i}"] for i in range(dropped)},
                {str(file[f"initializer.{i}"]): file[f"refined.{i}"] for i in range(refined)},
                plan,
            )
        except (OSError, ValueError, KeyError) as error:
            raise PlanMismatchError(
                f"{path}: not a readable weights file ({error}); make it with --plan"
            ) from error
