"""Training and layer pruning at once, beside training first and pruning then.

    python tools/bench_layer_pruning.py [--network NAME ...] [--json FILE] [--quick]
                                        [--table] [--plot]

Every network is trained as it is (*plain*) and with gates at several prices of a section (*gated*),
from the same start, on the same images for the same steps. For every gated network as many sections
are taken out of the plain one: at random, three times (*random*); at random before training, which
then goes on for as long (*random, then trained*); those of least damage by the package's trials,
the rest refitted in order (*onnxprune, sections*). The package also prunes the plain one to the
same MACs with ``--sections``, which narrows channels as well (*onnxprune --sections*). It has 1 000
train images without labels. Test images only report. Rows are appended as they come and never
measured again; plain networks are kept in ``build/``. ``--quick`` takes a fiftieth of the images
and a file of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from curve_rows import Counts, paired
from gated_subjects import SUBJECTS, Subject
from measurements import Measurement, record, recorded

from onnxprune import Options, Pruner, Target
from onnxprune.arrays import Array
from onnxprune.choice import Choice
from onnxprune.cost import parameter_count
from onnxprune.errors import OnnxPruneError
from onnxprune.finishing import Finisher
from onnxprune.train.gated_sections import GatedSection, gated_sections
from onnxprune.train.linear_skips import merge_skips, own_skips
from onnxprune.train.section_cut import without_sections
from onnxprune.train.training import TrainingResult, train

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "results" / "layer_pruning.jsonl"
QUICK = ROOT / "build" / "layer_pruning_quick.jsonl"
PLAIN = ROOT / "build" / "layer_pruning"
CALIBRATION = 1000
DRAWS = (0, 1, 2)


@dataclass(frozen=True)
class Job:
    """One row to measure.

    Attributes:
        network: name of the subject.
        kind: what is done to it.
        seed: of training.
        price: of a section; 0 for none.
        draw: which sections go at random.
    """

    network: str
    kind: str
    seed: int
    price: float = 0.0
    draw: int = 0

    def row(self) -> Measurement:
        """What tells rows apart."""
        return dict(vars(self))


def jobs(subject: Subject) -> Iterator[Job]:
    """The rows of a network."""
    for seed in subject.seeds:
        yield Job(subject.name, "plain", seed)
        for price in subject.prices:
            yield Job(subject.name, "gated", seed, price)
            if seed == subject.seeds[0]:
                for draw in DRAWS:
                    yield Job(subject.name, "random", seed, price, draw)
                if subject.retrained:
                    yield Job(subject.name, "random, then trained", seed, price)
                yield Job(subject.name, "onnxprune, sections", seed, price)
                yield Job(subject.name, "onnxprune --sections", seed, price)
        if subject.gradient is not None:
            yield Job(subject.name, "gated by gradient", seed, subject.gradient)


class Bench:
    """One network."""

    def __init__(self, subject: Subject, folder: Path, rows: Sequence[Measurement]) -> None:
        self._subject = subject
        self._folder = folder
        self._rows = list(rows)

    def measure(self, job: Job) -> Measurement:
        """A row, and what is needed for later ones."""
        start = time.perf_counter()
        measures = {
            "plain": self._plain,
            "gated": self._gated,
            "gated by gradient": self._gated,
            "random": self._random,
            "random, then trained": self._random_first,
            "onnxprune, sections": self._least_damage,
            "onnxprune --sections": self._same_macs,
        }
        model, more = measures[job.kind](job)
        before = self._subject.start(job.seed)
        row = {
            **job.row(),
            **paired(self._reference(job.seed), self._subject.correct(model)),
            "sections": len(gated_sections(before).found),
            "macs": round(self._subject.macs(model) / self._subject.macs(before), 4),
            "params": round(parameter_count(model) / parameter_count(before), 4),
            **more,
            "seconds": round(time.perf_counter() - start, 1),
        }
        self._rows.append(row)
        return row

    def wants(self, job: Job) -> bool:
        """Whether a row says anything: gates that cut nothing are beside nothing."""
        return job.kind in ("plain", "gated", "gated by gradient") or bool(self._gates(job)["cut"])

    @lru_cache(maxsize=8)  # noqa: B019 - there is one bench per network
    def _reference(self, seed: int) -> Array:
        return self._subject.correct(self._plain_model(seed))

    def _train(self, model: onnx.ModelProto, seed: int, **settings: Any) -> TrainingResult:
        options = replace(self._subject.options, seed=seed)
        if settings:
            options = replace(
                options,
                method="layer-pruning",
                method_settings={**self._subject.settings, **settings},
            )
        return train(model, self._subject.training(), options)

    def _plain(self, job: Job) -> tuple[onnx.ModelProto, Measurement]:
        model = self._train(self._subject.start(job.seed), job.seed).model
        self._folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, self._file(job.seed))
        return model, {"cut": []}

    def _file(self, seed: int) -> Path:
        return self._folder / f"{self._subject.name.split(',')[0]} {seed}.onnx"

    def _plain_model(self, seed: int) -> onnx.ModelProto:
        if not self._file(seed).is_file():
            self._plain(Job(self._subject.name, "plain", seed))
        return onnx.load(self._file(seed))

    def _gated(self, job: Job) -> tuple[onnx.ModelProto, Measurement]:
        estimator = "gradient" if job.kind == "gated by gradient" else "two-pass"
        result = self._train(
            self._subject.start(job.seed),
            job.seed,
            section_price=job.price,
            section_estimator=estimator,
        )
        rows = result.fitted.rows
        names = [column for column in rows[-1] if column.startswith("theta ")]
        return result.model, {
            "cut": [name.removeprefix("theta ") for name in names if (rows[-1][name] or 0) < 0.5],
            "executed": round(rows[-1]["executed"] or 0, 4),
            "steps": [int(row["step"] or 0) for row in rows],
            "theta": {
                name.removeprefix("theta "): [round(row[name] or 0, 3) for row in rows]
                for name in names
            },
        }

    def _some(self, model: onnx.ModelProto, job: Job) -> list[GatedSection]:
        """As many sections as the gates have cut, at random."""
        count = len(self._gates(job)["cut"])
        found = gated_sections(model).found
        rng = np.random.default_rng([job.seed, job.draw, count])
        return [found[i] for i in rng.permutation(len(found))[:count]]

    def _gates(self, job: Job) -> Measurement:
        """The row of the gated network that a job is compared with."""
        own = replace(job, kind="gated", draw=0)
        (row,) = (row for row in self._rows if Job(**key_fields(row)) == own)
        return row

    def _random(self, job: Job) -> tuple[onnx.ModelProto, Measurement]:
        model = self._plain_model(job.seed)
        some = self._some(model, job)
        cut = merge_skips(without_sections(model, some), own_skips(model, some))
        return cut, {"cut": [section.name for section in some]}

    def _random_first(self, job: Job) -> tuple[onnx.ModelProto, Measurement]:
        model = self._subject.start(job.seed)
        some = self._some(model, job)
        result = self._train(without_sections(model, some), job.seed)
        cut = merge_skips(result.model, own_skips(model, some))
        return cut, {"cut": [section.name for section in some]}

    @lru_cache(maxsize=1)  # noqa: B019 - there is one bench per network
    def _pruner(self, seed: int) -> Pruner:
        samples = {"input": self._subject.training()["input"][:CALIBRATION]}
        return Pruner(self._plain_model(seed), samples, Options(sections=True, latency=False))

    def _least_damage(self, job: Job) -> tuple[onnx.ModelProto, Measurement]:
        pruner = self._pruner(job.seed)
        damages = pruner._ground.chooser.drops
        cut = sorted(damages, key=damages.__getitem__)[: len(self._gates(job)["cut"])]
        choice = Choice(dict.fromkeys(cut, 0), {}, damages, None)
        model = self._plain_model(job.seed)
        gone = [section for section in gated_sections(model).found if section.name in cut]
        pruned = Finisher(pruner._ground).finish(choice, []).pruned
        return merge_skips(pruned, own_skips(model, gone)), {"cut": cut}

    def _same_macs(self, job: Job) -> tuple[onnx.ModelProto, Measurement]:
        target = Target("macs", min(self._gates(job)["macs"], 1.0))
        try:
            found = self._pruner(job.seed).prune([target])
        except OnnxPruneError as error:
            return self._plain_model(job.seed), {"cut": [], "refused": str(error)}
        return found.model, {"cut": list(found.plan.drops)}


def key_fields(row: Measurement) -> dict[str, Any]:
    """The fields of a row that tell it apart."""
    return {name: row[name] for name in Job.__dataclass_fields__}


def table(rows: Sequence[Measurement]) -> str:
    """Markdown: a table for each network; repetitions in one line."""
    parts = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        plain = [Counts.of(row).accuracy for row in own if row["kind"] == "plain"]
        lines = [
            f"### {network} (trained plainly {np.mean(plain):.1f})",
            "",
            "| | price | sections left | accuracy | difference | MACs | training MACs |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        groups: dict[tuple[float, str], list[Measurement]] = {}
        for row in own:
            if row["kind"] != "plain":
                groups.setdefault((row["price"], row["kind"]), []).append(row)
        lines += [_line(*key, group) for key, group in sorted(groups.items())]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(price: float, kind: str, rows: Sequence[Measurement]) -> str:
    counts = [Counts.of(row) for row in rows]
    left = sorted(row["sections"] - len(row["cut"]) for row in rows)
    of = rows[0]["sections"]
    span = f"{left[0]}" if left[0] == left[-1] else f"{left[0]} to {left[-1]}"
    difference = np.mean([count.difference for count in counts])
    error = np.sqrt(np.mean([count.standard_error**2 for count in counts]) / len(counts))
    executed = [row["executed"] for row in rows if "executed" in row]
    share = f"{np.mean(executed):.0%}" if executed else ""
    if any("refused" in row for row in rows):
        return f"| {kind} | {price:g} | {span} of {of} | refused | | | |"
    accuracy = np.mean([count.accuracy for count in counts])
    macs = np.mean([row["macs"] for row in rows])
    return (
        f"| {kind} | {price:g} | {span} of {of} | {accuracy:.1f} | {difference:+.1f} ± {error:.1f} "
        f"| {macs:.0%} | {share} |"
    )


def main() -> None:
    """Measure what is missing, then print the tables or draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=SUBJECTS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", action="store_true", help="only draw theta, beside the file")
    given = parser.parse_args()
    path = given.json or (QUICK if given.quick else FILE)
    if given.plot:
        import plot_layer_pruning

        plot_layer_pruning.draw(recorded(path), path.with_suffix(".svg"))
        return
    for name in [] if given.table else given.network or SUBJECTS:
        subject = SUBJECTS[name].quick() if given.quick else SUBJECTS[name]
        folder = PLAIN / "quick" if given.quick else PLAIN
        done = [row for row in recorded(path) if row["network"] == name]
        bench = Bench(subject, folder, done)
        known = [Job(**key_fields(row)) for row in done]
        for job in jobs(subject):
            if job not in known and bench.wants(job):
                record(path, bench.measure(job))
    print(table(recorded(path)))


if __name__ == "__main__":
    main()
