"""Which consumers are solved in order, at which cut, and what each needs there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build
from small_networks import behind_a_cut

from onnxprune.canonical import canonicalise
from onnxprune.full_size import FullSize
from onnxprune.groups import find_groups
from onnxprune.stages import Stage, stages_of

ONE = "<pads=[1,1,1,1]>"


def named(text: str, weights: dict[str, object], **options: object) -> onnx.ModelProto:
    """A model whose linear nodes bear the names of what they make."""
    model = build(text, weights, **options)  # type: ignore[arg-type]
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def staged(model: onnx.ModelProto, *changed: str) -> tuple[list[Stage], onnx.ModelProto]:
    """The stages if these consumers' weights change, and the model they are cuts of."""
    canonical = canonicalise(model)
    full, network = FullSize.of(canonical), find_groups(canonical)
    names = {full.slots[name].weight for name in changed}
    return stages_of(full.model, network, names), full.model


def sites(stages: list[Stage]) -> list[dict[str, tuple[str, ...]]]:
    return [{site.name: site.skips for site in stage.sites} for stage in stages]


def convs(*names: str, width: int = 4) -> dict[str, object]:
    return dict.fromkeys(names, (width, width, 3, 3))


CHAIN = named(
    f"a = Conv {ONE} (x, w0) r = Relu(a) b = Conv {ONE} (r, w1) s = Relu(b) c = Conv {ONE} (s, w2)"
    f" t = Relu(c) y = Conv {ONE} (t, w3)",
    {"w0": (4, 3, 3, 3)} | convs("w1", "w2", "w3"),
)


def test_a_chain_has_a_stage_for_every_consumer_behind_a_change():
    stages, _ = staged(CHAIN, "b")
    assert sites(stages) == [{"c": ()}, {"y": ()}]
    assert [stage.wanted for stage in stages] == [{"s"}, {"t"}]
    assert [stage.cut for stage in stages] == [4, 6]


def test_nothing_changed_is_no_stage():
    assert staged(CHAIN) == ([], staged(CHAIN)[1])


def test_what_lies_in_front_of_the_change_is_left_out():
    assert sites(staged(CHAIN, "c")[0]) == [{"y": ()}]
    assert sites(staged(CHAIN, "y")[0]) == []


def test_consumers_of_one_tensor_share_a_stage():
    """Queries, keys and values, and whatever else reads what is final there."""
    weights = {"w0": (6, 6), "w1": (6, 6), "wq": (6, 8), "wk": (6, 8), "wv": (6, 8), "wo": (8, 5)}
    model = named(
        "i = MatMul(x, w0) j = Relu(i) h = MatMul(j, w1) q = MatMul(h, wq) k = MatMul(h, wk)"
        " kt = Transpose <perm=[0,2,1]> (k) s = MatMul(q, kt) p = Softmax(s) v = MatMul(h, wv)"
        " o = MatMul(p, v) y = MatMul(o, wo)",
        weights,
        inputs="float[N,7,6] x",
        outputs="float[N,7,5] y",
    )
    stages, _ = staged(model, "h")
    assert sites(stages) == [{"q": (), "k": (), "v": ()}, {"y": ()}]


RESIDUAL = (
    f"i = Conv {ONE} (x, w0) a = Relu(i) b = Conv {ONE} (a, w1) c = Relu(b)"
    f" d = Conv {ONE} (c, w2) {{}} f = Relu(e) y = Conv {ONE} (f, w4)"
)


def residual(join: str) -> onnx.ModelProto:
    return named(RESIDUAL.format(join), {"w0": (4, 3, 3, 3)} | convs("w1", "w2", "w3", "w4"))


def test_the_last_layer_of_a_branch_takes_the_skip():
    stages, _ = staged(residual("e = Add(a, d)"), "i")
    assert sites(stages)[1:] == [{"d": ("a",)}, {"y": ()}]
    assert "a" in stages[1].wanted


@pytest.mark.parametrize("join", ["e = Add(g, d)", "e = Add(d, g)"])
@pytest.mark.parametrize("longer", ["", "k = Abs(a) l = Tanh(k) m = Neg(l) n = Sigmoid(m)"])
def test_the_later_of_two_branches_takes_the_others_error(join, longer):
    """Whichever is computed last takes over what the other is off, and not the other way."""
    source = "n" if longer else "a"
    stages, full = staged(residual(f"{longer} g = Conv {ONE} ({source}, w3) {join}"), "i")
    taken = {name: skips for stage in sites(stages) for name, skips in stage.items()}
    order = [node.name for node in full.graph.node if node.name in ("d", "g")]
    assert order == (["d", "g"] if longer else ["g", "d"])
    assert (taken[order[0]], taken[order[1]]) == ((), (order[0],))
    final = next(stage for stage in stages if order[1] in {site.name for site in stage.sites})
    assert order[0] in final.wanted
    assert final.cut > [node.name for node in full.graph.node].index(order[0])


def test_several_skips_in_a_row_are_taken():
    stages, _ = staged(residual("g = Add(d, a) e = Add(g, c)"), "i")
    assert {"d": ("a", "c")} in sites(stages)


