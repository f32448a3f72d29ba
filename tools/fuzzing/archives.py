"""Mutations of .npy and .npz files and of JSON values, by what they are made of."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from random import Random
from typing import Any

import numpy as np

from fuzzing.wire import FLOATS, TEXTS, integer, spoilt

BOMB_BYTES = 3 << 24
"""What the bomb unpacks to, out of some kilobytes: more than a worker takes an archive of."""


class Trap:
    """Unpickling an instance opens a file outside of the worker's folder, which is found."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("/dev/null", "wb"))


def npy(array: Any) -> bytes:
    """An array in .npy format."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def odd_npy(array: np.ndarray[Any, Any], rng: Random) -> bytes:
    """A file close to that of an array: other values, other types, a forged header."""
    what = rng.randrange(6)
    if what == 0:
        return npy(np.array([Trap()] * 2) if rng.random() < 0.5 else pickle.dumps(Trap()))
    if what == 1:
        shape = tuple(rng.choice((0, 1, 2, 8, 2**31, 2**62, -1)) for _ in range(rng.randrange(5)))
        order = rng.random() < 0.2
        descr = rng.choice(("<f4", "<f8", ">f4", "<f2", "|O", "<U5", "<M8[s]", "|V0", "<c8", "|b1"))
        text = str({"descr": descr, "fortran_order": order, "shape": shape}).encode()
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()
    if what == 2 and array.size:
        array = array.copy()
        with np.errstate(all="ignore"):
            value = rng.choice(FLOATS) if array.dtype.kind == "f" else integer(rng) % 2**62
            array.reshape(-1)[rng.randrange(array.size)] = value
        return npy(array)
    if what == 3:
        kind = rng.choice(("f2", "f8", ">f4", "i1", "u8", "c8", "?", "U3"))
        with np.errstate(all="ignore"), contextlib.suppress(ValueError):  # words are no numbers
            array = array.astype(kind)
        return npy(array)
    if what == 4:
        return npy(array[..., :1] if array.ndim and rng.random() < 0.5 else array[None])
    return spoilt(npy(array), rng, npy(array[:1]) if array.ndim else b"")


@cache
def _bomb() -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        form = {"descr": "<f4", "fortran_order": False, "shape": (BOMB_BYTES // 8, 2)}
        np.lib.format.write_array_header_1_0(member, form)
        for _ in range(BOMB_BYTES >> 20):
            member.write(bytes(1 << 20))
    return stream.getvalue()


def odd_npz(arrays: Mapping[str, np.ndarray[Any, Any]], rng: Random) -> bytes:
    """An archive close to that of the arrays."""
    if rng.random() < 0.002:
        return _bomb()
    spoil = rng.choice(list(arrays)) if rng.random() < 0.6 else None
    members = {n: odd_npy(a, rng) if n == spoil else npy(a) for n, a in arrays.items()}
    packed = archive_of(members, rng if rng.random() < 0.5 else None)
    return spoilt(packed, rng, packed[::-1]) if rng.random() < 0.5 else packed


def archive_of(members: Mapping[str, bytes], rng: Random | None) -> bytes:
    """A zip file of the members; with odd names, methods and doubles where drawn so."""
    stream = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            written, method = f"{name}.npy", zipfile.ZIP_STORED
            if rng is not None:
                method = rng.choice(methods)
                odd = (f"../{name}.npy", f"/{name}.npy", name, "x.npy", f"{name}.npy/", *TEXTS[1:8])
                written = rng.choice(odd) if rng.random() < 0.3 else written
            archive.writestr(zipfile.ZipInfo(written), content, method)
            if rng is not None and rng.random() < 0.1:
                archive.NameToInfo.clear()  # the same name again, without a warning
                archive.writestr(zipfile.ZipInfo(written), content[::-1], method)
    return stream.getvalue()


def odd_tar(members: Mapping[str, bytes], rng: Random) -> bytes:
    """A shard close to one with these members: odd names, kinds, sizes and contents."""
    stream = io.BytesIO()
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if rng.random() < 0.2:
                entry.name = rng.choice((f"../{name}", f"/{name}", "a.npy", "é" * 200, *TEXTS[1:]))
            if rng.random() < 0.2:
                array = np.zeros((3, 8, 8), np.float32)
                content = odd_npy(array, rng) if name.endswith("npy") else spoilt(content, rng)
            if rng.random() < 0.1:
                entry.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, b"S", b"x", b"g", b"?"))
                entry.linkname = rng.choice(TEXTS)
            entry.size = len(content)
            with contextlib.suppress(ValueError, UnicodeError):  # a name that the form cannot hold
                archive.addfile(entry, io.BytesIO(content))
    packed = stream.getvalue()
    return spoilt(packed, rng, packed[512:]) if rng.random() < 0.6 else packed


# --- JSON ---------------------------------------------------------------------------------------


def odd_json(document: Any, rng: Random) -> bytes:
    """A text close to that of the JSON values."""
    what = rng.random()
    if what < 0.05:
        depth = rng.choice((50, 990, 5000, 100_000))
        opening, closing = rng.choice(((b"[", b"]"), (b'{"edits":', b"}")))
        return opening * depth + b"1" + (closing * depth if rng.random() < 0.5 else b"")
    text = json.dumps(document).encode()
    if what < 0.35:
        return spoilt(text, rng, text[::-1])
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = _changed(document, rng)
    return json.dumps(document).encode()


def _changed(value: Any, rng: Random) -> Any:
    """The value with something in it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        key = rng.choice(list(value))
        if rng.random() < 0.12:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.05:
            return value | {rng.choice(TEXTS): value[key]}
        return value | {key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.93:
        place = rng.randrange(len(value))
        if rng.random() < 0.12:
            return value[:place] + value[place + 1 :]
        if rng.random() < 0.05:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    odd = (None, True, [], {}, [[1]], {"type": "keep"}, "12", 1.5, integer(rng), 10**400)
    return rng.choice((*odd, rng.choice(FLOATS), rng.choice(TEXTS)))
