"""Whose fault it is when work on a model fails: its own, if it was not valid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError

from onnxprune.errors import OnnxPruneError, UnsupportedModelError
from onnxprune.runtime import Session


@contextmanager
def blamed(model: onnx.ModelProto) -> Iterator[None]:
    """Around work on a model: what fails in one that is not valid is the model's fault.

    Raises:
        UnsupportedModelError: something failed, and the model is not valid.
    """
    try:
        yield
    except (OnnxPruneError, MemoryError):
        raise
    except Exception as error:
        why = complaint(model)
        if not why:
            try:
                Session(model, optimization="none")
            except OnnxPruneError as refusal:
                why = str(refusal)
        if why:
            raise UnsupportedModelError(
                f"the model is not valid ONNX, so that nothing can be pruned: {why}; export it "
                "again, and see what onnx.checker.check_model(path, full_check=True) says"
            ) from error
        raise


def complaint(model: Path | onnx.ModelProto) -> str:
    """What the checker of onnx says against a model or a file of one, or nothing."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)
    except (ValueError, EncodeError):  # a model over 2 GB can only be checked as a file
        return ""
    return ""
