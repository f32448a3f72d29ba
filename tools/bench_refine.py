"""What refinement adds to pruned networks, by its time and by how many images it has.

    python tools/bench_refine.py [--network NAME ...] [--fraction F ...] [--minutes M ...]
                                 [--images N ...] [--changes NAME ...] [--draw N ...]
                                 [--provider cpu|cuda] [--test-images N] [--json FILE]
                                 [--table] [--plot]

Networks are pruned with 1 000 images of the train split, drawn at random from its first 4 000, and
refined on these or on all 4 000; as they are, or flipped and moved by up to four pixels
(``--changes images``). Labels are never used, and test images only report. A row has two
comparisons on the same test images: with the original, and with the pruned network before
refinement. Rows are appended as they come and never measured again; ``--table`` prints what is
there and ``--plot`` draws it beside the file.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from bench_curves import RESULTS, TEST_IMAGES, Subject, subject
from curve_methods import macs_of
from curve_rows import Counts, paired
from measurements import Measurement, record, recorded
from trained import NETWORKS, SHARED

from onnxprune import Options, Result, Target
from onnxprune.api import Pruner
from onnxprune.arrays import Array
from onnxprune.calibration import Split, split
from onnxprune.calibration.splits import MAX_SAMPLES
from onnxprune.canonical import canonicalise
from onnxprune.executor import InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.refinement import Budget, Refine
from onnxprune.refining import Refiner
from onnxprune.runtime import Provider

CHOSEN = ("resnet20_cifar10", "resnet56_cifar10", "vgg16_cifar10")
FRACTIONS = (0.5, 0.35)
MINUTES = (1.0, 5.0, 15.0)
PRUNED_ON = 1000
IMAGES = (PRUNED_ON, 4000)
CHANGES = {"none": (), "images": ("flip", "crop=4")}
QUIET = InProcess(progress=False)


@dataclass(frozen=True)
class Job:
    """One row to measure.

    Attributes:
        network: the network.
        fraction: of its MACs that pruning keeps.
        minutes: of refinement.
        images: that it is refined on.
        changes: how they are changed, a name in ``CHANGES``.
        draw: which images it is pruned on, and the seed of all that is random.
        provider: where it is pruned and refined.
    """

    network: str
    fraction: float
    minutes: float
    images: int
    changes: str
    draw: int
    provider: Provider = "cpu"


def jobs(given: argparse.Namespace) -> Iterator[Job]:
    """What was asked for; a pruned network is used for all that follows from it."""
    asked = (given.draw, given.network, given.fraction, given.images, given.changes, given.minutes)
    for draw, network, fraction, images, changes, minutes in itertools.product(*asked):
        yield Job(network, fraction, minutes, images, changes, draw, given.provider)


def inputs_of(name: str, images: int, draw: int) -> Array:
    """So many images of the train split; the first ones are the same for every number."""
    pool, _ = NETWORKS[name].images("train", IMAGES[-1])
    order = np.random.default_rng(draw).permutation(len(pool))
    return NETWORKS[name].inputs(pool[order[:images]])


@lru_cache(maxsize=1)
def pruner(name: str, draw: int, provider: Provider) -> Pruner:
    """A network with what was learnt of it."""
    options = Options(latency=False, seed=draw, provider=provider)
    made = Pruner(NETWORKS[name].model, inputs_of(name, PRUNED_ON, draw), options)
    made._ground.parts = parts_of(PRUNED_ON, draw)
    return made


def parts_of(images: int, draw: int) -> Split:
    """What the images are for: those that pruning has not seen choose, and teach if they are many.

    The images beyond those that networks are pruned on are as good as unseen; as many of them as
    are ever held out choose, and the images that chose before are learnt from.
    """
    parts = split(PRUNED_ON, draw).with_choice(draw)
    if images == PRUNED_ON:
        return parts
    more = np.arange(PRUNED_ON, images)
    choose, teach = more[:MAX_SAMPLES], more[MAX_SAMPLES:]
    return replace(parts, fit=np.concatenate([parts.fit, parts.choose, teach]), choose=choose)


@lru_cache(maxsize=1)
def pruned(
    name: str, fraction: float, draw: int, provider: Provider, tests: int
) -> tuple[Result, Array]:
    """A pruned network, and which test images it classifies correctly."""
    result = pruner(name, draw, provider).prune([Target("macs", fraction)])
    return result, subject(name, tests).classified(result.model)


def refiner_of(job: Job) -> Refiner:
    """What refines, on the images of a job."""
    model = NETWORKS[job.network].model
    options = Options(seed=job.draw, provider=job.provider)
    canonical = canonicalise(model)
    samples = open_samples(model, inputs_of(job.network, job.images, job.draw), options)
    parts = parts_of(job.images, job.draw)
    return Refiner(model, canonical, find_groups(canonical), samples, parts, options, QUIET)


def measure(job: Job, tests: int) -> Measurement:
    """One row."""
    made, before = pruned(job.network, job.fraction, job.draw, job.provider, tests)
    settings = Refine(Budget(seconds=60 * job.minutes), augment=CHANGES[job.changes])
    model, _, done = refiner_of(job).refine(made.model, made.plan, made.weights, settings)
    reference: Subject = subject(job.network, tests)
    after = reference.classified(model)
    return {
        **asdict(job),
        "macs": round(macs_of(model) / reference.cost[0], 4),
        "with_original": paired(reference.correct, after),
        "with_pruned": paired(before, after),
        **done.to_dict(),
    }


def missing(wanted: Iterator[Job], rows: Sequence[Measurement]) -> list[Job]:
    """The jobs that have no row yet, in order."""
    done = {job_of(row) for row in rows}
    return [job for job in wanted if job not in done]


def job_of(row: Measurement) -> Job:
    """What a row is of."""
    return Job(**{name: row[name] for name in Job.__dataclass_fields__})


def table(rows: Sequence[Measurement]) -> str:
    """Markdown: a line for each network, fraction and set of images, gains by minutes."""
    minutes = sorted({row["minutes"] for row in rows})
    heads = " | ".join(f"{m:g} min" for m in minutes)
    lines = [
        f"| network | provider | MACs | images | changed | original | pruned | {heads} |",
        "|---|---|---:|---:|---|---:|---:|" + "---:|" * len(minutes),
    ]
    kinds = dict.fromkeys(tuple(row[name] for name in KIND) for row in rows)
    for kind in kinds:
        own = [row for row in rows if kind == tuple(row[name] for name in KIND)]
        base = np.mean([Counts.of(row["with_original"]).base_accuracy for row in own])
        start = np.mean([Counts.of(row["with_pruned"]).base_accuracy for row in own])
        cells = [cell([row for row in own if row["minutes"] == m]) for m in minutes]
        network, provider, fraction, images, changes = kind
        head = f"| {network} | {provider} | {fraction:.0%} | {images} | {changes} |"
        lines.append(f"{head} {base:.1f} | {start:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


KIND = ("network", "provider", "fraction", "images", "changes")


def cell(rows: Sequence[Measurement]) -> str:
    """The points gained and their standard error on the same images; of draws the mean."""
    if not rows:
        return ""
    found = [Counts.of(row["with_pruned"]) for row in rows]
    gain = np.mean([counts.difference for counts in found])
    error = np.sqrt(np.mean([counts.standard_error**2 for counts in found]))
    return f"{gain:+.1f} ± {error:.1f}"


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table or draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=CHOSEN, default=CHOSEN)
    parser.add_argument("--fraction", nargs="+", type=float, default=FRACTIONS, metavar="F")
    parser.add_argument("--minutes", nargs="+", type=float, default=MINUTES, metavar="M")
    parser.add_argument("--images", nargs="+", type=int, choices=IMAGES, default=IMAGES)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=[*CHANGES])
    parser.add_argument("--draw", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--test-images", type=int, default=TEST_IMAGES, metavar="N")
    parser.add_argument("--json", type=Path, default=RESULTS / "refine.jsonl", metavar="FILE")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", action="store_true", help="only draw it, beside the file")
    given = parser.parse_args(words)
    if given.plot:
        import plot_refine

        plot_refine.draw(recorded(given.json), given.json.with_suffix(".svg"))
        return
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks and their images")
        for job in missing(jobs(given), recorded(given.json)):
            record(given.json, measure(job, given.test_images))
    print(table(recorded(given.json)))


if __name__ == "__main__":
    main()
