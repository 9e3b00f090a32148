"""`Clip`: a model with its weights, preprocessing and tokenizer, ready to encode, classify and compare."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int, Int32
from tqdm import tqdm

from clip_jax.config import Activation, ClipConfig, ComputeConfig
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Tokenizer
from clip_jax.inputs.images import ImageSource
from clip_jax.inputs.preprocess import preprocess
from clip_jax.inputs.prompts import check_labels, prompts_of
from clip_jax.inputs.tokenizer import tokenizer_for
from clip_jax.models.text import without_padding
from clip_jax.models.two_tower import Params, image_embedding, init_params, text_embedding
from clip_jax.presets import get_config
from clip_jax.processes import is_first
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh
from clip_jax.weights.checkpoint import Origin, in_memory
from clip_jax.weights.evidence import Hints
from clip_jax.weights.folders import as_path
from clip_jax.weights.loading import find_checkpoint
from clip_jax.weights.resample import resized
from clip_jax.weights.tree import unflatten
from clip_jax.weights.writing import is_finite, write_checkpoint

PROGRESS_AFTER_SECONDS = 2
PROMPTS_AT_ONCE = 4096
STATISTICS = ("/mean", "/variance")


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP model. `params` is a pure dict of arrays, `compute` how it is run (float32 and exact by default).

    `origin` and `tokenizer_files` are what a loaded model's source held beside: types, counters, config files, and
    the files of a tokenizer that is no part of this package.
    """

    config: ClipConfig
    params: Params
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    origin: Origin = field(default_factory=Origin)
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)

    def encode_image(
        self,
        images: ImageSource | Sequence[ImageSource] | Float[Array, "b size size 3"],
        normalize: bool = False,
        batch_size: int = 64,
    ) -> Float32[np.ndarray, "*b k"]:
        """Image embeddings, [b, k] for a list and [k] for one image.

        Images are paths, PIL images, uint8 [h, w, 3] arrays in any mix, or one float32 [b, size, size, 3] array
        that is preprocessed already. Work is split over every local device and shows progress when it takes long.
        Raises UserError for an image that cannot be read.
        """
        if _is_float_array(images):
            pixels = self._checked_pixels(images)
            return self._encode(_image_encoder, pixels, normalize, batch_size, "images")
        if _is_one_image(images):
            return self.encode_image([images], normalize, batch_size)[0]  # pyright: ignore[reportArgumentType]
        return self._encode(_image_encoder, images, normalize, batch_size, "images", self.preprocess)  # pyright: ignore[reportArgumentType]

    def image_features(
        self, pixels: Float32[np.ndarray, "b size size 3"], batch_size: int = 64
    ) -> tuple[Float32[np.ndarray, "b k"], Float32[np.ndarray, "b d"]]:
        """Of preprocessed images: embeddings, not normalised, and the features before their projection, in one pass.

        The latter are what linear probes are fitted to. Source: appendix A.3 of the paper.
        """
        features = self._encode(_feature_encoder, self._checked_pixels(pixels), False, batch_size, "")
        return features[:, : self.config.embed_dim], features[:, self.config.embed_dim :]

    def encode_text(
        self,
        texts: str | Sequence[str] | Int[Array, "b context"] | Int[np.ndarray, "b context"],
        normalize: bool = False,
        batch_size: int = 256,
    ) -> Float32[np.ndarray, "*b k"]:
        """Text embeddings, [b, k] for a list and [k] for one string; token ids int32 [b, context] are taken too.

        Raises UserError for anything else, for ids outside of the vocabulary and for a model without its tokenizer.
        """
        if isinstance(texts, str):
            return self.encode_text([texts], normalize, batch_size)[0]
        if not isinstance(texts, Sequence | np.ndarray | jax.Array):
            raise UserError(f"texts must be a string, a list of strings or token ids, not a {type(texts).__name__}")
        if isinstance(texts, np.ndarray | jax.Array):
            tokens = self._checked_tokens(texts)
            return self._encode(_text_encoder, tokens, normalize, batch_size, "texts", self._without_padding)
        return self._encode_texts(texts, normalize, batch_size, "texts")

    def apply_image(self, params: Params, pixels: Float[Array, "b size size 3"], *, intermediates: bool = False) -> Any:
        """Image embeddings [b, k], not normalised: a pure function of JAX arrays, for jit, grad, vmap and shardings.

        With `intermediates`, also a dict: `layers` [layers, b, n, d], of a ResNet its stem and stages by name, each
        [b, h, w, c], and `pre_projection` features [b, d].
        """
        with jax.default_matmul_precision(_precision(self.compute)):
            embedding, named = image_embedding(params, pixels, self.config, self.compute)
        return (embedding, named) if intermediates else embedding

    def apply_text(self, params: Params, tokens: Int[Array, "b context"], *, intermediates: bool = False) -> Any:
        """Text embeddings [b, k], not normalised; otherwise as `apply_image`."""
        with jax.default_matmul_precision(_precision(self.compute)):
            embedding, named = text_embedding(params, tokens, self.config, self.compute)
        return (embedding, named) if intermediates else embedding

    def preprocess(
        self, images: ImageSource | Sequence[ImageSource], exif: bool = False
    ) -> Float32[np.ndarray, "b size size 3"]:
        """Images as the vision tower takes them: resized, cropped and normalised as `config.preprocess` says.

        `exif` applies the orientation that cameras store, which CLIP's own preprocessing does not.
        """
        sources = [images] if _is_one_image(images) else list(images)  # pyright: ignore[reportArgumentType]
        return preprocess(sources, self.config.preprocess, self.config.vision.image_size, exif)  # pyright: ignore[reportArgumentType]

    def tokenize(self, texts: str | Sequence[str]) -> Int32[np.ndarray, "b context"]:
        """Token ids, padded; over-long text is cut with the end token kept.

        Raises UserError where the model came without its tokenizer's files.
        """
        return self._tokenizer([texts] if isinstance(texts, str) else texts)

    @overload
    def classify(
        self, images: ImageSource, labels: Sequence[str], templates: str | Sequence[str] | None = None
    ) -> dict[str, float]: ...

    @overload
    def classify(
        self, images: Sequence[ImageSource], labels: Sequence[str], templates: str | Sequence[str] | None = None
    ) -> list[dict[str, float]]: ...

    def classify(
        self,
        images: ImageSource | Sequence[ImageSource],
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
    ) -> dict[str, float] | list[dict[str, float]]:
        """The probability of each label, a dict for one image and a list of dicts for several.

        The labels compete for the probability, but for a sigmoid model, where each label has its own.

        `templates` put a label into words, by default "a photo of a {}."; several are averaged in embedding space.
        """
        class_embeddings = self.class_embeddings(check_labels(labels), templates)
        one = _is_one_image(images)
        embeddings = self.encode_image([images] if one else images, normalize=True)  # pyright: ignore[reportArgumentType]
        logits = self.logit_scale * embeddings @ class_embeddings.T + self.logit_bias
        probability = jax.nn.sigmoid if self.config.is_sigmoid else jax.nn.softmax
        probabilities = np.asarray(probability(logits))
        answers = [dict(zip(labels, map(float, row), strict=True)) for row in probabilities]
        return answers[0] if one else answers

    def similarity(
        self, images: ImageSource | Sequence[ImageSource], texts: str | Sequence[str]
    ) -> Float32[np.ndarray, "images texts"]:
        """The model's logits: cosine similarities times the logit scale, plus the bias where there is one."""
        images = [images] if _is_one_image(images) else images  # pyright: ignore[reportAssignmentType]
        image = self.encode_image(images, normalize=True)
        text = self.encode_text([texts] if isinstance(texts, str) else texts, normalize=True)
        return self.logit_scale * image @ text.T + self.logit_bias

    def class_embeddings(
        self, labels: Sequence[str | Sequence[str]], templates: str | Sequence[str] | None = None
    ) -> Float32[np.ndarray, "c k"]:
        """A zero-shot classifier: each label's prompts embedded, normalised, averaged over templates, normalised again.

        A class may have several names, all of whose prompts are averaged. Source: section 3.1.4 of the paper. Raises
        UserError for empty labels and templates without {}.
        """
        prompts = prompts_of(labels, templates)
        sums = np.zeros((len(labels), self.config.embed_dim))
        with _progress(len(prompts), "prompts") as progress:
            for start in range(0, len(prompts), PROMPTS_AT_ONCE):
                numbers, texts = zip(*prompts[start : start + PROMPTS_AT_ONCE], strict=True)
                np.add.at(sums, np.array(numbers), self._encode_texts(texts, True, 256, ""))
                progress.update(len(texts))
        return (sums / np.linalg.norm(sums, axis=-1, keepdims=True)).astype(np.float32)

    @property
    def logit_scale(self) -> np.float32:
        """The multiplier of cosine similarities, already exponentiated."""
        return np.float32(np.exp(np.float32(self.params["logit_scale"])))

    @property
    def logit_bias(self) -> np.float32:
        """What is added to scaled similarities; zero for models without a bias."""
        return np.float32(self.params.get("logit_bias", 0.0))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_for(self.config.tokenizer, self.config.text, self.tokenizer_files)

    @cached_property
    def _placed(self) -> tuple[Params, Mesh]:
        """The parameters where they are used, and the mesh over which batches are split."""
        sharding = getattr(self.params["logit_scale"], "sharding", None)
        if isinstance(sharding, NamedSharding):  # in training they lie on its mesh already
            return self.params, sharding.mesh  # pyright: ignore[reportReturnType]
        mesh = make_mesh(MeshConfig(), jax.local_devices())
        return jax.device_put(self.params, NamedSharding(mesh, P())), mesh

    def _encode(
        self,
        encoder: Callable[[ClipConfig, ComputeConfig, bool], Callable[..., Array]],
        inputs: Sequence[Any] | np.ndarray,
        normalize: bool,
        batch_size: int,
        unit: str,
        prepare: Callable[[Any], np.ndarray] = lambda batch: batch,
    ) -> np.ndarray:
        """What the encoder makes of all inputs, `batch_size` at once; no progress is shown without a `unit`."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if len(inputs) == 0:
            return np.zeros((0, self.config.embed_dim), np.float32)
        params, mesh = self._placed
        encode = encoder(self.config, self.compute, normalize)
        rows = _rows(min(batch_size, len(inputs)), batch_size, mesh.shape["data"] * mesh.shape["fsdp"])
        parts = []
        with _progress(len(inputs), unit) as progress:
            for start in range(0, len(inputs), rows):
                batch = prepare(inputs[start : start + rows])
                padded = np.concatenate([batch, np.zeros((rows - len(batch), *batch.shape[1:]), batch.dtype)])
                parts.append(np.asarray(encode(params, jax.device_put(padded, batch_sharding(mesh))))[: len(batch)])
                progress.update(len(batch))
        return np.concatenate(parts)

    def _encode_texts(self, texts: Sequence[str], normalize: bool, batch_size: int, unit: str) -> np.ndarray:
        """As `_encode`, from the shortest text to the longest: short ones are quick together."""
        tokens = self.tokenize(texts)
        order = np.argsort(np.count_nonzero(tokens != tokens[:, -1:], axis=1))
        embeddings = self._encode(_text_encoder, tokens[order], normalize, batch_size, unit, self._without_padding)
        return embeddings[np.argsort(order)]

    def _without_padding(self, tokens: Int32[np.ndarray, "b context"]) -> Int32[np.ndarray, "b n"]:
        return without_padding(self.config.text, tokens)

    def _checked_pixels(self, pixels: Any) -> Any:
        size = self.config.vision.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
            raise UserError(
                f"preprocessed images must be float32 [b, {size}, {size}, 3], not {list(pixels.shape)}; "
                "give uint8 images to have them preprocessed"
            )
        return np.asarray(pixels, np.float32)

    def _checked_tokens(self, tokens: Any) -> Any:
        context = self.config.text.context_length
        if not np.issubdtype(tokens.dtype, np.integer) or tokens.ndim != 2 or tokens.shape[1] != context:
            raise UserError(f"tokens must be integers [b, {context}], not {tokens.dtype} {list(tokens.shape)}")
        tokens, vocabulary = np.asarray(tokens, np.int32), self.config.text.vocab_size
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocabulary:
            raise UserError(
                f"token ids run from {tokens.min()} to {tokens.max()}; they must lie in 0..{vocabulary - 1}"
            )
        return tokens


def create(name: str, seed: int = 0) -> Clip:
    """A randomly initialised model of a named architecture, with PyTorch CLIP's initialisation.

    Raises UserError for a name that `list_models()` does not have.
    """
    config = get_config(name)
    return Clip(config, jax.jit(init_params, static_argnums=0)(config, jax.random.key(seed)))


def load(
    path_or_name: str | os.PathLike[str],
    dtype: Any = "float32",
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    resample_text: bool = False,
    model: str | None = None,
    activation: Activation | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Clip:
    """A model from a path in any layout, a training workdir's newest checkpoint, or a name of the Hugging Face hub.

    Layouts are recognised by content: clip_jax, open_clip, OpenAI, transformers' CLIPModel and SiglipModel, and
    big_vision's SigLIP. A workdir may be in a bucket, as gs://BUCKET/FOLDER. Names are those of `list_pretrained()`, or
    `hf-hub:OWNER/NAME[@REVISION]`; `revision`, `token` and `cache_dir` are as huggingface_hub takes them. `dtype`
    (float32 or bfloat16) is the type of the parameters and of the computation. `image_size` resamples the image
    positions to another resolution; `context_length` keeps the first text positions, or stretches all of them with
    `resample_text`. Weights without a config need what shapes do not tell: `model`, the name of an architecture, or
    `activation` and the numbers of heads. Raises UserError.
    """
    compute = ComputeConfig(dtype=_dtype_name(dtype))
    hints = Hints(model, activation, vision_heads, text_heads)
    checkpoint = find_checkpoint(path_or_name, hints, revision, token, None if cache_dir is None else Path(cache_dir))
    checkpoint = resized(checkpoint, image_size, context_length, resample_text)
    leaves, strange = {}, []
    for path, parameter in checkpoint.parameters.items():
        values = parameter.read(None)
        # Scalars and the running statistics of batch norms stay exact: each enters very many values alike.
        exact = values.ndim == 0 or path.endswith(STATISTICS)
        leaves[path] = jnp.asarray(values, "float32" if exact else compute.dtype)
        if not is_finite(values):
            strange.append(path)
    if strange:
        raise UserError(f"these weights of {path_or_name} are not finite (NaN or infinite): {', '.join(strange)}")
    return Clip(checkpoint.config, unflatten(leaves), compute, checkpoint.origin, checkpoint.tokenizer_files)


def save(clip: Clip, path: str | os.PathLike[str], layout: str = "clip_jax") -> None:
    """Writes a model into the folder `path`, in the layout clip_jax, open_clip, hf (transformers) or openai.

    A model that is there already is replaced, and other files stay. The folder appears whole or not at all.
    Raises UserError.
    """
    checkpoint = in_memory(clip.config, clip.params, clip.origin, clip.tokenizer_files)
    write_checkpoint(checkpoint, as_path(path), layout, overwrite=True)


@lru_cache(maxsize=32)
def _image_encoder(config: ClipConfig, compute: ComputeConfig, normalize: bool) -> Callable[..., Array]:
    return _compiled(Clip(config, {}, compute).apply_image, normalize)


@lru_cache(maxsize=32)
def _text_encoder(config: ClipConfig, compute: ComputeConfig, normalize: bool) -> Callable[..., Array]:
    return _compiled(Clip(config, {}, compute).apply_text, normalize)


@lru_cache(maxsize=32)
def _feature_encoder(config: ClipConfig, compute: ComputeConfig, normalize: bool) -> Callable[..., Array]:
    del normalize

    def both(params, pixels):
        embedding, named = Clip(config, {}, compute).apply_image(params, pixels, intermediates=True)
        return jnp.concatenate([embedding, named["pre_projection"]], axis=-1)

    return _compiled(both, normalize=False)


def _compiled(apply: Callable[..., Array], normalize: bool) -> Callable[..., Array]:
    def encode(params, inputs):
        features = apply(params, inputs).astype(jnp.float32)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True) if normalize else features

    return jax.jit(encode)


def _progress(total: int, unit: str) -> tqdm:
    """Progress that the first process shows when it takes long; none without a `unit`."""
    hidden = not (unit and is_first())
    return tqdm(total=total, unit=f" {unit}", delay=PROGRESS_AFTER_SECONDS, leave=False, disable=hidden)


def _rows(wanted: int, most: int, devices: int) -> int:
    """A batch of at least `wanted` rows that splits over the devices; powers of two below `most`, to compile seldom."""
    rows = min(1 << (wanted - 1).bit_length(), most)
    return -(-rows // devices) * devices


def _precision(compute: ComputeConfig) -> str:
    # TPUs and GPUs multiply float32 in fewer bits unless told otherwise.
    return "highest" if compute.dtype == "float32" else "default"


def _dtype_name(dtype: Any) -> Any:
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype {name} is not supported; float32 and bfloat16 are")
    return name


def _is_float_array(images: Any) -> bool:
    return isinstance(images, np.ndarray | jax.Array) and jnp.issubdtype(images.dtype, jnp.floating)


def _is_one_image(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim == 3
    # Anything else that is no sequence counts as one too: opening it says what an image may be.
    return isinstance(images, str | bytes) or not isinstance(images, Sequence)
