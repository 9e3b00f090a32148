"""The contrastive losses with memory that does not grow with the number of devices: texts travel around a ring.

Every device keeps its images. The texts go from device to device, with what is summed over their column of the logits:
in the forward pass the column's log-sum-exp, in the backward pass the gradient. So each device sees every pair, a tile
of `tile` of its images against one device's texts at a time, and no more of the logits is ever held. What travels on is
sent while the tiles are computed, and what was summed is added when it arrives, so that no product waits for the wire.
Logits are taken from the matching pair's before they are summed, so that nothing cancels where the loss is small.

Source: the losses are those of clip_jax.losses; the running log-sum-exp is that of Milakov and Gimelshein 2018, arXiv
1805.02867; the backward pass computes the logits anew, as Dao et al. 2022, arXiv 2205.14135, do for attention.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from clip_jax.sharding import BATCH_AXES, batch_shards

TILE = 512  # images that meet one device's texts at once: large enough for matrix units, 8 MiB against 4,096 texts


def ring_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[Array, ""],
    bias: Float[Array, ""] | None,
    mesh: Mesh | None,
    tile: int = TILE,
) -> Float[Array, ""]:
    """The sigmoid loss where there is a bias, else the softmax loss, of a batch sharded over the mesh's batch axes.

    Memory a device is linear in its own share of the batch. `mesh=None` is one device, whose logits are tiled alike.
    """
    ring = Ring() if mesh is None else Ring(mesh)
    if bias is None:
        return _softmax(image, text, scale, ring, tile)
    return _sigmoid(image, text, scale, bias, ring, tile)


@dataclass(frozen=True)
class Ring:
    """The devices that share a batch, in the order in which the batch is split; without a mesh, one device."""

    mesh: Mesh | None = None

    @property
    def size(self) -> int:
        """How many devices the batch is split over."""
        return 1 if self.mesh is None else batch_shards(self.mesh)

    def turns(self) -> Array:
        """Whether the texts that a device holds are its own, turn by turn: it begins with them."""
        return jnp.arange(self.size) == 0

    def rotate(self, values: Any) -> Any:
        """Each device's values to the device before it."""
        if self.size == 1:
            return values
        steps = [(device, (device - 1) % self.size) for device in range(self.size)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, BATCH_AXES, steps), values)

    def sum(self, x: Array) -> Array:
        """The sum of `x` over the ring."""
        return x if self.mesh is None else jax.lax.psum(x, BATCH_AXES)

    def own(self, x: Array) -> Array:
        """The same values on every device, from now on each device's own."""
        return x if self.mesh is None else jax.lax.pcast(x, BATCH_AXES, to="varying")

    def run(self, local: Callable[..., Any], split: tuple[bool, ...], *arguments: Array) -> Any:
        """`local` on each device with its share of the arguments; results are split or whole as `split` says."""
        if self.mesh is None:
            return local(*arguments)
        inputs = tuple(P(BATCH_AXES) if argument.ndim else P() for argument in arguments)
        outputs = tuple(P(BATCH_AXES) if one else P() for one in split)
        return jax.shard_map(local, mesh=self.mesh, in_specs=inputs, out_specs=outputs)(*arguments)


# --- softmax


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _softmax(image, text, scale, ring, tile):
    return _softmax_forward(image, text, scale, ring, tile)[0]


def _softmax_forward(image, text, scale, ring, tile):
    def local(image, text, scale):
        def turn(carry, own):
            text, columns_match, rows, columns = carry
            next_text, next_match, arriving = ring.rotate((text, columns_match, columns))

            def of_tile(columns, images, place, rows_match, rows):
                logits = scale * _products(images, text)
                matching = _diagonal(logits.shape, own, place[0])
                to_text = jnp.where(matching, 0.0, logits - rows_match[:, None])
                to_image = jnp.where(matching, 0.0, logits - columns_match[None, :])
                rows = jnp.logaddexp(rows, jax.nn.logsumexp(to_text, axis=1))
                return jnp.logaddexp(columns, jax.nn.logsumexp(to_image, axis=0)), (rows,)

            columns, (rows,) = _over_tiles(of_tile, nothing, (image, places, match, rows), tile)
            return (next_text, next_match, rows, jnp.logaddexp(arriving, columns)), None

        match, places = scale * _matching(image, text), jnp.arange(len(image))
        nothing = ring.own(jnp.full(len(image), -jnp.inf, jnp.float32))
        (_, _, rows, columns), _ = jax.lax.scan(turn, (text, match, nothing, nothing), ring.turns())
        columns = ring.rotate(columns)  # home again
        return ring.sum((rows + columns).sum()) / (2 * ring.size * len(image)), match, rows, columns

    value, match, rows, columns = ring.run(local, (False, True, True, True), image, text, scale)
    return value, (image, text, scale, match, rows, columns)


def _softmax_backward(ring, tile, residuals, cotangent):
    image, text, scale, match, rows, columns = residuals

    def local(image, text, scale, match, rows, columns, cotangent):
        weight = cotangent / (2 * ring.size * len(image))

        def gradient_of(products, own, place, rows_match, rows, columns_match, columns):
            logits = scale * products
            to_text = jnp.exp(logits - rows_match[:, None] - rows[:, None])
            to_image = jnp.exp(logits - columns_match[None, :] - columns[None, :])
            matching = jnp.expm1(-rows)[:, None] + jnp.expm1(-columns)[None, :]  # softmax - 1, without cancellation
            return weight * jnp.where(_diagonal(products.shape, own, place), matching, to_text + to_image)

        return _gradients(gradient_of, image, text, scale, (match, rows), (match, columns), ring, tile)[:3]

    return ring.run(local, (True, True, False), image, text, scale, match, rows, columns, cotangent)


