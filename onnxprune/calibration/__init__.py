"""Calibration samples: any source a user has -> checked feeds for the model.

``load_calibration`` picks the reader (sources.py); a reader is a store of single samples
(arrays: stacks.py, array_files.py and items.py; images: image_folder.py; tables: table_*.py;
archives: shard_files.py; one per input: joined.py; with mirror images: mirrored.py);
``Calibration`` (feeds.py) puts samples together into batches the model accepts. Every mismatch is
found on loading and raised as a CalibrationError that names the file, the input, what was found
and what was expected.
"""

from __future__ import annotations

from onnxprune.calibration.feeds import Calibration
from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.mirrored import mirrored
from onnxprune.calibration.preprocessing import Preprocessing
from onnxprune.calibration.presets import IMAGENET, PRESETS
from onnxprune.calibration.sources import CalibrationSource, load_calibration
from onnxprune.calibration.splits import Split, split

__all__ = [
    "IMAGENET",
    "PRESETS",
    "Calibration",
    "CalibrationSource",
    "InputSpec",
    "Preprocessing",
    "Split",
    "load_calibration",
    "mirrored",
    "split",
]
