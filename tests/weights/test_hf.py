"""Folders of transformers' CLIPModel and SiglipModel, read, run, written back and loaded again by transformers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.checkpoints import channels_first, random_pixels, random_tokens, stored, write_jpegs, write_json
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import c4_like
from support.torch_clip import randomise
from support.varied_texts import varied_texts

import clip_jax
from clip_jax import Clip, UserError
from clip_jax.config import TokenizerConfig
from clip_jax.weights.checkpoint import Origin
from clip_jax.weights.hf_config import from_hf
from clip_jax.weights.loading import find_checkpoint
from clip_jax.weights.writing import write_checkpoint

torch = pytest.importorskip("torch")
import_open_clip()  # transformers imports torchvision, which may need its help
transformers = pytest.importorskip("transformers")

WEIGHTS, CONFIG = "model.safetensors", "config.json"

WORDS = {
    **{"vocab_size": 60, "hidden_size": 40, "intermediate_size": 70, "num_hidden_layers": 2},
    **{"num_attention_heads": 5, "max_position_embeddings": 9, "bos_token_id": 1, "pad_token_id": 0},
}
IMAGE = {
    **{"hidden_size": 36, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"image_size": 37, "patch_size": 8},
}
SHORT = {**WORDS, "num_hidden_layers": 1}
ONE = {**IMAGE, "num_hidden_layers": 1}
# transformers' text and vision configs, and what belongs to both.
CLIP: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "largest id": ({**WORDS, "eos_token_id": 2}, {**IMAGE, "layer_norm_eps": 1e-3}, {"projection_dim": 20}),
    "last id": (
        {**SHORT, "eos_token_id": 49407, "vocab_size": 49408, "max_position_embeddings": 16, "hidden_act": "gelu"},
        {**ONE, "hidden_act": "gelu"},
        {"projection_dim": 20, "logit_scale_init_value": 3.0},
    ),
    "another id": (
        {**SHORT, "eos_token_id": 7, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6},
        {**ONE, "hidden_act": "gelu_pytorch_tanh"},
        {"projection_dim": 20},
    ),
    "defaults": ({"num_hidden_layers": 1, "vocab_size": 600}, {"num_hidden_layers": 1}, {}),
}
SIGLIP: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "SigLIP": ({**WORDS, "vocab_size": 200, "projection_size": 36}, {**IMAGE, "layer_norm_eps": 1e-5}, {}),
    "SigLIP, defaults": ({"num_hidden_layers": 1, "vocab_size": 600}, {"num_hidden_layers": 1}, {}),
}
# What the image processor of each is told.
PROCESSORS: dict[str, dict[str, Any]] = {
    "largest id": {"size": {"shortest_edge": 37}, "crop_size": {"height": 37, "width": 37}},
    "last id": {
        "size": {"shortest_edge": 37},
        "crop_size": {"height": 37, "width": 37},
        "resample": 2,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    },
    "another id": {"size": {"height": 37, "width": 37}, "do_center_crop": False},
    "defaults": {},
    "SigLIP": {"size": {"height": 37, "width": 37}, "resample": 2},
    "SigLIP, defaults": {},
}
# The widths of the defaults are those of released models, so that these take long.
NAMES = [pytest.param(name, marks=pytest.mark.slow if "defaults" in name else ()) for name in (*CLIP, *SIGLIP)]


@dataclass(frozen=True)
class Source:
    """A folder of transformers, the model in it, and what we read from it."""

    name: str
    folder: Path
    model: Any
    clip: Clip

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        text = self.clip.config.text
        last = text.vocab_size - 1
        end = last if text.end_token_id is None else min(text.end_token_id, last)
        pixels = random_pixels(self.clip.config.vision.image_size)
        return pixels, random_tokens(text.context_length, text.vocab_size, end)


@lru_cache
def model_of(name: str) -> Any:
    text, vision, both = (CLIP | SIGLIP)[name]
    kind = "CLIP" if name in CLIP else "Siglip"
    config = getattr(transformers, f"{kind}Config")(text_config=dict(text), vision_config=dict(vision), **both)
    return randomise(getattr(transformers, f"{kind}Model")(config).eval(), seed=4)


def image_processor(name: str, **options: Any) -> Any:
    kind = transformers.CLIPImageProcessorPil if name in CLIP else transformers.SiglipImageProcessorPil
    return kind(**(PROCESSORS[name] | options))


@lru_cache
def clip_tokenizer() -> Any:
    """The library's own, from open_clip's copy of the vocabulary."""
    simple = import_open_clip().tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): id for token, id in simple.encoder.items()}
    return transformers.CLIPTokenizer(vocab=vocab, merges=list(simple.bpe_ranks))


def write_hf(folder: Path, name: str, tensors: Mapping[str, Any] | None = None) -> Path:
    """A folder as save_pretrained leaves it, each of its parts by the library itself."""
    model_of(name).save_pretrained(folder, **({} if tensors is None else {"state_dict": dict(tensors)}))
    image_processor(name).save_pretrained(folder)
    if name == "SigLIP":
        (folder / "spiece.model").write_bytes(c4_like())
        write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"},
        )
    elif name in CLIP:
        clip_tokenizer().save_pretrained(folder)
    else:
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "SiglipTokenizer"})
    return folder


@pytest.fixture(scope="module", params=NAMES)
def source(request, tmp_path_factory) -> Source:
    folder = write_hf(tmp_path_factory.mktemp("hf"), request.param)
    return Source(request.param, folder, model_of(request.param), clip_jax.load(folder))


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory) -> list[Path]:
    return write_jpegs(tmp_path_factory.mktemp("jpegs"))


def image_features(model: Any, pixels: Any) -> np.ndarray:
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return (pooled if hasattr(model, "logit_bias") else model.visual_projection(pooled)).numpy()


def text_features(model: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        pooled = model.text_model(input_ids=torch.tensor(tokens).long()).pooler_output
        return (pooled if hasattr(model, "logit_bias") else model.text_projection(pooled)).numpy()


def convert(source: Path, target: Path, layout: str) -> Path:
    write_checkpoint(find_checkpoint(source), target, layout, overwrite=False)
    return target


def test_features_of_equal_inputs(source):
    (pixels, tokens), clip = source.inputs(), source.clip
    image, text = clip.encode_image(pixels), clip.encode_text(tokens)
    assert relative_error(image, image_features(source.model, channels_first(pixels))) <= 1e-5
    assert relative_error(text, text_features(source.model, tokens)) <= 1e-5
    with torch.no_grad():
        outputs = source.model(input_ids=torch.tensor(tokens).long(), pixel_values=channels_first(pixels))
    unit = [features / np.linalg.norm(features, axis=1, keepdims=True) for features in (image, text)]
    assert relative_error(clip.logit_scale * unit[0] @ unit[1].T + clip.logit_bias, outputs.logits_per_image) <= 1e-5


def test_features_of_image_files(source, jpegs):
    """Each side reads, resizes, crops and normalises by itself."""
    from PIL import Image

    processor = type(image_processor(source.name)).from_pretrained(source.folder)
    pixels = processor([Image.open(path) for path in jpegs], return_tensors="pt").pixel_values
    assert relative_error(source.clip.encode_image(jpegs), image_features(source.model, pixels)) <= 1e-4


@pytest.mark.parametrize("name", ["last id", "SigLIP"])
def test_strings(tmp_path, name):
    clip = clip_jax.load(write_hf(tmp_path, name))
    # CLIP's own cleaning, and special tokens spelt out in texts, are other tests' business.
    texts = [
        text for text in varied_texts(300, seed=3) if text.isascii() and text.isprintable() and not set("<[&") & {*text}
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    length = clip.config.text.context_length
    ids = np.array(tokenizer(texts, padding="max_length", truncation=True, max_length=length).input_ids)
    np.testing.assert_array_equal(clip.tokenize(texts), ids)
    assert relative_error(clip.encode_text(texts), text_features(model_of(name), ids)) <= 1e-5


@pytest.mark.parametrize("by_way_of", ["memory", "clip_jax", "hf"])
def test_back_again_is_bit_identical(source, tmp_path, by_way_of):
    if by_way_of == "memory":
        clip_jax.save(source.clip, tmp_path / "back", layout="hf")
    else:
        convert(convert(source.folder, tmp_path / "between", by_way_of), tmp_path / "back", "hf")
    assert stored(tmp_path / "back" / WEIGHTS) == stored(source.folder / WEIGHTS)
    for file in (CONFIG, "preprocessor_config.json"):
        values, original = (json.loads((folder / file).read_text()) for folder in (tmp_path / "back", source.folder))
        assert values == original


def test_transformers_loads_a_config_that_is_ours(source, tmp_path, jpegs):
    """Without the source's own config files, as for a model that was trained here."""
    from PIL import Image

    clip_jax.save(replace(source.clip, origin=Origin()), tmp_path / "model", layout="hf")
    model = transformers.AutoModel.from_pretrained(tmp_path / "model").eval()
    assert type(model) is type(source.model)
    assert model.dtype == torch.float32
    pixels, tokens = source.inputs()
    pixels = channels_first(pixels)
    # gelu_new becomes gelu_pytorch_tanh, which is the same function, computed in other steps.
    assert relative_error(image_features(model, pixels), image_features(source.model, pixels)) <= 1e-6
    assert relative_error(text_features(model, tokens), text_features(source.model, tokens)) <= 1e-6
    kind = type(image_processor(source.name))
    images = [Image.open(path) for path in jpegs]
    ours, theirs = (
        kind.from_pretrained(folder)(images, return_tensors="pt").pixel_values
        for folder in (tmp_path / "model", source.folder)
    )
    np.testing.assert_array_equal(ours, theirs)
    again = clip_jax.load(tmp_path / "model")
    scale = source.clip.config.initial_logit_scale
    assert (
        replace(again.config, tokenizer=source.clip.config.tokenizer, initial_logit_scale=scale) == source.clip.config
    )
    jax.tree.map(np.testing.assert_array_equal, again.params, source.clip.params)


