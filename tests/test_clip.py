"""What `Clip` promises: every form of input, batches of any size, classification, and errors of one line."""

import io
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import clip_jax
from clip_jax import UserError
from clip_jax.config import ClipConfig


def noise(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    """Smooth enough that resizing leaves differences between images."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def close(ours, expected) -> None:
    """Equal but for the order of float32 sums."""
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    return (images @ texts.T) / np.outer(np.linalg.norm(images, axis=1), np.linalg.norm(texts, axis=1))


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((19, 16, 16, 3)).astype(np.float32)


def test_every_form_of_image(toy, tmp_path):
    array = noise(1)
    image = Image.fromarray(array)
    image.save(tmp_path / "image.png")
    png = io.BytesIO()
    image.save(png, "PNG")
    forms = [array, image, tmp_path / "image.png", str(tmp_path / "image.png"), png.getvalue()]
    together = toy.encode_image(forms)
    assert together.dtype == np.float32
    assert together.shape == (5, 24)
    close(together, np.repeat(together[:1], 5, axis=0))
    for form in forms:
        one = toy.encode_image(form)
        assert one.shape == (24,)
        close(one, together[0])
    prepared = toy.preprocess(forms)
    close(toy.encode_image(prepared), together)
    close(toy.encode_image(jnp.asarray(prepared)), together)
    close(toy.encode_image(np.stack([array, noise(2)])), toy.encode_image([array, noise(2)]))


def test_every_form_of_text(toy):
    texts = ["a dog", "two cats on a mat", ""]
    together = toy.encode_text(texts)
    assert together.dtype == np.float32
    assert together.shape == (3, 24)
    close(toy.encode_text("two cats on a mat"), together[1])
    assert toy.encode_text("a dog").shape == (24,)
    close(toy.encode_text(tuple(texts)), together)
    tokens = toy.tokenize(texts)
    for form in (tokens, tokens.astype(np.int64), jnp.asarray(tokens)):
        close(toy.encode_text(form), together)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 16, 19, 64])
def test_batch_size_does_not_matter(toy, pixels, batch_size):
    close(toy.encode_image(pixels, batch_size=batch_size), toy.encode_image(pixels, batch_size=32))
    texts = [f"text number {i}" for i in range(11)]
    close(toy.encode_text(texts, batch_size=batch_size), toy.encode_text(texts))


def test_features_are_those_of_apply(toy, pixels):
    """Padding, splitting over devices and jit against plain calls, one row after the other."""
    expected = np.concatenate([toy.apply_image(toy.params, jnp.asarray(row[None])) for row in pixels[:3]])
    close(toy.encode_image(pixels[:3]), expected)
    tokens = toy.tokenize(["a", "b c d"])
    expected = np.concatenate([toy.apply_text(toy.params, jnp.asarray(row[None])) for row in tokens])
    close(toy.encode_text(tokens), expected)


def test_normalize(toy, pixels):
    for encode, given in ((toy.encode_image, pixels), (toy.encode_text, ["a", "b c"])):
        features = encode(given)
        assert not np.allclose(np.linalg.norm(features, axis=1), 1, atol=0.01)
        close(encode(given, normalize=True), features / np.linalg.norm(features, axis=1, keepdims=True))


def test_nothing_in_nothing_out(toy, pixels):
    assert toy.encode_image([]).shape == toy.encode_text([]).shape == (0, 24)
    assert toy.encode_image(pixels[:0]).shape == (0, 24)


def test_similarity_is_the_scaled_cosine(toy, pixels):
    texts = ["a dog", "a cat", "two"]
    expected = np.exp(float(toy.params["logit_scale"])) * cosines(toy.encode_image(pixels), toy.encode_text(texts))
    ours = toy.similarity(pixels, texts)
    assert ours.dtype == np.float32
    close(ours, expected)
    assert toy.similarity(noise(1), "a dog").shape == (1, 1)


@pytest.mark.parametrize("templates", [None, "a drawing of {}", ["a {}.", "no {}, but {}", "{}"]])
def test_classify(toy, templates):
    images, labels = [noise(seed) for seed in range(3)], ["dog", "grey cat", "house"]
    wordings = {None: ["a photo of a {}."], "a drawing of {}": ["a drawing of {}"]}.get(
        templates if not isinstance(templates, list) else "", templates
    )
    classes = []
    for label in labels:
        prompts = toy.encode_text([wording.replace("{}", label) for wording in wordings]).astype(np.float64)
        mean = (prompts / np.linalg.norm(prompts, axis=1, keepdims=True)).mean(axis=0)
        classes.append(mean / np.linalg.norm(mean))
    scale = np.exp(float(toy.params["logit_scale"]))
    expected = softmax(scale * cosines(toy.encode_image(images), np.stack(classes)))

    answers = toy.classify(images, labels, templates)
    assert [list(answer) for answer in answers] == [labels] * 3
    assert all(type(value) is float for answer in answers for value in answer.values())
    np.testing.assert_allclose([list(answer.values()) for answer in answers], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose([sum(answer.values()) for answer in answers], 1, rtol=0, atol=1e-6)
    one = toy.classify(images[1], labels, templates)
    assert one == pytest.approx(answers[1], abs=1e-5)
    assert expected.std() > 0.01  # the images and labels are told apart at all


def test_classify_takes_preprocessed_pixels_and_any_sequence_of_labels(toy):
    images = [noise(seed) for seed in range(2)]
    answers = toy.classify(toy.preprocess(images), ("dog", "cat"))
    assert answers == [pytest.approx(answer, abs=1e-5) for answer in toy.classify(images, ["dog", "cat"])]


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], None, "there are no labels"),
        (["dog", "cat", "dog"], None, "label 'dog' stands 2 times"),
        (["dog", " "], None, "every label must be a string that is not empty"),
        ("dog", None, "labels must be a list of strings, not the string 'dog'"),
        (["dog"], "a photo", "template 'a photo' has no {} to put the label in"),
        (["dog"], ["a {}", "a photo"], "template 'a photo' has no {} to put the label in"),
        ([3], None, "every label must be a string"),
    ],
)
def test_labels_and_templates_that_are_refused(toy, untyped, labels, templates, message):
    with pytest.raises(UserError) as caught:
        toy.classify(noise(0), labels, templates)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clip: clip.encode_image("absent.jpg"), "image 'absent.jpg' does not exist"),
        (lambda clip: clip.encode_image([noise(0), "absent.jpg"]), "image 'absent.jpg' does not exist"),
        (lambda clip: clip.encode_image(np.zeros((3, 32, 32, 3), np.float32)), "must be float32 [b, 16, 16, 3], not"),
        (lambda clip: clip.encode_image(np.zeros((16, 16, 3), np.float32)), "must be float32 [b, 16, 16, 3], not"),
        (lambda clip: clip.encode_image(np.zeros((16, 16, 4), np.uint8)), "uint8 of shape [h, w, 3]"),
        (lambda clip: clip.encode_image(np.zeros((16, 16, 3), np.int32)), "uint8 of shape [h, w, 3]"),
        (lambda clip: clip.encode_image(np.zeros((16, 16), np.uint8)), "uint8 of shape [h, w, 3]"),
        (lambda clip: clip.encode_image([None]), "an image must be a path"),
        (lambda clip: clip.encode_image(noise(0), batch_size=0), "batch_size is 0"),
        (lambda clip: clip.encode_text(np.zeros((2, 77), np.int32)), "tokens must be integers [b, 12], not int32"),
        (lambda clip: clip.encode_text(np.zeros(12, np.int32)), "tokens must be integers [b, 12], not int32 [12]"),
        (lambda clip: clip.encode_text(np.zeros((2, 12), np.float32)), "tokens must be integers [b, 12], not float32"),
        (lambda clip: clip.encode_text(["a", 3]), "a text must be a string, not 3"),
    ],
)
def test_inputs_that_are_refused(toy, untyped, call, message):
    with pytest.raises(UserError) as caught:
        call(toy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_over_long_text_keeps_its_end_token(toy):
    long, end = "a photo of " * 20, toy.config.text.vocab_size - 1
    tokens = toy.tokenize([long, "a"])
    assert tokens.shape == (2, 12)
    assert tokens.dtype == np.int32
    assert tokens[0, -1] == end
    assert list(tokens[0]).count(end) == 1
    assert list(tokens[1, 3:]) == [0] * 9
    assert np.isfinite(toy.encode_text(long)).all()


def test_what_stands_behind_the_end_token_does_not_matter(toy):
    tokens = toy.tokenize(["a dog"])
    changed = np.where(tokens == 0, 5, tokens)
    assert (changed != tokens).any()
    close(toy.encode_text(changed), toy.encode_text(tokens))


def test_exif_orientation_on_request_only(toy):
    upright = Image.fromarray(noise(3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    file = io.BytesIO()
    upright.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(toy.preprocess(file.getvalue()), toy.preprocess(upright))
    turned = upright.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(toy.preprocess(file.getvalue(), exif=True), toy.preprocess(turned))
    assert not np.array_equal(toy.preprocess(turned), toy.preprocess(upright))


def test_apply_under_jit_vmap_and_grad(toy, pixels):
    batch = jnp.asarray(pixels[:3])
    image = jax.jit(lambda images: toy.apply_image(toy.params, images))
    close(jax.vmap(lambda one: image(one[None])[0])(batch), image(batch))
    tokens = jnp.asarray(toy.tokenize(["a dog", "a cat", "a"]))
    text = jax.jit(lambda tokens: toy.apply_text(toy.params, tokens))
    close(jax.vmap(lambda one: text(one[None])[0])(tokens), text(tokens))

    length = jax.jit(lambda images: (toy.apply_image(toy.params, images) ** 2).sum())
    gradient = jax.grad(length)(batch)
    direction = jnp.asarray(np.random.default_rng(1).standard_normal(batch.shape), jnp.float32)
    step = 1e-2
    difference = (length(batch + step * direction) - length(batch - step * direction)) / (2 * step)
    assert jnp.vdot(gradient, direction) == pytest.approx(float(difference), rel=1e-2)


def test_params_are_an_argument(toy, pixels):
    """Apply depends on the parameters given, not on those of the Clip."""
    batch = jnp.asarray(pixels[:2])
    doubled = toy.params | {"visual": toy.params["visual"] | {"projection": 2 * toy.params["visual"]["projection"]}}
    close(toy.apply_image(doubled, batch), 2 * toy.apply_image(toy.params, batch))
    close(replace(toy, params=doubled).encode_image(pixels[:2]), 2 * toy.encode_image(pixels[:2]))


def test_every_local_device_takes_part(toy, pixels):
    params, mesh = toy._placed
    assert mesh.size == len(jax.local_devices()) == 8
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(params))


def test_create():
    clip = clip_jax.create("tiny")
    assert isinstance(clip.config, ClipConfig)
    assert clip.params["logit_scale"] == pytest.approx(np.log(1 / 0.07))
    assert {leaf.dtype for leaf in jax.tree.leaves(clip.params)} == {jnp.dtype("float32")}
    assert clip.encode_text("a dog").shape == (clip.config.embed_dim,)
    with pytest.raises(UserError, match=r"^unknown model 'tinny'; did you mean 'tiny'\?$"):
        clip_jax.create("tinny")