@pytest.mark.parametrize(
    "join",
    [
        "g = Relu(d) e = Add(g, a)",  # something else is done with it before
        "e = Add(d, d)",
        "e = Add(d, a) h = Abs(d) f0 = Add(h, e)",  # somebody else reads it
        "e = Mul(d, a)",
    ],
)
def test_what_is_no_skip_is_not_taken(join):
    if "f0" in join:
        model = residual(join)
        model.graph.node[-2].input[0] = "f0"
    else:
        model = residual(join)
    taken = {name: skips for stage in sites(staged(model, "i")[0]) for name, skips in stage.items()}
    assert taken["d"] == ()


def test_a_consumer_that_reads_nothing_changed_but_is_added_to_it_is_solved():
    model = named(
        f"p = Conv {ONE} (x, w0) q = Relu(p) d = Conv {ONE} (q, w1) k = Abs(x) l = Tanh(k)"
        f" m = Neg(l) n = Sigmoid(m) e = Conv {ONE} (n, w3)"
        f" s = Add(d, e) t = Relu(s) y = Conv {ONE} (t, w2)",
        {"w0": (4, 3, 3, 3), "w3": (4, 3, 3, 3)} | convs("w1", "w2"),
    )
    assert sites(staged(model, "d")[0]) == [{"e": ("d",)}, {"y": ()}]


@pytest.mark.parametrize("name", ["tied MatMul without bias", "tied Conv, one after the other"])
def test_weights_that_several_nodes_share_are_left_out(name):
    model = behind_a_cut(MICRO_MODELS[name]())
    network = find_groups(canonicalise(model))
    (tied,) = [m.name for m in network.consumers.values() if len(m.sharers) > 1]
    first, *_, last = network.consumers
    solved = [site for stage in sites(staged(model, first)[0]) for site in stage]
    assert tied not in solved
    assert solved[-1] == last


def test_recurrences_are_left_out_and_inputs_of_recurrent_layers_are_not():
    known = [name for name in MICRO_MODELS if name.startswith(("LSTM", "GRU", "RNN"))]
    solved = set()
    for name in known:
        model = behind_a_cut(MICRO_MODELS[name]())
        (first,) = [node.name for node in canonicalise(model).graph.node if "x/w1" in node.input]
        for stage in staged(model, first)[0]:
            for site in stage.sites:
                assert not site.name.endswith("/recurrence")
                assert site.skips == ()
                solved.add(site.name)
    assert any("LSTM" in name for name in solved)


def test_no_stage_where_a_sequence_waits():
    model = named(
        "a = MatMul(x, w0) r = Relu(a) b = MatMul(r, w1) t = SplitToSequence <axis=1> (x, three)"
        " c = MatMul(b, w2) u = SequenceAt(t, one) d = Relu(c) e = MatMul(d, w3) y = Concat"
        " <axis=1> (e, u)",
        {"w0": (6, 8), "w1": (8, 6), "w2": (6, 8), "w3": (8, 5)}
        | {"three": np.array(3, np.int64), "one": np.array(1, np.int64)},
        inputs="float[N,6] x",
        outputs="float[N,K] y",
    )
    stages, full = staged(model, "b")
    kinds = [node.op_type for node in full.graph.node]
    if "SplitToSequence" in kinds:
        assert all(stage.cut <= kinds.index("SplitToSequence") or
                   stage.cut > kinds.index("SequenceAt") for stage in stages)  # fmt: skip
    assert [set(stage) for stage in sites(stages)] == [{"c"}, {"e"}]


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_stages_hold_what_stages_promise(name):
    """Cuts rise; what a stage wants is computed before it; every site reads something changed."""
    model = behind_a_cut(MICRO_MODELS[name]())
    canonical = canonicalise(model)
    full, network = FullSize.of(canonical), find_groups(canonical)
    places = {node.name: place for place, node in enumerate(full.model.graph.node)}
    first = min(full.slots, key=lambda n: places.get(n, len(places)))
    stages = stages_of(full.model, network, {full.slots[first].weight})
    born = {t: place for place, node in enumerate(full.model.graph.node) for t in node.output}
    cuts = [stage.cut for stage in stages]
    assert cuts == sorted(set(cuts))
    seen = []
    for stage in stages:
        assert all(born.get(tensor, -1) < stage.cut for tensor in stage.wanted)
        for site in stage.sites:
            assert stage.cut <= site.place
            node = network.consumers[site.name].node
            assert full.model.graph.node[site.place].name == node.name
            seen.append(site.name)
    assert len(seen) == len(set(seen))
    assert first not in seen


def test_a_consumer_with_no_place_to_cut_is_left_out(monkeypatch):
    monkeypatch.setattr("onnxprune.stages.forbidden_cuts", lambda _: {4})
    stages, _ = staged(CHAIN, "b")
    assert sites(stages) == [{"y": ()}]
    monkeypatch.setattr("onnxprune.stages.forbidden_cuts", lambda _: {5, 7})
    assert [stage.cut for stage in staged(CHAIN, "b")[0]] == [4, 6]
