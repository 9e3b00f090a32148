"""The samples of one source for training: which, what is drawn for each, and others in the place of bad ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Int64, UInt8

from clip_jax.data.draws import Draws
from clip_jax.data.encoded import Encoded, decoded_crop, encoded
from clip_jax.data.mixture import Share
from clip_jax.data.order import Order
from clip_jax.data.pixels import jpeg_branches
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
    a caption of a sample's first, second, ... field is taken, or its first, second, ... caption where there is one
    field; each as often as any where there are no weights.
    """

    crop_scale: tuple[float, float] = (0.9, 1.0)
    flip: float = 0.0
    colours: float = 0.0
    caption_weights: tuple[float, ...] = ()


class Drawn(NamedTuple):
    """Samples before their pixels are made, in the order of the sequence.

    `place` is the position in the sequence of all sources, `image` the file, `branch` who decodes it (pixels.py), `bad`
    the place in CAUSES of why the sample that belongs here was replaced, -1 where it was not, and `used` the index of
    the one that is here.
    """

    place: Int64[np.ndarray, " b"]
    image: np.ndarray  # bytes [b]
    branch: Int32[np.ndarray, " b"]
    crop: Int32[np.ndarray, "b 4"]
    flip: Bool[np.ndarray, " b"]
    colours: Float32[np.ndarray, "b 3"]
    tokens: Int32[np.ndarray, "b n"]
    bad: Int8[np.ndarray, " b"]
    used: Int64[np.ndarray, " b"]


class Replaced(NamedTuple):
    """The keys of a sample that cannot be used and of the one in its place."""

    wanted: str
    used: str
    cause: Cause


class _Found(NamedTuple):
    """A sample that can be used; `bad` and `used` as in Drawn."""

    sample: Sample
    image: Encoded
    bad: int
    used: int


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

    def check(self, step: int) -> None:
        """Raises UserError where hardly a sample can be used; only those drawn for the first place are looked at."""
        position = self._begins(step)
        self._found(*self._at(int(self.share.places(position, position + 1)[0])), trust=False)

    def read(self, start: int, stop: int) -> Drawn:
        """This process's samples among the source's own positions [start, stop).

        Images are trusted that have a header and an end. Raises UserError where the table cannot be read any more, or
        hardly has a sample that can be used.
        """
        places = self.share.places(start, stop)
        rows = places % self.batch_size
        own = (self.rows[0] <= rows) & (rows < self.rows[1])
        return self._drawn(places[own], self._found(places[own], self.order.indices(start, stop)[own], trust=True))

    def read_decoded(self, place: int) -> tuple[UInt8[np.ndarray, "h w 3"], Drawn]:
        """The crop and the rest of what belongs at one place, where an image that was trusted cannot be decoded."""
        places, indices = self._at(place)
        drawn = self._drawn(places, self._found(places, indices, trust=False))
        return decoded_crop(drawn.image[0], drawn.crop[0]), drawn

    def replaced(self, place: int, bad: int, used: int) -> Replaced:
        """Which sample is at a place instead of which; `bad` and `used` as in Drawn."""
        wanted, instead = self.table.keys([int(self._at(place)[1][0]), used])
        return Replaced(wanted, instead, CAUSES[bad])

    def _begins(self, step: int) -> int:
        return self.share.before(step * self.batch_size)

    def _at(self, place: int) -> tuple[Int64[np.ndarray, " 1"], Int64[np.ndarray, " 1"]]:
        """One place, and the index of the sample that belongs there."""
        position = self.share.before(place)
        return np.array([place]), self.order.indices(position, position + 1)

    def _found(self, places: Int64[np.ndarray, " b"], indices: Int64[np.ndarray, " b"], trust: bool) -> list[_Found]:
        """A usable sample for each place: the one that belongs there or, drawn by place and attempt, another.

        All that are still bad are replaced at once: of a remote table they are as many requests.
        """
        found: list[_Found | None] = [None] * len(places)
        causes, used, reason = [-1] * len(places), indices.copy(), ""
        for attempt in range(REPLACEMENTS + 1):
            rows = [row for row, one in enumerate(found) if one is None]
            if attempt:
                used[rows] = [_replacement(self.order, int(places[row]), attempt) for row in rows]
            for row, sample in zip(rows, self.table.read(used[rows]) if rows else [], strict=True):
                image = sample if isinstance(sample, BadSample) else _usable(sample, trust)
                if isinstance(image, Encoded) and isinstance(sample, Sample):
                    found[row] = _Found(sample, image, causes[row], int(used[row]))
                elif isinstance(image, BadSample):
                    self.examples.setdefault(image.cause, image)
                    causes[row] = CAUSES.index(image.cause) if causes[row] < 0 else causes[row]
                    reason = f"sample {image.key}: {image.reason}"
        sound = [one for one in found if one is not None]
        if len(sound) < len(found):
            raise UserError(
                f"hardly a sample of the data can be used; {reason}, and {REPLACEMENTS} others that were tried"
            )
        return sound

    def _drawn(self, places: Int64[np.ndarray, " b"], found: list[_Found]) -> Drawn:
        draws, wishes = Draws.at(self.order.seed, places), self.augmentation
        crops = draws.crops(np.array([one.image.size for one in found], np.int64).reshape(-1, 2), wishes.crop_scale)
        plain_jpegs = np.array([one.image.plain_jpeg for one in found], bool)
        captions = [self._caption(draws, row, one.sample) for row, one in enumerate(found)]
        return Drawn(
            place=places,
            image=np.array([one.sample.image for one in found], object),
            branch=jpeg_branches(crops, plain_jpegs, self.image_size),
            crop=crops.astype(np.int32),
            flip=draws.flips(wishes.flip),
            colours=draws.colours(wishes.colours).astype(np.float32),
            tokens=self.tokenize(captions),
            bad=np.array([one.bad for one in found], np.int8),
            used=np.array([one.used for one in found], np.int64),
        )

    def _caption(self, draws: Draws, row: int, sample: Sample) -> str:
        weights = sample.caption_weights(self.augmentation.caption_weights)
        return sample.captions[draws.caption(row, len(sample.captions), weights)]


def _usable(sample: Sample, trust: bool) -> Encoded | BadSample:
    if not sample.captions:
        return BadSample(sample.key, "no caption", "it has no caption, and training needs one for every image")
    return encoded(sample, trust)


def _replacement(order: Order, place: int, attempt: int) -> int:
    """The sample that takes a bad one's place in the sequence at the given attempt."""
    raw = np.random.Philox(np.random.SeedSequence(order.seed, spawn_key=(5, place, attempt))).random_raw(1)
    return int(raw[0] % np.uint64(order.samples))
