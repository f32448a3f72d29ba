"""What a Python object yields as samples, whichever library made it.

Only NumPy is imported. Tensors of other libraries are told by what they can do: PyTorch's are taken
from their device and their graph, TensorFlow's have a method ``numpy``, the others convert
themselves. Readers of onnxruntime have ``get_next``, data sets of NNCF ``get_inference_data``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.arrays import Array
from onnxprune.calibration.input_spec import InputSpec, check_holds
from onnxprune.errors import CalibrationError

PAIR = 2


def is_array(value: object) -> bool:
    """Whether a value is an array or a tensor of any library."""
    if isinstance(value, np.ndarray):
        return True
    converts = any(hasattr(value, name) for name in ("__array__", "numpy", "detach"))
    return converts and hasattr(value, "shape") and hasattr(value, "dtype")


def as_array(values: object, spec: InputSpec, where: str) -> Array:
    """The values as an array of NumPy.

    Raises:
        CalibrationError: they are none.
    """
    try:
        return np.asarray(_on_the_host(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CalibrationError(
            f"{where}, input {spec.name!r}: found {type(values).__name__}, which is not an array "
            f"({error}); expected {spec}."
        ) from error


def _on_the_host(values: Any) -> Any:
    if isinstance(values, np.ndarray) or not is_array(values):
        return values
    if callable(getattr(values, "detach", None)):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # which NumPy lacks
            values = values.float()
    return values.numpy() if callable(getattr(values, "numpy", None)) else values


def items_of(source: object, where: str) -> Iterator[object]:
    """The items of a stream of samples, from its start.

    Args:
        source: an iterable; a reader with ``get_next``, which returns None at its end and is
            rewound before and after if it can be; a data set with ``get_inference_data``; or a
            pair of any of these and a function that makes a sample of an item.
        where: what to call the source in messages.

    Raises:
        CalibrationError: it is none of these.
    """
    if isinstance(source, tuple) and len(source) == PAIR and callable(source[1]):
        items, transform = source
        return map(transform, items_of(items, where))
    if callable(getattr(source, "get_next", None)):
        return _read(source)
    inference_data = getattr(source, "get_inference_data", None)
    if callable(inference_data):
        return iter(inference_data())
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return iter(source)
    raise CalibrationError(
        f"{where}: found {type(source).__name__}, expected an array, a dictionary of arrays, or an "
        "iterable, a reader with get_next or a pair (iterable, transform) that gives such "
        "dictionaries, arrays or tuples of arrays."
    )


def _read(reader: Any) -> Iterator[object]:
    rewind: Callable[[], object] | None = getattr(reader, "rewind", None)
    if callable(rewind):
        rewind()
    yield from iter(reader.get_next, None)
    if callable(rewind):  # so that whoever quantises next finds it as it was
        rewind()


def named_item(item: object, inputs: Sequence[InputSpec], where: str) -> Mapping[str, object]:
    """The inputs in one item of a stream; what it holds beside them, such as labels, is left out.

    Args:
        item: a dictionary; a tuple or list of arrays in the order of the model's inputs; for a
            model with one input an array; or a tuple that starts with a dictionary.
        inputs: the model's inputs.
        where: what to call the item in messages.

    Raises:
        CalibrationError: an input is missing, or it is none of these.
    """
    if isinstance(item, tuple | list) and item and isinstance(item[0], Mapping):
        item = item[0]
    if isinstance(item, Mapping):
        check_holds(item, inputs, where)
        return item
    if isinstance(item, tuple | list) and item and is_array(item[0]):
        if len(item) < len(inputs):
            raise CalibrationError(
                f"{where}: found {len(item)} arrays for the model's {len(inputs)} inputs "
                f"({_names(inputs)}); give one for each, in this order, or a dictionary."
            )
        return {spec.name: values for spec, values in zip(inputs, item, strict=False)}
    if len(inputs) == 1 and (is_array(item) or isinstance(item, list)):
        return {inputs[0].name: item}
    raise CalibrationError(
        f"{where}: found {type(item).__name__}, expected a dictionary of arrays with the "
        f"keys {_names(inputs)}."
    )


def _names(inputs: Sequence[InputSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in inputs)
