"""The only importer of onnxruntime: sessions, providers, errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from onnxprune.arrays import Array, Feed
from onnxprune.errors import CalibrationError, OnnxPruneError, UnsupportedModelError
from onnxprune.flavours import check_flavours
from onnxprune.model_source import ModelSource, loadable, proto
from onnxprune.widening import widened

Provider = Literal["cpu", "cuda", "tensorrt"]
Optimization = Literal["none", "basic", "extended", "all"]

_EXECUTION_PROVIDERS: dict[Provider, list[str]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}

# By default products have ten bits of mantissa on a GPU, too few for Gram matrices, and every
# session tries all algorithms of each convolution first, for each shape of its input.
_FOR_NUMBERS: dict[str, dict[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
}

_FATAL = 4  # log severity: everything below is raised as an exception anyway


check_flavours()
# From 1.29 on it reports to its makers over the network unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # noqa: E402 - the check above explains a failing import
from onnxruntime.capi import onnxruntime_pybind11_state as _state  # noqa: E402

VERSION = str(onnxruntime.__version__)

# graphsurgeon folds constants in sessions of its own, which follow the default severity.
onnxruntime.set_default_logger_severity(_FATAL)

# Its exceptions have no common base; the bindings also raise the two built-in ones.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(e for e in vars(_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)
_FEED_ERRORS: tuple[type[Exception], ...] = (ValueError, _state.InvalidArgument)


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a graph input or output.

    Attributes:
        dtype: its NumPy name ("float32"; "bfloat16" for the one NumPy lacks).
        shape: one entry per axis, a name or None where the extent is dynamic.
    """

    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Assigned:
    """A node and the execution provider that onnxruntime gave it to.

    Attributes:
        name: the node's; it may be empty.
        op: its operator.
        provider: as onnxruntime calls it.
    """

    name: str
    op: str
    provider: str


class Session:
    """A loaded model that runs on the provider it was asked to run on, or does not exist.

    A bfloat16 model that onnxruntime has no kernels for there runs in float32 (see ``widening``).

    Args:
        model: a model, its bytes, or a path (which external data and over 2 GB need).
        provider: "cpu", "cuda" or "tensorrt"; nothing falls back silently.
        threads: threads within one operator; None leaves the choice to onnxruntime.
        arena: whether freed memory is kept for the next run. Off, peak memory is what one run
            needs; on, runs are faster.
        optimization: how far onnxruntime rewrites the graph.
        profile: where a record of all kernels is written, as a prefix of a file name.
        deployed: whether it runs as onnxruntime runs it by default, which times are for. Otherwise
            threads that wait sleep, and a GPU computes in full float32 and starts without trying
            its algorithms first.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        arena: bool = True,
        optimization: Optimization = "all",
        profile: Path | None = None,
        deployed: bool = False,
    ) -> None:
        options = _options(threads, arena, optimization, deployed)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._name = str(model) if isinstance(model, (str, Path)) else "the model"
        try:
            with loadable(model) as source:
                self._session = _open(source, self._name, options, provider, deployed)
        except UnsupportedModelError:
            readable = proto(model)
            wide = None if readable is None else widened(readable)
            if wide is None:
                raise
            with loadable(wide) as source:
                self._session = _open(source, self._name, options, provider, deployed)
        self.inputs = {i.name: _tensor_type(i) for i in self._session.get_inputs()}
        self.outputs = {o.name: _tensor_type(o) for o in self._session.get_outputs()}

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the active execution providers, as onnxruntime reports them."""
        return tuple(self._session.get_providers())

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[Array]:
        """Runs the model once.

        Args:
            feed: graph input name -> array.
            outputs: names of the outputs wanted, in this order; None means all.

        Raises:
            CalibrationError: the feed does not fit the model's inputs.
            OnnxPruneError: an operator failed.
        """
        names = None if outputs is None else list(outputs)
        plain = {name: _plain(array) for name, array in feed.items()}
        try:
            results: list[Array] = self._session.run(names, plain)
        except _FEED_ERRORS as error:
            expected = ", ".join(f"{n} {t.dtype}{list(t.shape)}" for n, t in self.inputs.items())
            given = ", ".join(f"{n} {v.dtype}{list(v.shape)}" for n, v in feed.items())
            raise CalibrationError(
                f"the feed does not fit {self._name}: expected {expected}; got {given} ({error})"
            ) from error
        except _ERRORS as error:
            raise OnnxPruneError(
                f"onnxruntime failed while running {self._name}: {error}"
            ) from error
        return results

    def assignment(self) -> list[Assigned] | None:
        """Which provider each node of the graph was given to, of a session with a profile.

        None if this onnxruntime is too old to say.
        """
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        return [
            Assigned(str(node.name), str(node.op_type), str(part.ep_name))
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]

    def end_profile(self) -> Path:
        """Stops recording; the JSON file that holds the record."""
        return Path(self._session.end_profiling())


def _options(
    threads: int | None, arena: bool, optimization: Optimization, deployed: bool
) -> onnxruntime.SessionOptions:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[optimization]
    options.log_severity_level = _FATAL
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    if not arena:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    # Idle threads of one session would otherwise spin on the cores of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not deployed:  # nor those that wait on cores that another process has work for
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(
    source: bytes | str,
    name: str,
    options: onnxruntime.SessionOptions,
    provider: Provider,
    deployed: bool,
) -> onnxruntime.InferenceSession:
    """Creates the session and compares its providers with the request."""
    wanted = _EXECUTION_PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if wanted[0] not in available:
        raise OnnxPruneError(_not_active(provider, f"this build has {', '.join(available)}"))
    if provider != "cpu":
        _find_cuda_libraries()
    settings = {} if deployed else _FOR_NUMBERS
    try:
        session = onnxruntime.InferenceSession(
            source,
            options,
            providers=[(name, settings.get(name, {})) for name in wanted if name in available],
            enable_fallback=0,
        )
    except _ERRORS as error:
        if provider != "cpu":
            raise OnnxPruneError(_not_active(provider, str(error))) from error
        raise UnsupportedModelError(f"onnxruntime cannot load {name}: {error}") from error
    active = session.get_providers()
    if wanted[0] not in active:
        raise OnnxPruneError(_not_active(provider, f"only {', '.join(active)} started"))
    return session


@cache
def _find_cuda_libraries() -> None:
    """Finds CUDA libraries installed by pip; it prints, and standard output is not ours."""
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()


def execution_provider(provider: Provider) -> str:
    """What onnxruntime calls a provider."""
    return _EXECUTION_PROVIDERS[provider][0]


def _not_active(provider: Provider, why: str) -> str:
    return (
        f"provider {provider} was asked for but {_EXECUTION_PROVIDERS[provider][0]} is not active: "
        f"{why}; install onnxruntime-gpu and the CUDA, cuDNN (and TensorRT) libraries of its "
        "version, or use provider cpu"
    )


def _plain(array: Array) -> Array:
    """The array in a type that NumPy has itself, which bfloat16 is not."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _tensor_type(argument: onnxruntime.NodeArg) -> TensorType:
    inner = str(argument.type).removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(inner, inner)
    return TensorType(dtype, tuple(argument.shape))
