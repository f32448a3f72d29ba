"""Predicted time equals that of the cut model, on a machine whose times are known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from fake_machine import BLOCK, REST, Machine
from micro_models import MICRO_MODELS, build
from micro_sections import RESIDUALS
from oracles import Subject
from small_networks import convolutions, perceptron, random_samples

from onnxprune.alignment import allowed_counts, useful_counts
from onnxprune.canonical import canonicalise
from onnxprune.latency_cost import latency_cost, latency_model
from onnxprune.latency_model import LatencyModel
from onnxprune.lattice import MAX_TIMINGS
from onnxprune.micro_model import MicroModel
from onnxprune.network import ChannelGroup
from onnxprune.plan import Drop, Plan
from onnxprune.rewrite import apply, digest
from onnxprune.section_search import find_sections

PADDED = "<pads=[1,1,1,1]>"


def deep(w1: int, w2: int, middle: str = "h = Relu(d)") -> onnx.ModelProto:
    """Conv 3 -> w1 -> w2 -> 4."""
    nodes = f"c = Conv {PADDED} (x, w1) r = Relu(c) d = Conv {PADDED} (r, w2) {middle}"
    weights = {"w1": (w1, 3, 3, 3), "w2": (w2, w1, 3, 3), "w3": (4, w2, 3, 3)}
    return build(f"{nodes} y = Conv {PADDED} (h, w3)", weights)


def split(w1: int, w2: int) -> onnx.ModelProto:
    """Two convolutions of one input, joined and read by a third."""
    nodes = f"c = Conv {PADDED} (x, w1) d = Conv {PADDED} (x, w2) h = Concat <axis=1> (c, d)"
    weights = {"w1": (w1, 3, 3, 3), "w2": (w2, 3, 3, 3), "w3": (4, w1 + w2, 3, 3)}
    return build(f"{nodes} y = Conv {PADDED} (h, w3)", weights)


def depthwise(width: int) -> onnx.ModelProto:
    middle = f"r = Relu(c) h = Conv <pads=[1,1,1,1], group={width}> (r, w3)"
    weights = {"w1": (width, 3, 3, 3), "b1": (width,), "w3": (width, 1, 3, 3)}
    return convolutions(middle, w2=(4, width, 3, 3), **weights)


def grouped(width: int, parts: int) -> onnx.ModelProto:
    middle = f"r = Relu(c) d = Conv <pads=[1,1,1,1], group={parts}> (r, w3) h = Relu(d)"
    weights = {"w1": (width, 3, 3, 3), "b1": (width,), "w3": (width, width // parts, 3, 3)}
    return convolutions(middle, w2=(4, width, 3, 3), **weights)


NETWORKS = {
    "narrow": convolutions(),
    "chain": deep(48, 80),
    "no whole blocks": deep(40, 72),
    "joined": split(24, 40),
    "outside the layout": deep(30, 50),
    "depthwise": depthwise(64),
    "grouped": grouped(96, 2),
    "perceptron": perceptron(50),
    "ConvTranspose": MICRO_MODELS["ConvTranspose"](),
}


def cut(subject: Subject, counts: np.ndarray) -> onnx.ModelProto:
    def keep(group: ChannelGroup, count: int) -> np.ndarray:
        own = [np.flatnonzero(group.parts == part) for part in range(group.part_count)]
        return np.sort(np.concatenate([part[: count // group.part_count] for part in own]))

    groups = subject.network.groups
    keeps = {g.name: keep(g, int(n)) for g, n in zip(groups, counts, strict=True)}
    return apply(subject.model, subject.plan(keeps))


def feed_of(subject: Subject, batch: int = 2) -> dict[str, np.ndarray]:
    return random_samples(subject.model, batch)


def predicted(subject: Subject, machine: Machine) -> LatencyModel:
    return latency_model(subject.network, subject.canonical, feed_of(subject), machine, BLOCK)


@pytest.mark.parametrize("drift", [1.0, 1.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_the_times_of_cut_models(name: str, drift: float) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    subject = Subject(NETWORKS[name])
    machine = Machine(drift=drift)
    model = predicted(subject, machine)
    sizes = np.array([group.size for group in subject.network.groups])
    wanted = [machine.whole(subject.canonical, feed_of(subject)).wall]
    rows = [sizes]
    for align in ("auto", 1, 1, 1):
        allowed = [
            allowed_counts(group, subject.network, align, BLOCK) for group in subject.network.groups
        ]
        rows.append(np.array([rng.choice(own) for own in allowed]))
        wanted.append(machine.whole(cut(subject, rows[-1]), feed_of(subject)).wall)
    assert model.full == pytest.approx(wanted[0])
    # all but the smooth times outside the layout are met exactly: their levels avoid multiples
    np.testing.assert_allclose(model(np.array(rows)), wanted, rtol=1e-6)
    assert model(np.array(rows)[None]).shape == (1, len(rows))
    assert machine.timed <= MAX_TIMINGS * len(subject.network.producers)


@pytest.mark.parametrize("name", ["post-activation", "nested", "projection"])
def test_a_dropped_section_takes_no_time(name: str) -> None:
    subject = Subject(RESIDUALS[name].build())
    sections = find_sections(subject.network, subject.canonical).found
    machine, feed = Machine(), feed_of(subject)
    model = latency_model(subject.network, subject.canonical, feed, machine, BLOCK, sections)
    sizes = np.array([group.size for group in subject.network.groups])
    for counts in (sizes, sizes // 2):
        rows = [np.append(counts, 1 - gone) for gone in np.eye(len(sections), dtype=np.int64)]
        left = canonicalise(cut(subject, counts))
        for section, row in zip(sections, rows, strict=True):
            without = apply(left, Plan(digest(left), (Drop(section.name),)))
            wanted = machine.whole(without, feed).wall
            assert float(model(row)) == pytest.approx(wanted)
            assert wanted < machine.whole(left, feed).wall
        assert model(np.array(rows)).tolist() == [float(model(row)) for row in rows]


def test_what_no_kernel_takes_stays() -> None:
    subject = Subject(convolutions())
    model = predicted(subject, Machine())
    assert REST < float(model(np.array([1]))) < model.full


def test_layers_too_fast_to_be_timed_are_left_to_the_rest() -> None:
    class Coarse(Machine):
        def layers(self, models: Sequence[MicroModel]) -> list[float]:
            return [0.0] * len(models)

    subject = Subject(perceptron(40))
    model = predicted(subject, Coarse())
    assert float(model(np.array([40]))) == pytest.approx(model.full)
    # what the record says they take goes with their multiply-accumulates
    assert float(model(np.array([20]))) == pytest.approx(REST + (model.full - REST) / 2)


def test_other_nodes_take_time_in_proportion() -> None:
    """A Relu of half the channels takes half the time."""
    subject = Subject(perceptron(40))
    machine = Machine(entry=0.01)
    model = predicted(subject, machine)
    for count in (40, 20, 7):
        wall = machine.whole(cut(subject, np.array([count])), feed_of(subject)).wall
        assert float(model(np.array([count]))) == pytest.approx(wall)


def test_layers_that_are_alike_are_timed_once() -> None:
    machine = Machine()
    predicted(Subject(deep(32, 32)), machine)
    keys = [model.key for model in machine.seen]
    twice = f"e = Conv {PADDED} (d, w4) h = Relu(e)"
    weights = {"w1": (32, 3, 3, 3), "w2": (32, 32, 3, 3), "w4": (32, 32, 3, 3), "w3": (4, 32, 3, 3)}
    nodes = f"c = Conv {PADDED} (x, w1) r = Relu(c) d = Conv {PADDED} (r, w2) {twice}"
    deeper = Machine()
    predicted(Subject(build(f"{nodes} y = Conv {PADDED} (h, w3)", weights)), deeper)
    assert [model.key for model in deeper.seen] == keys


def test_counts_outside_the_layout_are_timed_when_asked_for() -> None:
    subject, machine = Subject(deep(48, 80)), Machine()
    model = predicted(subject, machine)
    before = machine.timed
    model(np.array([[32, 64], [16, 80]]))
    assert machine.timed == before
    model(np.array([[33, 64]]))
    assert machine.timed > before


def test_useful_counts_are_the_tops_of_steps() -> None:
    subject = Subject(deep(48, 80))
    network = subject.network
    model = predicted(subject, Machine())
    fitting = [allowed_counts(group, network, "auto", BLOCK) for group in network.groups]
    first, second = useful_counts(model, fitting)
    assert first[first >= BLOCK].tolist() == [16, 32, 48]
    assert second[second >= BLOCK].tolist() == [16, 32, 48, 64, 80]
    assert first.tolist()[:2] == [5, 6]  # fewer channels than a block are read without steps


def test_counts_slower_than_larger_ones_are_of_no_use() -> None:
    """What is not a multiple of 4 takes 1.4 for each channel, the rest 1 for each of a block."""

    def cost(counts: np.ndarray) -> np.ndarray:
        tops = np.ceil(counts / BLOCK) * BLOCK
        return np.where(counts % 4, 1.4 * counts, tops).sum(axis=-1)

    (counts,) = useful_counts(cost, [np.arange(17, 65)])
    assert counts[counts > 32].tolist() == [33, 34, 48, 64]


def test_useful_counts_are_few_and_have_the_ends() -> None:
    allowed = [np.arange(10, 1001)]
    (counts,) = useful_counts(lambda c: np.sum(c, axis=-1), allowed)
    assert counts.size <= 64
    assert (counts[0], counts[-1]) == (10, 1000)
    (flat,) = useful_counts(lambda c: np.ones(c.shape[:-1]), allowed)
    assert flat.tolist() == [1000]


def test_counts_for_a_gpu_are_multiples_of_8() -> None:
    network = Subject(deep(48, 83)).network
    counts = [allowed_counts(group, network, "auto", gpu=True).tolist() for group in network.groups]
    assert counts == [list(range(8, 49, 8)), [*range(16, 81, 8), 83]]


def test_on_a_gpu_time_goes_in_steps_of_8() -> None:
    """No blocked layout: convolutions are timed at multiples of 8, or as they are."""
    subject, machine = Subject(deep(48, 83)), Machine()
    model = latency_model(subject.network, subject.canonical, feed_of(subject), machine, 0)
    widths = {shape for seen in machine.seen for shape in seen.constants[0][:2]}
    assert {width for width in widths if width > 8 and width % 8} == {83}
    one, other, next_step = model(np.array([[33, 41], [40, 48], [40, 49]]))
    assert one == other < next_step


def test_wider_convolutions_are_slower_here(tmp_path) -> None:
    """On this machine, whatever else it does: 128 channels take much longer than 16."""
    nodes = f"c = Conv {PADDED} (x, w1) h = Relu(c) y = Conv {PADDED} (h, w2)"
    weights = {"w1": (128, 128, 3, 3), "w2": (128, 128, 3, 3)}
    image = "float[N,128,24,24]"
    subject = Subject(build(nodes, weights, inputs=f"{image} x", outputs=f"{image} y"))
    model = latency_cost(
        subject.network, subject.canonical, feed_of(subject, 1), cache=str(tmp_path)
    )
    assert model.timed > 0
    narrow, wide = model(np.array([[16], [128]]))
    assert narrow < 0.5 * wide
    assert wide == pytest.approx(model.full, rel=0.01)
    again = latency_cost(
        subject.network, subject.canonical, feed_of(subject, 1), cache=str(tmp_path)
    )
    assert again.timed == 0
