"""Mutations of bytes, whatever they mean, and of values that any format has."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

INTEGERS = (0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "y",
    "?",
    "None",
    "../outside.bin",
    "/etc/hostname",
    "a/../../outside.bin",
    "\0",
    "ünï\u202e\n",
    "%s%n{0}",
    "a" * 5000,
)
MAGICS = (
    b"\x93NUMPY\x01\x00",
    b"PK\x03\x04",
    b"\x89PNG\r\n\x1a\n",
    b"\x08\x08",
    b"\x80\x04",
    b"[[[[",
)


def integer(rng: Random, old: int = 0) -> int:
    """Some integer of 64 bits, often close to an old one."""
    near = (old + 1, old - 1, -old, old * 2, old + 2**32)
    return rng.choice(near) if rng.random() < 0.4 else rng.choice(INTEGERS)


def spoilt(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """The bytes with one to four mutations.

    Args:
        content: the bytes.
        rng: of all choices.
        other: bytes of the same format, to splice with.
    """
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(MUTATIONS)(changed, rng, other)
    return bytes(changed)


def _flip(content: bytearray, rng: Random, _: bytes) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set(content: bytearray, rng: Random, _: bytes) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))


def _truncate(content: bytearray, rng: Random, _: bytes) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _cut(content: bytearray, rng: Random, _: bytes) -> None:
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.choice((1, 2, 8, 64))]


def _repeat(content: bytearray, rng: Random, _: bytes) -> None:
    start = rng.randrange(len(content) + 1)
    content[start:start] = content[start : start + rng.choice((1, 8, 64))] * rng.choice((1, 3))


def _number(content: bytearray, rng: Random, _: bytes) -> None:
    """A number of some width, written over what is there."""
    width = rng.choice((2, 4, 8))
    start = rng.randrange(len(content) + 1)
    value = (rng.choice(INTEGERS) % 2 ** (8 * width)).to_bytes(width, "little")
    content[start : start + width] = value


def _magic(content: bytearray, rng: Random, _: bytes) -> None:
    magic = rng.choice(MAGICS)
    content[: len(magic)] = magic


def _splice(content: bytearray, rng: Random, other: bytes) -> None:
    start, there = rng.randrange(len(content) + 1), rng.randrange(len(other) + 1)
    content[start:] = other[there:]


def _digits(content: bytearray, rng: Random, _: bytes) -> None:
    """Another number where one is written out in digits."""
    places = [i for i, byte in enumerate(content) if 48 <= byte < 58]
    if places:
        place = rng.choice(places)
        content[place : place + 1] = str(rng.choice(INTEGERS)).encode()


MUTATIONS: tuple[Callable[[bytearray, Random, bytes], None], ...] = (
    _flip,
    _flip,
    _set,
    _truncate,
    _cut,
    _repeat,
    _number,
    _magic,
    _splice,
    _digits,
)