@pytest.mark.parametrize("name", ["last id", "SigLIP"])
def test_processors_load_what_is_ours(tmp_path, name):
    source = write_hf(tmp_path / "source", name)
    clip_jax.save(replace(clip_jax.load(source), origin=Origin()), tmp_path / "model", layout="hf")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "model")
    assert type(processor).__name__ == ("CLIPProcessor" if name in CLIP else "SiglipProcessor")
    texts = ["a photo of a dog", "two cats and a bird!", "7"]
    reference = transformers.AutoTokenizer.from_pretrained(source)
    options = {"padding": "max_length", "truncation": True, "max_length": 9}
    assert processor.tokenizer(texts, **options).input_ids == reference(texts, **options).input_ids


def test_processor_config_of_transformers_5(tmp_path, jpegs):
    """What CLIPProcessor.save_pretrained writes: the image processor's config inside of the processor's."""
    from PIL import Image

    name = "last id"
    model_of(name).save_pretrained(tmp_path)
    processor = transformers.CLIPProcessor(image_processor=image_processor(name), tokenizer=clip_tokenizer())
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    pixels = processor(images=[Image.open(path) for path in jpegs], return_tensors="pt").pixel_values
    clip = clip_jax.load(tmp_path)
    np.testing.assert_allclose(clip.preprocess(jpegs), pixels.permute(0, 2, 3, 1), rtol=0, atol=1e-6)
    assert relative_error(clip.encode_image(jpegs), image_features(model_of(name), pixels)) <= 1e-4


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_defaults(kind):
    """What a config.json leaves out is what the library has for it."""
    towers = {"text_config": {"num_hidden_layers": 3}, "vision_config": {"num_hidden_layers": 2}}
    short = {"model_type": kind.lower(), **towers}
    whole = getattr(transformers, f"{kind}Config")(**towers).to_dict()
    assert len(whole["text_config"]) > 10
    assert from_hf(short, None, TokenizerConfig()) == from_hf(whole, None, TokenizerConfig())


