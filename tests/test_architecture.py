"""Which module may import which: the two halves never meet but in their records."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import onnxprune

PACKAGE = Path(onnxprune.__file__).parent
NUMERICS = (
    "allocation",
    "criteria",
    "gram",
    "layer_problem",
    "least_squares",
    "linalg",
    "merging",
    "methods",
    "normal_equations",
    "plan",
    "ranking",
    "reconstruction",
    "recovery",
    "scores",
)
GRAPH_HALF = (
    "attention",
    "canonical",
    "components",
    "concrete",
    "cost",
    "counts",
    "coupling",
    "decompose",
    "dropping",
    "einsums",
    "explicit",
    "external",
    "folding",
    "fused",
    "groups",
    "linear_map",
    "mac_terms",
    "metadata",
    "micro_model",
    "model",
    "movement",
    "network",
    "node_work",
    "partition",
    "probe",
    "projection",
    "recurrent_form",
    "recurrent_map",
    "rewrite",
    "rules",
    "scatters",
    "section_search",
    "sections",
    "segments",
    "shape_hints",
    "shape_values",
    "shape_writing",
    "shuffles",
    "stages",
    "stand_ins",
    "tails",
    "unpacking",
    "workbench",
)
STATISTICS = (
    "allocation",
    "criteria",
    "gram",
    "host_gram",
    "linalg",
    "merging",
    "methods",
    "reconstruction",
    "recovery",
    "regression",
    "scores",
    "sequential",
    "statistics",
)
GRAPH_LIBRARIES = ("onnx", "onnx_graphsurgeon", "onnxruntime")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, those inside functions and type checks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def belongs(name: str, to: str) -> bool:
    return name == to or name.startswith(f"{to}.")


def offences(sources: tuple[str, ...], targets: tuple[str, ...]) -> list[str]:
    """Modules of ``sources`` that import one of ``targets``."""
    return [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if any(belongs(module, source) for source in sources)
        for name in sorted(imports(path))
        if any(belongs(name, target) for target in targets)
    ]


def inside(*names: str) -> tuple[str, ...]:
    return tuple(f"onnxprune.{name}" for name in names)


def everything_but(*names: str) -> tuple[str, ...]:
    allowed = inside(*names)
    return tuple(m for m in MODULES if not any(belongs(m, name) for name in allowed))


def exactly(sources: tuple[str, ...], targets: tuple[str, ...]) -> list[str]:
    """As offences, for sources that are modules and not packages with all they hold."""
    return [
        f"{module} imports {name}"
        for module in sources
        for name in sorted(imports(MODULES[module]))
        if any(belongs(name, target) for target in targets)
    ]


def test_the_halves_exist() -> None:
    known = {module.removeprefix("onnxprune.") for module in MODULES}
    assert {*NUMERICS, *GRAPH_HALF, "runtime"} <= known


def test_the_numerics_know_no_graphs() -> None:
    assert offences(inside(*NUMERICS), GRAPH_LIBRARIES) == []
    assert offences(inside(*NUMERICS), inside(*GRAPH_HALF, "runtime")) == []


def test_the_graph_half_knows_no_statistics_and_no_numerics() -> None:
    assert offences(inside(*GRAPH_HALF), inside(*STATISTICS)) == []


@pytest.mark.parametrize("library", ["onnxruntime"])
def test_only_runtime_imports_onnxruntime(library: str) -> None:
    assert exactly(everything_but("runtime"), (library,)) == []
    assert exactly(inside("runtime"), (library,)) != []


def test_nobody_imports_the_outermost_modules() -> None:
    outermost = everything_but("cli", "olive", "__main__")
    entrances = tuple(m for m in outermost if m != "onnxprune")
    assert exactly(entrances, inside("api", "cli")) == []


def test_torch_stays_in_the_training_half() -> None:
    assert exactly(everything_but("train"), ("torch",)) == []


def test_only_the_pass_imports_olive() -> None:
    assert exactly(everything_but("olive.passes"), ("olive",)) == []
    assert exactly(inside("olive.passes"), ("olive",)) != []


def test_only_tables_of_samples_need_pyarrow() -> None:
    read = ("calibration.table_files", "calibration.table_store")
    tables = (*read, "calibration.table_columns")
    assert exactly(everything_but(*tables), ("pyarrow",)) == []
    assert exactly(everything_but(*tables), inside("calibration.table_columns")) == []
    loaded = [
        name
        for module in read
        for node in ast.parse(MODULES[f"onnxprune.{module}"].read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
    ]
    assert not any(name and "pyarrow" in name for name in loaded)  # only where a table is read


def test_the_loop_of_training_knows_no_method():
    loop = inside("train.fit", "train.evaluation", "train.network", "train.objective")
    others = inside("train.methods", "train.decorrelation", "train.gates", "train.layer_pruning")
    assert offences(loop, others) == []
    assert offences(loop, inside("train.method")) != []


FIGURES = ("curves", "figures", "frontier_figure", "histograms", "panels")


def test_only_figures_need_matplotlib_and_only_their_commands_need_figures() -> None:
    assert exactly(everything_but(*FIGURES), ("matplotlib",)) == []
    others = everything_but(*FIGURES, "cli.bench", "cli.plot", "cli.sweep")
    assert exactly(others, inside(*FIGURES)) == []


def test_only_the_page_imports_the_template_engine() -> None:
    for library in ("jinja2", "markupsafe"):
        assert exactly(everything_but("page"), (library,)) == []
        assert offences(inside("page"), (library,)) != []


def test_the_page_is_made_from_the_record_alone() -> None:
    runs = ("api", "cli", "model", "description", "outcome", "report", "runtime", "study")
    assert offences(inside("page"), inside(*runs)) == []


def test_there_is_no_module_for_leftovers() -> None:
    assert [
        p for p in PACKAGE.rglob("*.py") if p.stem in {"utils", "util", "helpers", "misc"}
    ] == []


def test_an_offence_would_be_seen() -> None:
    assert offences(inside("canonical"), ("onnx",)) != []
    assert offences(inside("rewrite"), inside("groups")) != []