_softmax.defvjp(_softmax_forward, _softmax_backward)


# --- sigmoid


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sigmoid(image, text, scale, bias, ring, tile):
    return _sigmoid_forward(image, text, scale, bias, ring, tile)[0]


def _sigmoid_forward(image, text, scale, bias, ring, tile):
    def local(image, text, scale, bias):
        def turn(carry, own):
            text, rows = carry
            next_text = ring.rotate(text)

            def of_tile(nothing, images, place, rows):
                logits = scale * _products(images, text) + bias
                signs = jnp.where(_diagonal(logits.shape, own, place[0]), -1.0, 1.0)
                return nothing, (rows + jax.nn.softplus(signs * logits).sum(axis=1),)  # -log sigmoid(-x)

            _, (rows,) = _over_tiles(of_tile, (), (image, places, rows), tile)
            return (next_text, rows), None

        rows, places = ring.own(jnp.zeros(len(image), jnp.float32)), jnp.arange(len(image))
        (_, rows), _ = jax.lax.scan(turn, (text, rows), ring.turns())
        return (ring.sum(rows.sum()) / (ring.size * len(image)),)

    (value,) = ring.run(local, (False,), image, text, scale, bias)
    return value, (image, text, scale, bias)


def _sigmoid_backward(ring, tile, residuals, cotangent):
    def local(image, text, scale, bias, cotangent):
        weight = cotangent / (ring.size * len(image))

        def gradient_of(products, own, place):
            signs = jnp.where(_diagonal(products.shape, own, place), -1.0, 1.0)
            return weight * signs * jax.nn.sigmoid(signs * (scale * products + bias))

        return _gradients(gradient_of, image, text, scale, (), (), ring, tile)

    return ring.run(local, (True, True, False, False), *residuals, cotangent)


_sigmoid.defvjp(_sigmoid_forward, _sigmoid_backward)


# --- what both share


def _gradients(gradient_of, image, text, scale, of_rows, of_columns, ring, tile):
    """The gradients by image, text, scale and bias from `gradient_of`, which gives that by a tile of the logits.

    It gets the products, whether the texts are this device's own, the tile's place among its images, and what belongs
    to the rows and to the columns of the tile.
    """

    def turn(carry, own):
        text, of_columns, by_image, by_text, by_scale, by_bias = carry
        next_text, next_columns, arriving = ring.rotate((text, of_columns, by_text))

        def of_tile(sums, images, place, by_images, *of_rows):
            by_text, by_scale, by_bias = sums
            products = _products(images, text)
            by_logits = gradient_of(products, own, place[0], *of_rows, *of_columns)
            by_images += scale * _dot("ij,jd->id", by_logits, text)
            by_text += scale * _dot("ij,id->jd", by_logits, images)
            return (by_text, by_scale + (by_logits * products).sum(), by_bias + by_logits.sum()), (by_images,)

        sums = (jnp.zeros_like(by_text), by_scale, by_bias)
        (added, by_scale, by_bias), (by_image,) = _over_tiles(of_tile, sums, (image, places, by_image, *of_rows), tile)
        return (next_text, next_columns, by_image, arriving + added, by_scale, by_bias), None

    places = jnp.arange(len(image))
    zeros, zero = ring.own(jnp.zeros(image.shape, jnp.float32)), ring.own(jnp.float32(0))
    carry = (text, of_columns, zeros, zeros, zero, zero)
    (_, _, by_image, by_text, by_scale, by_bias), _ = jax.lax.scan(turn, carry, ring.turns())
    by_text = ring.rotate(by_text)  # home again
    return by_image.astype(image.dtype), by_text.astype(text.dtype), ring.sum(by_scale), ring.sum(by_bias)


def _over_tiles(body, carry, rows, tile):
    """Scans `body(carry, *rows) -> (carry, rows)` over tiles of the rows; the last tile may be shorter."""
    count, rest = divmod(len(rows[0]), tile)
    whole, parts = count * tile, []
    if count:
        tiles = [x[:whole].reshape(count, tile, *x.shape[1:]) for x in rows]
        carry, found = jax.lax.scan(lambda carry, tiles: body(carry, *tiles), carry, tiles)
        parts.append([x.reshape(whole, *x.shape[2:]) for x in found])
    if rest:
        carry, found = body(carry, *(x[whole:] for x in rows))
        parts.append(found)
    return carry, tuple(jnp.concatenate(pieces) for pieces in zip(*parts, strict=True))


def _diagonal(shape, own, place):
    """Where an image of a tile that begins at `place` meets its own text."""
    images = place + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    return own & (images == jax.lax.broadcasted_iota(jnp.int32, shape, 1))


def _matching(image, text):
    return jnp.sum(image.astype(jnp.float32) * text.astype(jnp.float32), axis=-1)


def _products(images, texts):
    return _dot("id,jd->ij", images, texts)


def _dot(equation, a, b):
    return jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