@pytest.mark.parametrize("name", ["largest id", "SigLIP"])
def test_sharded_files(tmp_path, name):
    write_hf(tmp_path / "whole", name)
    write_hf(tmp_path / "sharded", name)
    (tmp_path / "sharded" / WEIGHTS).unlink()
    model_of(name).save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    assert len(list((tmp_path / "sharded").glob("model-0*.safetensors"))) > 3
    for path in (tmp_path / "sharded", tmp_path / "sharded" / "model.safetensors.index.json"):
        clip_jax.save(clip_jax.load(path), tmp_path / "back", layout="hf")
        assert stored(tmp_path / "back" / WEIGHTS) == stored(tmp_path / "whole" / WEIGHTS)


def test_pickled_files_and_old_buffers(tmp_path):
    """As older versions wrote them: torch.save's file, and positions counted in a buffer."""
    write_hf(tmp_path / "source", "largest id")
    expected = stored(tmp_path / "source" / WEIGHTS)
    (tmp_path / "source" / WEIGHTS).unlink()
    buffers = {
        "text_model.embeddings.position_ids": torch.arange(9)[None],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    torch.save(model_of("largest id").state_dict() | buffers, tmp_path / "source" / "pytorch_model.bin")
    convert(tmp_path / "source", tmp_path / "back", "hf")
    assert stored(tmp_path / "back" / WEIGHTS) == expected


@pytest.mark.parametrize("overruling", [{}, {"hidden_size": 40}, {"hidden_act": "gelu", "eos_token_id": 2}])
def test_configs_from_before_2023(tmp_path, overruling):
    """text_config_dict, and the library's defaults for what it leaves out, overrule text_config."""
    text = {**SHORT, "hidden_act": "gelu_new", "eos_token_id": 7, "layer_norm_eps": 1e-2}
    shapes = {key: value for key, value in SHORT.items() if key != "hidden_act"}
    values = {
        "model_type": "clip",
        "projection_dim": 20,
        "text_config": text,
        "text_config_dict": shapes | overruling,
        "vision_config": {**ONE, "hidden_act": "gelu"},
        "vision_config_dict": None,
    }
    model = randomise(transformers.CLIPModel(transformers.CLIPConfig.from_dict(values)).eval(), seed=4)
    model.save_pretrained(tmp_path)
    image_processor("largest id").save_pretrained(tmp_path)
    clip_tokenizer().save_pretrained(tmp_path)
    write_json(tmp_path / CONFIG, values)
    clip = clip_jax.load(tmp_path)
    expected = model.config.text_config
    assert (clip.config.text.transformer.activation, clip.config.text.end_token_id) == (
        {"quick_gelu": "quick_gelu", "gelu": "gelu"}[expected.hidden_act],
        None if expected.eos_token_id == 2 else expected.eos_token_id,
    )
    tokens = random_tokens(9, 60, 59)
    assert relative_error(clip.encode_text(tokens), text_features(model, tokens)) <= 1e-5


@pytest.mark.parametrize("name", ["largest id", "SigLIP"])
@pytest.mark.parametrize("missing", ["preprocessor_config.json", "tokenizer_config.json"])
def test_missing_files_are_told(tmp_path, name, missing):
    write_hf(tmp_path, name)
    for file in (missing, *(("tokenizer.json", "spiece.model") if "tokenizer" in missing else ())):
        (tmp_path / file).unlink(missing_ok=True)
    with pytest.warns(UserWarning, match="has no .*; the library's defaults are used"):
        clip = clip_jax.load(tmp_path)
    assert clip.config.vision.image_size == 37
    if name == "SigLIP" and "tokenizer" in missing:
        with pytest.raises(UserError, match=r"spiece\.model, which is missing"):
            clip.encode_text("a dog")


def typed(name: str, types: str) -> dict[str, Any]:
    """A state dict whose tensors are not all float32."""

    def dtype(key: str) -> Any:
        match types:
            case "float16" | "bfloat16":
                return getattr(torch, types)
            case "one layer":
                return torch.float16 if ".layers.1." in key else torch.float32
            case "queries":
                return torch.float16 if "q_proj" in key else torch.float32
            case "queries of one layer":
                return torch.bfloat16 if "layers.0.self_attn.q_proj" in key else torch.float16
            case _:
                raise ValueError(types)

    return {key: value.to(dtype(key)).contiguous() for key, value in model_of(name).state_dict().items()}


@pytest.mark.parametrize("name", ["largest id", "SigLIP"])
@pytest.mark.parametrize("types", ["float16", "bfloat16", "one layer", "queries", "queries of one layer"])
def test_types_survive(tmp_path, name, types):
    from safetensors.torch import save_file

    write_hf(tmp_path / "source", name)
    save_file(typed(name, types), tmp_path / "source" / WEIGHTS, {"format": "pt"})
    expected = stored(tmp_path / "source" / WEIGHTS)
    clip = clip_jax.load(tmp_path / "source")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(clip.params)} == {"float32"}
    clip_jax.save(clip, tmp_path / "from memory", layout="hf")
    assert stored(tmp_path / "from memory" / WEIGHTS) == expected
    convert(convert(tmp_path / "source", tmp_path / "between", "clip_jax"), tmp_path / "back", "hf")
    assert stored(tmp_path / "back" / WEIGHTS) == expected


