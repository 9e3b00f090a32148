"""The migration page's Python: both cells of every row are executed, theirs beside ours, and the numbers compared."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.big_vision import siglip, write_npz
from support.checkpoints import channels_first, random_pixels, random_tokens, write_json
from support.closeness import relative_error
from support.markdown import GUIDES, blocks, code, table
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import c4_like
from support.torch_clip import randomise

import clip_jax
from clip_jax.cli.main import main

torch = pytest.importorskip("torch")
open_clip = import_open_clip()
transformers = pytest.importorskip("transformers")

PAGE = next(page for page in GUIDES if page.name == "migration.md")
ROTATED = 6  # EXIF's word for an image that is to be turned by a quarter
WORDS = {"hidden_size": 40, "intermediate_size": 70, "num_hidden_layers": 2, "num_attention_heads": 5}
WORDS |= {"vocab_size": 200, "max_position_embeddings": 64, "projection_size": 36, "bos_token_id": 1, "pad_token_id": 0}
PICTURE = {"hidden_size": 36, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 3}
PICTURE |= {"image_size": 37, "patch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the page's rows read: a model with nothing at its initial value in every layout, and an image."""
    root = tmp_path_factory.mktemp("migration")
    rng = np.random.default_rng(0)
    clip = clip_jax.create("tiny")
    noise = jax.tree.map(lambda leaf: 0.05 * rng.standard_normal(leaf.shape).astype(np.float32), clip.params)
    clip = replace(clip, params=jax.tree.map(np.add, clip.params, noise))
    for layout, name in (("open_clip", "oc"), ("hf", "hf")):
        clip_jax.save(clip, root / name, layout=layout)
    config = transformers.SiglipConfig(text_config=WORDS, vision_config=PICTURE)
    randomise(transformers.SiglipModel(config).eval(), seed=4).save_pretrained(root / "siglip")
    size = {"height": PICTURE["image_size"], "width": PICTURE["image_size"]}
    transformers.SiglipImageProcessorPil(size=size).save_pretrained(root / "siglip")
    (root / "siglip" / "spiece.model").write_bytes(c4_like())
    special = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(root / "siglip" / "tokenizer_config.json", {"tokenizer_class": "SiglipTokenizer", **special})
    write_npz(root / "siglip.npz")
    picture = Image.fromarray(rng.integers(0, 256, (19, 28, 3), dtype=np.uint8)).resize((91, 66))
    picture.save(root / "a.jpg", quality=95)
    exif = Image.Exif()
    exif[0x112] = ROTATED
    picture.save(root / "turned.jpg", quality=95, exif=exif)
    return root


@pytest.fixture
def names(folder, monkeypatch, untyped) -> dict[str, Any]:
    """The names that every row may use: the libraries, and what the page's own Python block defines."""
    monkeypatch.chdir(folder)
    modules = {"open_clip": open_clip, "torch": torch, "transformers": transformers, "clip_jax": clip_jax}
    names = {**modules, "jax": jax, "jnp": jnp, "np": np}
    exec(blocks(PAGE, "python")[0].text, names)
    return names


def value_of(source: str, names: dict[str, Any]) -> Any:
    """The value of an expression; None of a statement, which is executed."""
    try:
        expression = compile(source, "<row>", "eval")
    except SyntaxError:
        exec(source, names)
        return None
    return eval(expression, names)


def numbers(value: Any) -> np.ndarray:
    """As an array, images channels last, and one number without a shape."""
    if isinstance(value, dict):
        value = list(value.values())
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.shape == (1,):
        return array[0]
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.shape[1] == 3 else array


def check_rows(rows: list[tuple[str, ...]], theirs: dict[str, Any], ours: dict[str, Any]) -> int:
    """Executes the rows, each side with its own names, and compares what both give; how many that were."""
    compared = 0
    for left, right, _ in rows:
        with torch.no_grad():
            expected = value_of("".join(code(left)), theirs)
        found = value_of("".join(code(right)), ours) if right else None
        if expected is None or found is None:
            assert expected is found, left  # statements on both sides, or one that ours has no need of
            continue
        assert_equal(found, expected, right)
        compared += 1
    return compared


def assert_equal(found: Any, expected: Any, where: str) -> None:
    found, expected = numbers(found), numbers(expected)
    assert found.shape == expected.shape, where
    if np.issubdtype(expected.dtype, np.integer):
        np.testing.assert_array_equal(found, expected, err_msg=where)
    else:
        assert relative_error(found, expected) <= 1e-5, where


def test_versions_are_those_that_the_page_says():
    major, _, _ = version("transformers").partition(".")
    said = f"with open_clip_torch {version('open_clip_torch')} and transformers {major}."
    assert said in " ".join(PAGE.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("library", "least"), [("open_clip", 13), ("transformers", 15)])
def test_both_sides_of_every_row_agree(names, library, least):
    rows = table(PAGE, library, "clip_jax", "what differs")
    assert check_rows(rows, dict(names), dict(names)) >= least


