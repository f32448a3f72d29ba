"""Which files of a folder make one data set: as ``datasets`` saves them, or of one split."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from onnxprune.errors import CalibrationError

SPLITS = ("train", "training", "test", "validation", "valid", "val", "dev", "eval")
_SHARD = re.compile(r"[-_.]\d+-of-\d+$")


def table_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Those of the files in a folder that make one data set.

    A folder that ``datasets`` saved says itself what belongs to it; results it keeps beside its
    files (``cache-*.arrow``) do not.

    Raises:
        CalibrationError: the folder holds several splits.
    """
    state = folder / "state.json"
    if state.is_file():
        return _saved(state)
    chosen = [path for path in files if not path.name.startswith("cache-")] or list(files)
    splits = {split: path for path in reversed(chosen) if (split := _split(folder, path))}
    if len(splits) > 1:
        some = ", ".join(sorted(splits))
        named = " or ".join(f"'{_one_split(folder, splits[split])}'" for split in sorted(splits))
        raise CalibrationError(f"{folder}: holds the splits {some}; name one of them: {named}.")
    return chosen


def _split(folder: Path, path: Path) -> str | None:
    """The split that a file belongs to by its name, or by that of its folder."""
    names = (_SHARD.sub("", path.stem), *path.relative_to(folder).parts[:-1])
    return next((split for name in names if (split := _split_in(name))), None)


def _split_in(name: str) -> str | None:
    return next((word for word in re.split(r"[-_.]", name.lower()) if word in SPLITS), None)


def _one_split(folder: Path, path: Path) -> Path:
    """What to write for the split of a file: a pattern of its shards, or their folder."""
    stem = _SHARD.sub("", path.stem)
    if _split_in(stem):
        return path if stem == path.stem else path.with_name(f"{stem}-*{path.suffix}")
    parts = path.relative_to(folder).parts
    return folder.joinpath(*parts[: 1 + [bool(_split_in(part)) for part in parts].index(True)])


def _saved(state: Path) -> list[Path]:
    """The files that ``save_to_disk`` lists."""
    try:
        listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        names = [str(entry["filename"]) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"{state}: not what `datasets` writes ({error}); save the data set again."
        ) from error
    if any(Path(name).name != name for name in names):
        raise CalibrationError(f"{state}: names files outside its folder; save the data set again.")
    if not names:
        raise CalibrationError(f"{state}: the data set is empty; at least one sample is needed.")
    return [state.parent / name for name in names]
