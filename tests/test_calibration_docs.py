"""What the page on calibration samples shows is run, and its tables are those of the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from masked_networks import encoder, padded_tokens
from PIL import Image
from small_networks import MODELS, digits
from test_calibration_shards import npy, shard

from onnxprune import cli
from onnxprune.calibration import PRESETS, load_calibration
from onnxprune.calibration.sources import SUFFIXES
from onnxprune.cli import prune
from onnxprune.cli.run_settings import options
from onnxprune.inputs import input_specs

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "calibration.md").read_text(encoding="utf-8")
QUICK = ("--allocation", "uniform")
COUNT = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


LINES = [line.removeprefix("onnxprune ") for b in blocks("console") for line in b.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file that the page names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.onnx").symlink_to(MODELS / "mlp_digits.onnx")
    onnx.save(encoder(), "text.onnx")
    values = digits()[:COUNT]
    np.savez("samples.npz", input=values)
    np.save("samples.npy", values)
    for name in ("folder", "images", "shards", "saved_dataset", "sentences"):
        Path(name).mkdir()
    for number in range(3):
        part = values[40 * number : 40 * number + 40]
        np.save(f"folder/{number}.npy", part)
        shard(
            Path(f"shards/digits-{number:03}.tar"),
            {f"{i:03}.npy": npy(image) for i, image in enumerate(part)},
        )
    for number, image in enumerate(values):
        pixels = np.round(image[0] * 255).astype(np.uint8)
        Image.fromarray(pixels).save(f"images/{number:03}.png")
    Path("feeds.py").write_text(
        "import numpy\n\ndef samples():\n    yield {'input': numpy.load('samples.npy')}\n"
    )
    tokens = padded_tokens(9, 60)
    np.savez("tokens.npz", **tokens)  # type: ignore[arg-type]
    for name, array in tokens.items():
        np.save(f"{name}.npy", array)
    for number, length in enumerate(tokens["mask"].sum(axis=1)):
        own = {name: array[number : number + 1, :length] for name, array in tokens.items()}
        np.savez(f"sentences/{number:02}.npz", **own)  # type: ignore[arg-type]
    return tmp_path


def write_tables() -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    image = pa.list_(pa.list_(pa.list_(pa.float32())))
    cells = pa.array(digits()[:COUNT].tolist(), image)
    table = pa.table({"input": cells, "label": [0] * COUNT})
    parquet.write_table(table, "rows.parquet")
    for number in range(2):
        parquet.write_table(table.slice(60 * number, 60), f"rows-{number}.parquet")
    path = "saved_dataset/data.arrow"
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data.arrow"}]}
    Path("saved_dataset/state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("line", LINES)
def test_every_command_parses(line: str) -> None:
    given = prune.parser().parse_args(shlex.split(line))
    assert given.calib
    options(given)


@pytest.mark.slow
def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables()
    reports = {}
    for line in LINES:
        assert cli.main([*shlex.split(line), *QUICK, "--json", "--seed", "3"]) == 0, line
        said = capsys.readouterr()
        reports[line] = json.loads(said.out)
        assert "warning: " not in said.err or "tokens" in line or "ids" in line, line
        onnx.checker.check_model("out.onnx", full_check=True)
    # one file or another, the samples are the same, and so is what is kept
    alike = [line for line in LINES[:9] if "images" not in line]
    kept = [[group["keep"] for group in reports[line]["groups"]] for line in alike]
    assert len(kept) == 8
    assert all(one == kept[0] for one in kept[1:])


@pytest.mark.slow
def test_the_python_block_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks("python")
    exec(snippet, {})
    lines = capsys.readouterr().out.split()
    assert len(lines) == 6
    assert len(set(lines)) == 1


def test_the_first_lines_are_those_of_a_run(folder: Path) -> None:
    (shown,) = blocks("text")
    samples = load_calibration(
        "images", input_specs(onnx.load("in.onnx")), preprocessing=PRESETS["unit"].preprocessing
    )
    assert samples.summary() == shown.strip()


def test_the_tables_are_those_of_the_code() -> None:
    for name, preset in PRESETS.items():
        assert f"| `{name}` | {preset.what} | {preset.source} |" in PAGE
    for suffix in SUFFIXES:
        assert suffix == ".jpeg" or f"`{suffix}`" in PAGE
    flags = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert flags <= set(prune.parser()._option_string_actions)