def test_flax_clip(names):
    """Ours only, beside the model of transformers that computed the same."""
    model = transformers.CLIPModel.from_pretrained("hf")
    image, texts = names["image"], names["texts"]
    tokenizer = transformers.CLIPTokenizer.from_pretrained("hf")
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    pixels = transformers.CLIPImageProcessorPil.from_pretrained("hf")(images=image, return_tensors="pt").pixel_values
    with torch.no_grad():
        outputs = model(**tokens, pixel_values=pixels)
        features = {
            "get_image_features": model.get_image_features(pixel_values=pixels).pooler_output,
            "get_text_features": model.get_text_features(**tokens).pooler_output,
            "logits_per_image": outputs.logits_per_image,
        }
    compared = set()
    for left, right, _ in table(PAGE, "FlaxCLIP", "clip_jax", "what differs"):
        found = value_of(code(right)[0], names)
        for name, expected in features.items():
            if name in left:
                assert_equal(found, expected, right)
                compared.add(name)
        assert found is not None or "from_pretrained" in left
    assert compared == features.keys()
    assert {leaf.dtype.name for leaf in jax.tree.leaves(names["clip"].params)} == {"bfloat16", "float32"}


def test_where_the_parameters_of_flax_clip_are(names):
    """Flax transposed PyTorch's matrices and called gains and embeddings otherwise."""
    tensors = transformers.CLIPModel.from_pretrained("hf").state_dict()
    names["p"] = clip_jax.load("hf").params
    rows = table(PAGE, "`model.params`", "`clip.params`")
    for left, right in rows:
        [path], [ours] = code(left), code(right)
        *module, leaf = path.split("/")
        key = ".".join([*module, leaf if leaf in ("bias", "logit_scale", "class_embedding") else "weight"])
        expected = tensors[key].numpy()
        if leaf == "kernel":
            expected = expected.transpose(2, 3, 1, 0) if expected.ndim == 4 else expected.T
        np.testing.assert_array_equal(value_of(ours, names), expected, err_msg=path)
    assert len(rows) > 10


def test_big_vision(names):
    """Ours only, beside the numbers of the model in PyTorch that the file was made of."""
    model = siglip()
    pixels, tokens = random_pixels(32), random_tokens(9, 700, 699)
    with torch.no_grad():
        outputs = model(pixel_values=channels_first(pixels), input_ids=torch.tensor(tokens).long())
    expected = (
        None,
        outputs.image_embeds,
        outputs.text_embeds,
        [model.logit_scale.exp().item(), model.logit_bias.item()],
        outputs.logits_per_image.sigmoid(),
    )
    names |= {"pixels": pixels, "tokens": tokens}
    rows = table(PAGE, "big_vision", "clip_jax", "what differs")
    for (_, right, _), values in zip(rows, expected, strict=True):
        found = value_of(code(right)[0], names)
        assert (found is None) == (values is None)
        if values is not None:
            assert_equal(found, values, right)


def test_a_checkpoint_of_their_trainer_is_converted(names, tmp_path):
    """As open_clip_train's main saves it, with the optimizer's state beside the weights."""
    model, _, _ = open_clip.create_model_and_transforms("local-dir:oc")
    optimizer = torch.optim.AdamW(model.parameters())
    model.encode_text(torch.ones(2, 32, dtype=torch.int64)).sum().backward()
    optimizer.step()
    held = {"epoch": 3, "name": "run", "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(held, tmp_path / "epoch_3.pt")
    main(["convert", str(tmp_path / "epoch_3.pt"), str(tmp_path / "ours"), "--model", "tiny"])
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer("local-dir:oc")(names["texts"]))
    assert_equal(clip_jax.load(tmp_path / "ours").encode_text(names["texts"]), expected, "epoch_3.pt")


def test_what_differs_everywhere(names, folder):
    """EXIF, transparency, the default image processor of transformers, and the context length."""
    clip = clip_jax.load("oc")
    _, _, preprocess = open_clip.create_model_and_transforms("local-dir:oc")
    with Image.open("turned.jpg") as image:
        np.testing.assert_array_equal(clip.preprocess("turned.jpg"), numbers(preprocess(image)[None]))
    upright = transformers.image_utils.load_image("turned.jpg")
    np.testing.assert_array_equal(clip.preprocess("turned.jpg", exif=True), numbers(preprocess(upright)[None]))

    clear = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    white, black = (Image.new("RGB", (50, 50), colour) for colour in ("white", "black"))
    np.testing.assert_array_equal(clip.preprocess(clear), clip.preprocess(white))
    np.testing.assert_array_equal(preprocess(clear), preprocess(black))
    pil = transformers.CLIPImageProcessorPil.from_pretrained("hf")
    np.testing.assert_array_equal(pil(clear).pixel_values, pil(white).pixel_values)

    processor = transformers.CLIPImageProcessor.from_pretrained("hf")
    theirs = numbers(processor(images=names["image"], return_tensors="pt").pixel_values)
    levels = 255 * np.array(clip.config.preprocess.std) * np.abs(theirs - clip_jax.load("hf").preprocess("a.jpg"))
    assert 0.1 < levels.max() < 1.01

    tokens = open_clip.get_tokenizer("local-dir:oc")(names["texts"], context_length=6).numpy()
    np.testing.assert_array_equal(clip_jax.load("oc", context_length=6).tokenize(names["texts"]), tokens)
