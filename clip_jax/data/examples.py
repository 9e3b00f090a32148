"""Tables of tf.train.Examples, from whatever stores such records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clip_jax.data.lazy_tensorflow import tensorflow
from clip_jax.data.table import BadSample, Indices, Sample
from clip_jax.errors import UserError
from clip_jax.schema import nearest

IMAGES = ("image/encoded", "image", "jpg")
CAPTIONS = ("caption", "text")
_LOOKED_AT = 16  # records that tell which features there are
_CONTENTS = {"bytes_list": "bytes", "int64_list": "whole numbers", "float_list": "floating-point numbers"}


@runtime_checkable
class Records(Protocol):
    """Records 0 to len-1, as `Table` has samples."""

    @property
    def parts(self) -> dict[str, int]:
        """The files, and how many records each holds."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether every read is a request to another machine."""
        ...

    def __len__(self) -> int: ...

    def keys(self, indices: Indices) -> list[str]:
        """The keys of the records at `indices`, without reading these."""
        ...

    def read(self, indices: Indices) -> list[bytes | BadSample]:
        """The serialised examples at `indices`, or what is wrong with each. Raises UserError for a file at fault."""
        ...


@dataclass(frozen=True)
class Features:
    """Which features of an example are its encoded image, its captions and its label, which may be several."""

    image: str
    captions: tuple[str, ...] = ()
    label: str | None = None
    several_labels: bool = False


class ExampleTable:
    """The samples in `records`; a label is an index into `class_names` where these are known.

    All values of the caption features are captions of the sample. A negative label is none, as in tfds.
    """

    def __init__(self, records: Records, features: Features, class_names: tuple[str, ...] = ()) -> None:
        self._records, self._features = records, features
        self._parse = _example_parser()
        self.class_names = class_names

    @property
    def parts(self) -> dict[str, int]:
        return self._records.parts

    @property
    def is_remote(self) -> bool:
        return self._records.is_remote

    def __len__(self) -> int:
        return len(self._records)

    def keys(self, indices: Indices) -> list[str]:
        return self._records.keys(indices)

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        keys, records = self.keys(indices), self._records.read(indices)
        return [
            record if isinstance(record, BadSample) else self._sample(key, record)
            for key, record in zip(keys, records, strict=True)
        ]

    def _sample(self, key: str, record: bytes) -> Sample | BadSample:
        example = self._parse(record)
        if example is None:
            return BadSample(key, "no image", "its record is no tf.train.Example")
        images = _bytes(example, self._features.image)
        if not images or not images[0]:
            return BadSample(key, "no image", f"its feature '{self._features.image}' is missing or empty")
        try:
            found = [_texts(_bytes(example, name)) for name in self._features.captions]
        except UnicodeDecodeError:
            return BadSample(key, "bad caption", f"its {' or '.join(self._features.captions)} is not UTF-8 text")
        labels = self._labels(example)
        if self.class_names and any(label >= len(self.class_names) for label in labels):
            there = len(self.class_names)
            return BadSample(key, "bad label", f"its label is {max(labels)}, but there are {there} classes")
        captions = tuple(caption for several in found for caption in several)
        several = self._features.several_labels
        return Sample(
            key,
            images[0],
            captions,
            None if several else next(iter(labels), None),
            tuple(map(len, found)) if len(found) > 1 else (),
            labels if several else None,
        )

    def _labels(self, example) -> tuple[int, ...]:
        name = self._features.label
        values = example[name].int64_list.value if name is not None and name in example else ()
        values = values if self._features.several_labels else values[:1]
        return tuple(dict.fromkeys(int(value) for value in values if value >= 0))


def choose_features(records: Records, image: str | None, captions: str | None, label: str | None) -> Features:
    """The features to use, by name where one is given (several captions with commas between), else the usual ones.

    Raises UserError where the first records lack one that is given, or an image.
    """
    parse = _example_parser()
    part = next(iter(records.parts))
    contents: dict[str, str] = {}
    for record in records.read(range(min(_LOOKED_AT, len(records)))):
        example = None if isinstance(record, BadSample) else parse(record)
        if example is not None:
            contents |= {name: _CONTENTS.get(value.WhichOneof("kind"), "nothing") for name, value in example.items()}
    if not contents:
        raise UserError(f"the records of {part} are no tf.train.Examples, which alone can be read")

    def check(names: Iterable[str], content: str) -> tuple[str, ...]:
        for name in names:
            if name not in contents:
                raise UserError(f"the examples in {part} have no feature '{name}'; {nearest(name, contents)}")
            if contents[name] not in (content, "nothing"):
                raise UserError(f"the feature '{name}' in {part} is {contents[name]}; it must be {content}")
        return tuple(names)

    images = [image] if image else [name for name in IMAGES if name in contents][:1]
    if not images:
        there = ", ".join(sorted(contents))
        raise UserError(
            f"the examples in {part} have no feature {' or '.join(IMAGES)}; image=FEATURE names one of {there}"
        )
    texts = captions.split(",") if captions else [name for name in CAPTIONS if name in contents][:1]
    labels = check([label], "whole numbers") if label else ()
    return Features(check(images, "bytes")[0], check(texts, "bytes"), labels[0] if labels else None)


def _bytes(example, name: str) -> Sequence[bytes]:
    return example[name].bytes_list.value if name in example else ()


def _texts(values: Sequence[bytes]) -> list[str]:
    texts = [value.decode().strip() for value in values]
    return [text for text in texts if text]


def _example_parser():
    """From a record to its features by name, or None where it is no tf.train.Example."""
    tf = tensorflow()
    from google.protobuf.message import DecodeError

    def parse(record: bytes):
        try:
            return tf.train.Example.FromString(record).features.feature
        except DecodeError:
            return None

    return parse
