"""The samples of one source for training: which, what is drawn for each, and others in the place of bad ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Int64

from clip_jax.data.draws import Draws
from clip_jax.data.encoded import Encoded, encoded
from clip_jax.data.mixture import Share
from clip_jax.data.order import Order
from clip_jax.data.pixels import RAW, jpeg_branch
from clip_jax.data.table import BadSample, Cause, Sample, Table
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Tokenizer

CAUSES: tuple[Cause, ...] = get_args(Cause)
REPLACEMENTS = 32  # samples that are tried in the place of a bad one


@dataclass(frozen=True)
class Augmentation:
    """How training images and captions vary.

    `crop_scale` is the range of the crop's area as a share of the image's, `flip` the share of images that are
    mirrored, `colours` the strength of changes in brightness, contrast and saturation, and `caption_weights` how often
    a sample's first, second, ... caption is taken; each as often as any where there are none.
    """

    crop_scale: tuple[float, float] = (0.9, 1.0)
    flip: float = 0.0
    colours: float = 0.0
    caption_weights: tuple[float, ...] = ()


class Drawn(NamedTuple):
    """Samples before their pixels are made, in the order of the sequence; the fields are those of `make_pixels`.

    `bad` is the place in CAUSES of why the sample that belongs here was replaced, -1 where it was not.
    """

    data: np.ndarray  # bytes [b]
    branch: Int32[np.ndarray, " b"]
    crop: Int32[np.ndarray, "b 4"]
    flip: Bool[np.ndarray, " b"]
    colours: Float32[np.ndarray, "b 3"]
    tokens: Int32[np.ndarray, "b n"]
    bad: Int8[np.ndarray, " b"]


@dataclass(frozen=True)
class Reader:
    """One source of a mixture, for a process that has `rows` [first, last) of every batch of `batch_size`.

    `examples` receives the first bad sample of each cause, for whoever wants to tell of it.
    """

    table: Table
    order: Order
    share: Share
    tokenize: Tokenizer
    image_size: int
    batch_size: int
    rows: tuple[int, int]
    augmentation: Augmentation = Augmentation()
    examples: dict[Cause, BadSample] = field(default_factory=dict)

    def spans(self, start_step: int, stop_step: int) -> Iterator[tuple[int, int]]:
        """What is read at once, as [start, stop) of the source's own positions: a step's, of remote tables a window."""
        position, end = self._begins(start_step), self._begins(stop_step)
        step = start_step
        while position < end:
            step += 1
            stop = min(self.order.window_end(position), end) if self.table.is_remote else self._begins(step)
            if stop > position:
                yield position, stop
            position = stop

    def keys(self, step: int) -> list[str]:
        """The keys of this source's samples in a global batch, bad ones not replaced."""
        return self.table.keys(self.order.indices(self._begins(step), self._begins(step + 1)))

    def read(self, start: int, stop: int, trust_jpegs: bool = True) -> Drawn:
        """This process's samples among the source's own positions [start, stop).

        Raises UserError where the table cannot be read any more, or hardly has a sample that can be used.
        """
        places = self.share.places(start, stop)
        rows = places % self.batch_size
        own = (self.rows[0] <= rows) & (rows < self.rows[1])
        places, indices = places[own], self.order.indices(start, stop)[own]
        found = [
            self._sound(sample, place, trust_jpegs)
            for sample, place in zip(self.table.read(indices), places.tolist(), strict=True)
        ]
        draws, wishes = Draws.at(self.order.seed, places), self.augmentation
        sizes = np.array([image.size for _, image, _ in found], np.int64).reshape(-1, 2)
        crops = draws.crops(sizes, wishes.crop_scale)
        parts = [self._part(image.data, crop) for (_, image, _), crop in zip(found, crops, strict=True)]
        captions = [
            sample.captions[draws.caption(row, len(sample.captions), wishes.caption_weights)]
            for row, (sample, _, _) in enumerate(found)
        ]
        return Drawn(
            data=np.array([data for data, _, _ in parts], object),
            branch=np.array([branch for _, branch, _ in parts], np.int32),
            crop=np.array([crop for _, _, crop in parts], np.int32).reshape(-1, 4),
            flip=draws.flips(wishes.flip),
            colours=draws.colours(wishes.colours).astype(np.float32),
            tokens=self.tokenize(captions),
            bad=np.array([bad for _, _, bad in found], np.int8),
        )

    def _begins(self, step: int) -> int:
        return self.share.before(step * self.batch_size)

    def _sound(self, sample: Sample | BadSample, place: int, trust_jpegs: bool) -> tuple[Sample, Encoded, int]:
        """The sample or one in its place, its image, and why it had to be replaced."""
        bad, reason = -1, ""
        for attempt in range(REPLACEMENTS + 1):
            if attempt:
                (sample,) = self.table.read([_replacement(self.order, place, attempt)])
            image = sample if isinstance(sample, BadSample) else _usable(sample, trust_jpegs)
            if isinstance(image, Encoded) and isinstance(sample, Sample):
                return sample, image, bad
            if isinstance(image, BadSample):
                self.examples.setdefault(image.cause, image)
                bad = CAUSES.index(image.cause) if bad < 0 else bad
                reason = f"sample {image.key}: {image.reason}"
        raise UserError(f"hardly a sample of the data can be used; {reason}, and {REPLACEMENTS} others that were tried")

    def _part(
        self, data: bytes | np.ndarray, crop: Int64[np.ndarray, " 4"]
    ) -> tuple[bytes, int, Int64[np.ndarray, " 4"]]:
        """What TensorFlow gets of an image: a JPEG as it is, of pixels the crop alone."""
        if isinstance(data, bytes):
            return data, *jpeg_branch(crop, self.image_size)
        top, left, height, width = crop.tolist()
        return data[top : top + height, left : left + width].tobytes(), RAW, np.array([0, 0, height, width])


def _usable(sample: Sample, trust_jpegs: bool) -> Encoded | BadSample:
    if not sample.captions:
        return BadSample(sample.key, "no caption", "it has no caption, and training needs one for every image")
    return encoded(sample, trust_jpegs)


def _replacement(order: Order, place: int, attempt: int) -> int:
    """The sample that takes a bad one's place in the sequence at the given attempt."""
    raw = np.random.Philox(np.random.SeedSequence(order.seed, spawn_key=(5, place, attempt))).random_raw(1)
    return int(raw[0] % np.uint64(order.samples))