@pytest.mark.parametrize("types", ["float16", "queries"])
def test_values_survive_other_layouts(tmp_path, types):
    """A fused projection is of one type, the widest of its parts; what a narrower type held comes back as a number."""
    from safetensors.torch import load_file, save_file

    write_hf(tmp_path / "source", "last id")
    save_file(typed("last id", types), tmp_path / "source" / WEIGHTS, {"format": "pt"})
    convert(tmp_path / "source", tmp_path / "clip_jax", "clip_jax")
    convert(tmp_path / "clip_jax", tmp_path / "open_clip", "open_clip")
    convert(tmp_path / "open_clip", tmp_path / "hf", "hf")
    before, after = load_file(tmp_path / "source" / WEIGHTS), load_file(tmp_path / "hf" / WEIGHTS)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value.double(), after[key].double()), key
        assert after[key].dtype in (value.dtype, torch.float32)
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf", dtype="float32").eval()
    tokens = random_tokens(16, 49408, 49407)
    fused, _ = import_open_clip().create_model_from_pretrained(f"local-dir:{tmp_path / 'open_clip'}")
    with torch.no_grad():
        expected = fused.eval().encode_text(torch.tensor(tokens).long())
    assert relative_error(text_features(model, tokens), expected) <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eos_token_id": [2, 7]}, "eos_token_id is [2, 7]; one end token can be read"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not known"),
    ],
)
def test_text_configs_that_cannot_be_read(tmp_path, change, message):
    write_hf(tmp_path, "largest id")
    values = json.loads((tmp_path / CONFIG).read_text())
    values["text_config"] |= change
    write_json(tmp_path / CONFIG, values)
    with pytest.raises(UserError) as caught:
        clip_jax.load(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("largest id", {"do_center_crop": False}, "the tower takes squares of 37 pixels"),
        ("largest id", {"size": {"shortest_edge": 40}}, "the tower takes squares of 37 pixels"),
        ("largest id", {"size": {"longest_edge": 37}}, "the tower takes squares of 37 pixels"),
        ("SigLIP", {"size": 37}, "the tower takes squares of 37 pixels"),
        ("SigLIP", {"do_rescale": False}, "leaves out resizing, scaling by 1/255 or normalising"),
        ("SigLIP", {"rescale_factor": 1 / 127.5}, "leaves out resizing, scaling by 1/255 or normalising"),
        ("SigLIP", {"resample": 1}, "resample is 1; 2 (bilinear) and 3 (bicubic) are known"),
    ],
)
def test_processors_that_cannot_be_read(tmp_path, name, change, message):
    write_hf(tmp_path, name)
    path = tmp_path / "preprocessor_config.json"
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(UserError) as caught:
        clip_jax.load(tmp_path)
    assert message in str(caught.value)


def test_sizes_as_numbers(tmp_path, jpegs):
    """As in the oldest files; transformers takes the size for that of the short side."""
    from PIL import Image

    write_hf(tmp_path, "largest id")
    path = tmp_path / "preprocessor_config.json"
    write_json(path, json.loads(path.read_text()) | {"size": 37, "crop_size": 37})
    processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)
    pixels = processor([Image.open(path) for path in jpegs], return_tensors="pt").pixel_values
    np.testing.assert_allclose(clip_jax.load(tmp_path).preprocess(jpegs), pixels.permute(0, 2, 3, 1), rtol=0, atol=1e-6)
