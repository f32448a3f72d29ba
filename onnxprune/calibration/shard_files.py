"""Samples in .tar files as WebDataset has them: ``key.input.npy``, ``key.npy``, ``key.jpg``.

The key is the name of a member up to the first dot of its last part; members with the same key are
one sample. Nothing is extracted: members are read where they lie, so that their names do no harm.
Links, devices and folders are passed over, and so are fields that are no input, such as labels.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration.array_files import npy_array
from onnxprune.calibration.feeds import Shapes
from onnxprune.calibration.image_folder import IMAGE_SUFFIXES, opened
from onnxprune.calibration.image_transform import ImageTransform, image_transform
from onnxprune.calibration.input_spec import InputSpec, convert, one_sample
from onnxprune.calibration.preprocessing import Preprocessing
from onnxprune.errors import CalibrationError

SHARD_SUFFIXES = (".tar",)
MAX_MEMBER_BYTES = 2**30
"""A member is read as a whole; a larger one is no sample."""

ARRAY, IMAGE = "npy", tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True)
class Member:
    """A file inside a .tar file.

    Attributes:
        shard: the .tar file.
        name: its name there, for messages only.
        start: where its bytes are.
        size: how many.
        image: whether it is an image and not an array.
    """

    shard: Path
    name: str
    start: int
    size: int
    image: bool

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return f"{self.shard}, member {self.name!r}"

    def read(self) -> bytes:
        """Its bytes."""
        with _reading(self.shard), self.shard.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.size)


Sample = Mapping[str, Member]
"""Input name -> the member that holds it."""


class ShardStore:
    """One sample per key.

    Args:
        samples: the members of every sample.
        transforms: of the inputs that are images.
        inputs: the model's inputs.
        name: what to call the whole, for people.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transforms: Mapping[str, ImageTransform],
        inputs: Sequence[InputSpec],
        name: str,
    ) -> None:
        self._samples, self._transforms = samples, transforms
        self._inputs, self._name = inputs, name
        self._shapes: dict[int, Shapes] = {}

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def images(self) -> bool:
        """Whether some members are."""
        return bool(self._transforms)

    def read(self, index: int) -> Feed:
        """Sample ``index``: input name -> array without the sample axis, in the input's type."""
        members = self._samples[index]
        return {spec.name: self._values(members[spec.name], spec) for spec in self._inputs}

    def shapes(self, index: int) -> Shapes:
        """The shapes of sample ``index``."""
        if index not in self._shapes:
            members = self._samples[index]
            self._shapes[index] = tuple(
                self._shape(members[spec.name], spec) for spec in self._inputs
            )
        return self._shapes[index]

    def check(self, indices: IndexArray) -> None:
        """Read every array once, and the headers of images."""
        for index in indices.tolist():
            self.shapes(index)

    def describe(self) -> str:
        """What the samples are, for people."""
        images = [transform.describe() for transform in self._transforms.values()]
        return ", images as ".join([f"members of {self._name}", *images])

    def _values(self, member: Member, spec: InputSpec) -> Array:
        if member.image:
            with opened(io.BytesIO(member.read()), member.where, spec.name) as image:
                return self._transforms[spec.name](image)
        values = npy_array(member.read(), member.where)
        return convert(spec, one_sample(spec, values, member.where), member.where)

    def _shape(self, member: Member, spec: InputSpec) -> tuple[int, ...]:
        if member.image:
            with opened(io.BytesIO(member.read()), member.where, spec.name) as image:
                return self._transforms[spec.name].shape(image)
        return self._values(member, spec).shape


def open_shards(
    files: Sequence[Path],
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    where: str,
) -> ShardStore:
    """The samples of some .tar files; only the headers of their members are read.

    Args:
        files: the files, in order.
        inputs: the model's inputs.
        preprocessing: how the pixels of images become values.
        where: what to call the whole.

    Raises:
        CalibrationError: a file is damaged, or a sample lacks an input.
    """
    samples = [sample for path in files for sample in _samples(path, inputs)]
    if not samples:
        fields = [field for field in _fields(inputs[0], inputs) if field.endswith((ARRAY, "jpg"))]
        expected = " or ".join(f"key.{field}" for field in fields)
        raise CalibrationError(f"{where}: holds no samples; expected members such as {expected}.")
    kinds = {spec.name: {sample[spec.name].image for sample in samples} for spec in inputs}
    for name, kind in kinds.items():
        if len(kind) > 1:
            raise CalibrationError(
                f"{where}, input {name!r}: is an image in some samples and an array in others; "
                "give one kind."
            )
    transforms = {
        spec.name: image_transform(preprocessing, [spec], where)
        for spec in inputs
        if True in kinds[spec.name]
    }
    return ShardStore(samples, transforms, inputs, where)


def _fields(spec: InputSpec, inputs: Sequence[InputSpec]) -> list[str]:
    """What the members of an input may be called behind the key."""
    kinds = [ARRAY, *IMAGE]
    named = [f"{spec.name}.{kind}".lower() for kind in kinds]
    return named + kinds * (len(inputs) == 1)


def _samples(path: Path, inputs: Sequence[InputSpec]) -> list[Sample]:
    """The samples of one file, in the order in which their keys appear."""
    owner = {field: spec.name for spec in inputs for field in _fields(spec, inputs)}
    found: dict[str, dict[str, Member]] = {}
    for key, field, member in _members(path):
        if field not in owner:
            continue
        own = found.setdefault(key, {})
        if owner[field] in own:
            raise CalibrationError(
                f"{path}: sample {key!r} holds input {owner[field]!r} twice, as "
                f"{own[owner[field]].name!r} and {member.name!r}; take one out."
            )
        own[owner[field]] = member
    for key, own in found.items():
        missing = [spec.name for spec in inputs if spec.name not in own]
        if missing:
            raise CalibrationError(
                f"{path}: sample {key!r} lacks {', '.join(map(repr, missing))}; add a member "
                f"{key}.{missing[0]}.npy, or leave the sample out."
            )
    return list(found.values())


def _members(path: Path) -> Iterator[tuple[str, str, Member]]:
    """The key, the field and the place of every regular file."""
    with _reading(path), tarfile.open(path, "r:") as archive:
        held = path.stat().st_size
        for entry in archive:
            name = PurePosixPath(entry.name)
            key, dot, field = name.name.partition(".")
            if not entry.isreg() or entry.issparse() or not dot or not key:
                continue
            image = field.lower().rpartition(".")[2] in IMAGE
            member = Member(path, entry.name, entry.offset_data, entry.size, image)
            if entry.size > min(MAX_MEMBER_BYTES, held - entry.offset_data):
                raise CalibrationError(
                    f"{member.where}: declares {entry.size} bytes, but the file holds "
                    f"{held - entry.offset_data} from there on, and a sample has at most "
                    f"{MAX_MEMBER_BYTES}; write the file again."
                )
            yield str(name.with_name(key)), field.lower(), member


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn every way a damaged file can fail into an error that names it."""
    try:
        yield
    except (OSError, tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise CalibrationError(
            f"{path}: cannot be read as .tar without compression ({error}); write it again."
        ) from error
