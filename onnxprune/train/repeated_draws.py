"""The same random numbers again, so that two passes differ by nothing but what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RepeatedDraws:
    """What torch will draw from here on, on the CPU and on one device."""

    def __init__(self, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        self._host = torch.random.get_rng_state()
        self._states = [torch.cuda.get_rng_state(own) for own in self._devices]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw it, and go on behind the block as if it had not been drawn."""
        with torch.random.fork_rng(self._devices):
            torch.random.set_rng_state(self._host)
            for device, state in zip(self._devices, self._states, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
