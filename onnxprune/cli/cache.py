"""``onnxprune cache``: what is kept between runs, and how to get rid of it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from onnxprune.cache_folder import FOLDER_VARIABLE, cache_folder
from onnxprune.cli import arguments
from onnxprune.cli.json_output import show
from onnxprune.durations import spelled_age
from onnxprune.errors import OnnxPruneError
from onnxprune.statistics_cache import Entry, StatisticsCache
from onnxprune.tables import columns
from onnxprune.timing_cache import timing_files

EXAMPLES = f"""\
examples:
  onnxprune in.onnx half.onnx --calib samples.npz --target macs=0.5 --cache ~/.cache/onnxprune
  onnxprune in.onnx third.onnx --calib samples.npz --target macs=0.3 --cache ~/.cache/onnxprune
  onnxprune cache list
  onnxprune cache clear --older-than 30d
  onnxprune cache clear --max-size 500MB

Statistics of samples are kept only where --cache or {FOLDER_VARIABLE} names a folder; timings
of single layers are kept in the user's cache folder. Statistics are derived from the samples: who
may not have these should not have that folder.
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune cache",
        description="Show or remove what is kept between runs: statistics of samples, so that the "
        "same model is pruned to another target in less time, and timings of layers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shown = actions.add_parser("list", help="every entry, the one used last first")
    info = actions.add_parser("info", help="how much there is of what")
    clear = actions.add_parser("clear", help="remove statistics")
    path = actions.add_parser("path", help="print the folder")
    for action in (shown, info, clear, path):
        action.add_argument(
            "--cache",
            metavar="DIR",
            type=Path,
            help=f"the folder (default: ${FOLDER_VARIABLE}, or the user's cache folder)",
        )
    for action in (shown, info, clear):
        action.add_argument("--json", action="store_true", help="print a record")
    limit = clear.add_mutually_exclusive_group()
    limit.add_argument(
        "--older-than",
        metavar="TIME",
        type=arguments.seconds,
        default=0.0,
        help="only what was not used for so long, as 12h or 30d",
    )
    limit.add_argument(
        "--max-size",
        metavar="SIZE",
        type=arguments.memory,
        help="only what was used longest ago, until the rest is no larger",
    )
    clear.add_argument("--timings", action="store_true", help="remove all timings as well")
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Show or remove, and return the exit code."""
    folder = given.cache or cache_folder()
    if folder is None:
        raise OnnxPruneError(
            f"there is no cache folder: {FOLDER_VARIABLE} is empty, or there is no home; name one "
            "with --cache"
        )
    if given.action == "path":
        print(folder)
        return 0
    cache = StatisticsCache(folder, 0)
    lines, record = {"list": _list, "info": _info, "clear": _clear}[given.action](
        folder, cache, given
    )
    if given.json:
        show(record)
    else:
        print("\n".join(lines))
    return 0


Said = tuple[list[str], Any]
"""Lines of text, and JSON values that say the same."""


def _list(folder: Path, cache: StatisticsCache, _: argparse.Namespace) -> Said:
    now = time.time()
    rows, record = [], []
    for entry in cache.entries():
        about = entry.about() or {}
        age = max(0.0, now - about["created"]) if about else None
        rows.append(
            (
                f"{entry.bytes / 1e3:,.0f} kB",
                "damaged" if age is None else spelled_age(age),
                spelled_age(max(0.0, now - entry.used)),
                str(about.get("samples", "-")),
                entry.kind,
                str(about.get("graph", "-")),
                entry.path.name,
            )
        )
        shown = {"file": str(entry.path), "kind": entry.kind, "bytes": entry.bytes}
        record.append({**shown, "used": entry.used, **about})
    header = ("size", "age", "used before", "samples", "kind", "graph", "file")
    lines = columns([header, *rows], numbers=4) if rows else [f"{folder} holds no statistics"]
    return lines, record


def _info(folder: Path, cache: StatisticsCache, _: argparse.Namespace) -> Said:
    kinds: dict[str, list[int]] = {}
    for entry in cache.entries():
        kinds.setdefault(entry.kind, []).append(entry.bytes)
    kinds["timings"] = [path.stat().st_size for path in timing_files(folder)]
    total = sum(map(sum, kinds.values()))
    rows = [(kind, str(len(sizes)), f"{sum(sizes) / 1e6:,.2f} MB") for kind, sizes in kinds.items()]
    lines = [f"{folder}: {total / 1e6:,.2f} MB", *columns([("kind", "files", "size"), *rows])]
    record = {
        "folder": str(folder),
        "bytes": total,
        "kinds": {
            kind: {"files": len(sizes), "bytes": sum(sizes)} for kind, sizes in kinds.items()
        },
    }
    return lines, record


def _clear(folder: Path, cache: StatisticsCache, given: argparse.Namespace) -> Said:
    gone: list[Entry]
    if given.max_size is not None:
        gone = cache.trim(given.max_size)
    else:
        gone = cache.clear(given.older_than)
    left = {entry.path for entry in cache.entries()}
    timings = list(timing_files(folder)) if given.timings else []
    for path in timings:
        path.unlink(missing_ok=True)
    stayed = [entry.path for entry in gone if entry.path in left]
    if stayed:
        raise OnnxPruneError(f"{stayed[0]}: cannot be removed; is the folder yours?")
    count, freed = len(gone) + len(timings), sum(entry.bytes for entry in gone)
    files = f"{count} file{'s' * (count != 1)}"
    return [f"{files} removed, {freed / 1e6:,.2f} MB of statistics"], {
        "removed": count,
        "bytes": freed,
    }
