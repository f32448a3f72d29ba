"""Layer problems whose Gram matrices lie in memory up to a limit, and in files beyond it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.layer_problem import LayerProblem
from onnxprune.tensor_store import TensorStore

_FIT, _TUNE = "fit", "tune"
_ELSEWHERE = np.zeros((0, 0))


class ProblemStore(Mapping[str, Sequence[LayerProblem]]):
    """Name -> problems of its parts, which are put together whenever they are asked for.

    Whoever has a problem holds its matrices; those that lie in files are mapped, read-only, and
    leave memory with the problem.

    Args:
        max_bytes: how many bytes of matrices may lie in memory; None for no limit.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._store: TensorStore[tuple[int, str]] = TensorStore(max_bytes)
        self._numbers: dict[str, int] = {}
        self._problems: list[list[LayerProblem]] = []

    def add(self, name: str, problems: Sequence[LayerProblem]) -> None:
        """Keeps the problems of another layer."""
        number = self._numbers[name] = len(self._problems)
        grams = {(part, _FIT): problem.gram for part, problem in enumerate(problems)}
        grams |= {(part, _TUNE): problem.tune_gram for part, problem in enumerate(problems)}
        self._store.replace(number, (), grams)
        bare = [replace(problem, gram=_ELSEWHERE, tune_gram=_ELSEWHERE) for problem in problems]
        self._problems.append(bare)

    def __getitem__(self, name: str) -> list[LayerProblem]:
        number = self._numbers[name]
        grams = self._store.get(number)
        return [
            replace(problem, gram=grams[part, _FIT], tune_gram=grams[part, _TUNE])
            for part, problem in enumerate(self._problems[number])
        ]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def bytes_held(self) -> int:
        """Bytes of the matrices that lie in memory."""
        return self._store.bytes_held

    @property
    def bytes_spilled(self) -> int:
        """Bytes of those that lie in files."""
        return self._store.bytes_spilled
