"""SigLIP's .npz files of big_vision, made here from transformers' SiglipModel, read and turned into other layouts."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest
from support.big_vision import IMAGE, WORDS, siglip, to_big_vision, write_npz
from support.checkpoints import (
    MAP,
    MAP_WORDS,
    channels_first,
    open_clip_model,
    random_pixels,
    random_tokens,
    toy_siglip,
)
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import c4_like, gemma_json
from support.torch_clip import randomise

import clip_jax
from clip_jax import UserError
from clip_jax.config import PreprocessConfig, TokenizerConfig, VisionConfig

torch = pytest.importorskip("torch")
import_open_clip()  # transformers imports torchvision, which may need its help
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("root", ["params/", ""])
@pytest.mark.parametrize("scanned", [False, True])
def test_a_file_needs_no_flags(tmp_path, scanned, root):
    clip = clip_jax.load(write_npz(tmp_path / "siglip.npz", scanned=scanned, root=root))
    assert isinstance(clip.config.vision, VisionConfig)
    vision, text = clip.config.vision.transformer, clip.config.text.transformer
    assert (vision.heads, text.heads) == (3, 5)
    assert {vision.activation, text.activation} == {"gelu_tanh"}
    assert {vision.norm_epsilon, text.norm_epsilon} == {1e-6}
    assert clip.config.preprocess == PreprocessConfig("squash", "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    pixels, tokens = random_pixels(32), random_tokens(9, 700, 699)
    with torch.no_grad():
        theirs = siglip()(pixel_values=channels_first(pixels), input_ids=torch.tensor(tokens).long())
        image, text = theirs.vision_model_output.pooler_output, theirs.text_model_output.pooler_output
    assert relative_error(clip.encode_image(pixels), image) <= 1e-5
    assert relative_error(clip.encode_text(tokens), text) <= 1e-5
    assert (clip.logit_scale, clip.logit_bias) == pytest.approx(
        (siglip().logit_scale.exp().item(), siglip().logit_bias.item()), rel=1e-6
    )


@pytest.mark.parametrize("scanned", [False, True])
def test_transformers_loads_what_it_becomes(tmp_path, scanned):
    clip_jax.save(clip_jax.load(write_npz(tmp_path / "siglip.npz", scanned=scanned)), tmp_path / "hf", layout="hf")
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf")
    tensors = siglip().state_dict()
    assert model.state_dict().keys() == tensors.keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[key]), key


@pytest.fixture
def toy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        toy_siglip(patch)
        yield


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("scanned", [False, True])
def test_open_clip_reads_the_same_from_it(tmp_path, scanned):
    """By its own reader of these files, into towers with the exact GELU."""
    from open_clip.convert import load_big_vision_weights

    path = tmp_path / "siglip.npz"
    model = open_clip_model(
        {
            **{"embed_dim": 48, "init_logit_bias": -10, "custom_text": True, "vision_cfg": MAP},
            "text_cfg": {**MAP_WORDS, "width": 40, "heads": 5, "mlp_ratio": 1.75, "vocab_size": 700, "proj_bias": True},
        }
    )
    tensors = siglip().state_dict()
    # The towers of timm's toy are 2.5 times as wide in their MLPs.
    config = transformers.SiglipConfig(text_config=WORDS, vision_config={**IMAGE, "intermediate_size": 120})
    tensors = randomise(transformers.SiglipModel(config), seed=9).state_dict()
    np.savez(path, allow_pickle=False, **{f"params/{k}": v for k, v in to_big_vision(tensors, scanned).items()})
    load_big_vision_weights(model, str(path))
    clip = clip_jax.load(path, activation="gelu")
    pixels, tokens = random_pixels(32), random_tokens(9, 700, 699)
    with torch.no_grad():
        image, text = model.encode_image(channels_first(pixels)), model.encode_text(torch.tensor(tokens).long())
    assert relative_error(clip.encode_image(pixels), image) <= 1e-5
    assert relative_error(clip.encode_text(tokens), text) <= 1e-5


def test_by_way_of_a_folder(tmp_path):
    clip = clip_jax.load(write_npz(tmp_path / "siglip.npz"))
    clip_jax.save(clip, tmp_path / "model")
    again = clip_jax.load(tmp_path / "model")
    assert again.config == clip.config
    jax.tree.map(np.testing.assert_array_equal, again.params, clip.params)


def test_the_tokenizer_of_an_unknown_vocabulary_is_not_guessed(tmp_path):
    clip = clip_jax.load(write_npz(tmp_path / "siglip.npz"))
    with pytest.raises(
        UserError, match=r"tokenizer\.json, which is missing; put the one that the model was trained with"
    ):
        clip.encode_text("a dog")


def test_the_tokenizer_of_a_known_vocabulary_is_named(tmp_path):
    clip = clip_jax.load(write_npz(tmp_path / "siglip.npz", vocab_size=32_000))
    assert clip.config.tokenizer == TokenizerConfig(
        "tokenizer_json", "canonicalize", "tokenizer.json", "timm/ViT-B-16-SigLIP", pad_id=1
    )
    with pytest.raises(
        UserError, match=r"put the one of https://huggingface.co/timm/ViT-B-16-SigLIP beside the weights"
    ):
        clip.encode_text("a dog")


@pytest.mark.parametrize(("file", "contents"), [("tokenizer.json", gemma_json), ("spiece.model", c4_like)])
def test_a_tokenizer_beside_the_weights_is_used(tmp_path, file, contents):
    write_npz(tmp_path / "siglip.npz", vocab_size=32_000)
    (tmp_path / file).write_bytes(contents())
    clip = clip_jax.load(tmp_path / "siglip.npz")
    tokens = clip.tokenize(["A photo, of a DOG!"])
    assert tokens.shape == (1, 9)
    np.testing.assert_array_equal(tokens, clip.tokenize(["a photo of a dog"]))  # SigLIP's cleaning
    assert tokens[0, -1] == 1  # its padding
    clip_jax.save(clip, tmp_path / "model")
    np.testing.assert_array_equal(clip_jax.load(tmp_path / "model").tokenize(["a photo of a dog"]), tokens)
