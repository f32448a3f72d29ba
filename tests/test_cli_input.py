"""The command and its input: every kind of sample, and what is refused, with advice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import QUICK, files, finite, run, working_folder
from micro_models import build
from PIL import Image
from small_networks import digits

from onnxprune.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


SCRIPT = """
import numpy as np

def samples():
    for part in np.split(np.load("calib.npz")["input"], 6):
        yield {"input": part}
"""


@pytest.mark.parametrize("source", ["array.npy", "arrays", "feeds.py:samples", "stacks"])
def test_every_kind_of_source_gives_the_same_model(folder, source):
    images = digits()[:60]
    np.save("array.npy", images)
    Path("feeds.py").write_text(SCRIPT, encoding="utf-8")
    for name in ("arrays", "stacks"):
        Path(name).mkdir()
    for number, part in enumerate(np.split(images, 60)):
        np.save(f"arrays/{number:02}.npy", part[0])
    for number, part in enumerate(np.split(images, 4)):
        np.savez(f"stacks/{number}.npz", input=part)
    assert run(*QUICK, "-q") == 0
    assert run(*QUICK, "-q", "--calib", source, out="other.onnx") == 0
    assert (folder / "out.onnx").read_bytes() == (folder / "other.onnx").read_bytes()


@pytest.fixture
def images(folder) -> Path:
    """The digits as image files, which scaled by 1/255 are nearly what they were."""
    (folder / "images").mkdir()
    for number, image in enumerate(digits()[:60, 0]):
        pixels = np.round(image * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
    return folder / "images"


def test_images_with_their_preprocessing(images, capsys):
    words = ("--calib", images, "--scale", 1 / 255, "--mean", "0", "--std", "1", "--resize", "8x8")
    assert run(*QUICK, *words, "--layout", "nchw") == 0
    said = capsys.readouterr().err
    assert "grey 8 x 8 nchw" in said
    assert "max 1" in said


def test_images_without_their_preprocessing_are_refused(folder, images, capsys):
    assert run(*QUICK, "--calib", images) == 1
    said = capsys.readouterr().err
    assert all(f in said for f in ("--mean", "--std", "--scale", "--layout", "--resize"))
    assert not (folder / "out.onnx").exists()


def test_a_preset_for_another_kind_of_image_is_refused(images, capsys):
    assert run(*QUICK, "--calib", images, "--preset", "imagenet") == 1
    said = capsys.readouterr().err
    assert "--mean (or --preset) has 3 values, but the model's channels are 1" in said


def broken_samples(folder: Path) -> None:
    images = digits()[:10]
    np.savez("name.npz", x=images)
    np.savez("extra.npz", input=images, labels=np.arange(10))
    np.savez("shape.npz", input=images[:, :, :4])
    np.savez("type.npz", input=(images * 16).astype(np.uint8))
    np.savez("nothing.npz", input=images[:0])
    spoilt = images.copy()
    spoilt[3, 0, 2, 2] = np.nan
    np.savez("nan.npz", input=spoilt)
    Path("cut.npz").write_bytes(Path("calib.npz").read_bytes()[:2000])
    Path("text.npy").write_text("hello", encoding="utf-8")
    Path("empty").mkdir()
    Path("mixed").mkdir()
    np.save("mixed/a.npy", images)
    Image.new("L", (8, 8)).save("mixed/b.png")
    Path("feeds.py").write_text(
        "def fails():\n    raise RuntimeError('boom')\n\ndef none():\n    return iter(())\n",
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("missing.npz", ("missing.npz: no such file or folder", "expected a .npz")),
        ("name.npz", ("'x'", "the model's inputs are 'input'", "rename")),
        ("extra.npz", ("'labels'", "remove 'labels'")),
        ("shape.npz", ("found samples of shape [1, 4, 8], expected [1, 8, 8]",)),
        ("type.npz", ("found type uint8, expected float32", "preprocess")),
        ("nothing.npz", ("at least one sample",)),
        ("nan.npz", ("nan.npz, sample 3", "1 of 64 values are NaN or Inf")),
        ("cut.npz", ("cut.npz: cannot be read", "save it again")),
        ("text.npy", ("text.npy: cannot be read", "save it again")),
        ("empty", ("empty: holds no samples", "expected a .npz")),
        ("mixed", ("mixed: holds samples of several kinds", "keep one kind")),
        ("feeds.py", ("name the function", "feeds.py:function")),
        ("feeds.py:other", ("no function named 'other'",)),
        ("feeds.py:fails", ("raised RuntimeError in line 2: boom", "correct the script")),
        ("feeds.py:none", ("yielded no samples",)),
        ("missing.py:samples", ("missing.py: no such file",)),
        ("in.onnx", ("found a file of another kind",)),
    ],
)
def test_bad_samples_are_refused_with_advice(folder, capsys, source, parts):
    broken_samples(folder)
    before = files(folder)
    assert run(*QUICK, "--calib", source) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("onnxprune: ")
    for part in parts:
        assert part in line
    assert files(folder) == before


def test_image_flags_for_arrays_are_refused(folder, capsys):
    assert run(*QUICK, "--mean", "0.5") == 1
    assert "leave the flags away" in capsys.readouterr().err


def broken_models(folder: Path) -> None:
    data = Path("in.onnx").read_bytes()
    Path("empty.onnx").touch()
    Path("text.onnx").write_text("not a model\n", encoding="utf-8")
    Path("cut.onnx").write_bytes(data[:-1000])
    quantised = build(
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Gemm (d, w)",
        {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "w": (6, 5)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )
    onnx.save(quantised, "quantised.onnx")
    single = build("y = Gemm (x, w)", {"w": (6, 5)}, inputs="float[N,6] x", outputs="float[N,5] y")
    onnx.save(single, "single.onnx")
    unknown = build(
        "h = Gemm (x, w) y = com.example.Strange (h)",
        {"w": (6, 5)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )
    onnx.save(unknown, "unknown.onnx")


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("missing.onnx", "missing.onnx: no such file"),
        ("empty.onnx", "empty.onnx: the file holds no ONNX graph"),
        ("text.onnx", "text.onnx: not a readable ONNX model"),
        ("cut.onnx", "cut.onnx: not a readable ONNX model"),
        ("calib.npz", "calib.npz: not a readable ONNX model"),
        ("quantised.onnx", "prune the float model first, then quantise it"),
        ("single.onnx", "nothing in the model can be pruned ('Gemm_0': graph output 'y')"),
        ("unknown.onnx", "no channel rule for Strange"),
    ],
)
def test_models_that_cannot_be_pruned_are_refused(folder, capsys, model, part):
    broken_models(folder)
    before = files(folder)
    assert run(*QUICK, model=model) == 1
    assert part in capsys.readouterr().err
    assert files(folder) == before


def test_a_model_named_like_a_command(folder):
    shutil.copy("in.onnx", "apply")
    assert run(*QUICK, "-q", model="./apply") == 0
    assert finite("out.onnx")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--target", "macs"), "'macs' is not a target; write for example macs=0.5"),
        (("--target", "macs=0"), "target macs must be a number above 0"),
        (("--target", "ratio=1"), "below 1, not 1"),
        (("--target", "flops=0.5"), "unknown target 'flops' (macs:"),
        (("--align", "x"), "argument --align: write auto or a number, not 'x'"),
        (("--align", "0"), "at least 1, not 0"),
        (("--batch", "0"), "at least 1, not 0"),
        (("--num-samples", "-3"), "a whole number from 1, not '-3'"),
        (("--seed", "-1"), "seed must not be negative"),
        (("--include", "("), "'(' is not a regular expression"),
        (("--criterion", "best"), "invalid choice: 'best'"),
        (("--provider", "gpu"), "invalid choice: 'gpu'"),
        (("--mean", "a,b"), "argument --mean: write a number, or one per channel"),
        (("--resize", "224"), "argument --resize: write height and width as 224x224"),
        (("--std", "0"), "--scale and --std must not be 0"),
        (("-q", "-v"), "not allowed with argument"),
        (("--plan", "out.onnx"), "--plan would overwrite OUT, out.onnx; name another file"),
        (("--plan", "plan.npz"), "--plan's weights would overwrite --plan, plan.npz"),
        (("--plan", "calib.json"), "--plan's weights would overwrite --calib, calib.npz"),
        (("--report", "in.onnx"), "--report would overwrite IN, in.onnx"),
        (("--report", "a.json", "--plan", "a.json"), "--plan would overwrite --report"),
        (("--report", "a.json", "--report", "a.json"), "--report 2 would overwrite --report"),
        (("--report", "a.txt"), "--report a.txt: name a file that ends in .json or .html"),
        (("--report", "sub"), "sub is a folder; name a file"),
        (("--unknown",), "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_usage_says_what_is_wrong(folder, capsys, words, part):
    (folder / "sub").mkdir()
    before = files(folder)
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert part in said.err.splitlines()[-1]
    assert files(folder) == before


@pytest.mark.parametrize("words", [[], ["in.onnx"], ["in.onnx", "out.onnx"], ["apply", "in.onnx"]])
def test_missing_words_are_wrong_usage(folder, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "the following arguments are required" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["in.onnx", "./in.onnx", "link.onnx", "hard.onnx"])
def test_the_input_is_never_the_output(folder, capsys, out):
    os.symlink("in.onnx", "link.onnx")
    os.link("in.onnx", "hard.onnx")
    before = files(folder)
    assert run(*QUICK, out=out) == 2
    assert "OUT would overwrite IN" in capsys.readouterr().err
    assert files(folder) == before
