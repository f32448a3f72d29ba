"""The records that travel between the graph half and the numerics.

A *problem* goes in (what the numerics see of a network), a *plan* comes out (what to cut), and
the consumers' recovered *weights* stand beside it.
"""

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
from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.errors import PlanMismatchError
from onnxprune.replacing import explained, replacing

FORMAT = 2
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
class Targets:
    """Moments of targets y that a consumer is given instead of its own output W x + b.

    Attributes:
        cross: E[y x^T], shape (outputs, features + 1), the constant last.
        second: E|y|^2, summed over outputs.
    """

    cross: Matrix
    second: float


@dataclass(frozen=True)
class LayerProblem:
    """What the numerics see of one consumer: a linear map y = W x + b and the moments of x.

    A feature is one column of the weight matrix. Features are ordered entry by entry, ``taps`` of
    them for each entry of the consumer's input axis: feature = entry * taps + tap. One channel may
    own several entries (a flattened map) and, through its entries, a *block* of features.

    Attributes:
        name: the consumer's name; grouped convolutions have one problem per part.
        weight: array of shape (outputs, features + 1); the last column is the bias b, the weight
            of the constant feature 1.
        gram: E[x x^T] with the constant last, uncentred, over the images the solution is fitted
            on; shape (features + 1, features + 1).
        tune_gram: the same over images not used for ``gram``; features and ridge are chosen here.
        channels: array of shape (entries,); the network-wide channel index of every entry, -1
            for an entry that cannot be cut.
        taps: features per entry (the kernel's size for a convolution on patches, else 1).
        rows: how many rows of x stand behind ``gram``.
        tune_rows: how many behind ``tune_gram``; 0 where they must not be fitted on.
        zero_padded: whether some features read padding, so that a flat bias is wrong at borders.
        targets: over the rows of ``gram``, where they are not W x + b.
        tune_targets: over those of ``tune_gram``; given if ``targets`` are.
        refit: whether the weights can take over what is cut; if not, all of it is lost.
        variance: what prices are relative to; None for the variance of this map's own output.
    """

    name: str
    weight: Matrix
    gram: Matrix
    tune_gram: Matrix
    channels: IndexArray
    taps: int
    rows: int
    zero_padded: bool = False
    targets: Targets | None = None
    tune_targets: Targets | None = None
    tune_rows: int = 0
    refit: bool = True
    variance: float | None = None

    @property
    def cross(self) -> Matrix | None:
        """E[y x^T] of given targets, shape (outputs, features + 1)."""
        return None if self.targets is None else self.targets.cross


@dataclass(frozen=True)
class GroupProblem:
    """One channel group as a criterion sees it.

    Attributes:
        name: the group's name.
        channels: network-wide channel indices of the group's units, shape (units,); unit u of the
            group is channels[u]. Entries of a consumer that belong to other groups stay kept.
        parts: shape (units,); the balanced part of each unit: all parts keep equal counts.
            All zero for an ordinary group.
        consumers: the layers that read the group's channels.
        producer_weights: for each linear map that writes the group's channels, an array of shape
            (units, fan-in) with the weights that produce each unit (rows of zeros where a map
            does not write a unit).
    """

    name: str
    channels: IndexArray
    parts: IndexArray
    consumers: tuple[LayerProblem, ...]
    producer_weights: tuple[Matrix, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """The order in which a group's units are kept, and the price of every count.

    Attributes:
        order: permutation of range(units), most important first: the first k are the keep of size
            k. With balanced parts, every prefix whose length is a multiple of the number of parts
            has equal counts per part.
        error: shape (units + 1,); error[k] is the relative error of the consumers' outputs when
            the first k units are kept and the consumers are recovered: the sum over consumers of
            residual over variance of the output. error[units] = 0 and it never rises with k.
    """

    order: IndexArray
    error: Vector


def keep_of(ranking: Ranking, count: int) -> IndexArray:
    """The sorted units that survive when ``count`` of them are kept."""
    return np.sort(ranking.order[:count])


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
