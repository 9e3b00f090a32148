"""JSON files of models, whole and damaged ones, and what is said of configs that came with a model and are none."""

import json
import os
from pathlib import Path

import pytest
from support.checkpoints import write_json, write_open_clip

import clip_jax
from clip_jax import UserError
from clip_jax.inputs.hf_tokenizer import tokenizer_config_from_files
from clip_jax.weights.json_files import MAX_DEPTH, MAX_JSON, read_json, read_whole

HF = "ignore:.*has no .*; the library's defaults are used"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "config.json"


def message_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def unloadable(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        clip_jax.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def nested(depth: int) -> str:
    return '{"a": ' * (depth - 1) + "{}" + "}" * (depth - 1)


def test_an_object(path):
    path.write_text('{"a": [1, 2.5, null, true], "ü": {"b": -1e-5}}', encoding="utf-8")
    assert read_json(path) == {"a": [1, 2.5, None, True], "ü": {"b": -1e-5}}
    path.write_text(nested(MAX_DEPTH), encoding="utf-8")
    json.dumps(read_json(path), indent=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xef\xbb\xbf{}", "is no JSON"),
        (b'{"a": "\xff"}', "is no JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": [-Infinity]}', "-Infinity is no number"),
        (b'{"a": 1e999}', "1e999 is too large for a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b"[]", "it holds no JSON object"),
        (b"null", "it holds no JSON object"),
        (b"[" * 100_000, "it is nested more than 100 deep"),
        (b'{"a": ' * 100_000, "it is nested more than 100 deep"),
        (nested(MAX_DEPTH + 1).encode(), "it is nested more than 100 deep"),
    ],
    ids=range(13),
)
def test_damaged_files(path, content, message):
    path.write_bytes(content)
    assert message in message_of(path)


def test_what_cannot_be_read(path):
    assert message_of(path) == f"cannot read {path}: No such file or directory"
    path.symlink_to(path)
    assert "Too many levels of symbolic links" in message_of(path)
    path.unlink()
    os.mkfifo(path)  # which would be waited for without end
    assert "is not a file" in message_of(path)
    path.unlink()
    path.mkdir()
    assert "is not a file" in message_of(path)


def test_large_files_are_not_read(path):
    with open(path, "wb") as file:
        file.truncate(MAX_JSON + 1)
    assert message_of(path) == f"{path} is too large for what it should be; 16 MiB are the most"
    with open(path, "wb") as file:
        file.truncate(2**20)
    assert read_whole(path, 2**20) == bytes(2**20)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"])
def test_nested_tokenizer_files(name):
    with pytest.raises(UserError, match=rf"{name} is damaged \(it is nested too deeply\)"):
        tokenizer_config_from_files({name: b'{"a": ' * 100_000})


@pytest.fixture
def hf(tmp_path) -> Path:
    """A folder of open_clip's weights under the name that transformers looks for."""
    folder = tmp_path / "model"
    write_open_clip(folder, "ViT-M-16-alt")
    (folder / "open_clip_config.json").unlink()
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    return folder


def test_an_unusable_config_is_told(hf):
    path = hf / "config.json"
    path.symlink_to(path)
    assert unloadable(hf) == f"cannot read {path}: Too many levels of symbolic links"
    path.unlink()
    path.write_text("[1]")
    assert unloadable(hf) == f"{path} is damaged: it holds no JSON object"
    path.write_text("{")
    assert unloadable(hf).startswith(f"{path} is damaged, it is no JSON")


@pytest.mark.filterwarnings(HF)
def test_a_config_without_model_type_is_told(hf):
    write_json(hf / "config.json", {"architectures": ["CLIPModel"]})
    assert unloadable(hf) == (
        f"{hf / 'config.json'} cannot be used: config.json is of model_type None; 'clip' and 'siglip' can be read"
    )


def test_a_config_of_timm_beside_open_clip(tmp_path):
    """Timm's repositories hold its own config and weights of the image tower beside those of open_clip."""
    write_open_clip(tmp_path, "ViT-M-16-alt")
    expected = clip_jax.load(tmp_path).config
    write_json(tmp_path / "config.json", {"architecture": "vit_medium_patch16_clip_224"})
    assert clip_jax.load(tmp_path).config == expected


@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings(HF)
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("preprocessor_config.json", {"size": [1]}, "is damaged: a value has the wrong type"),
        ("preprocessor_config.json", {"resample": 7}, "cannot be used: preprocessor_config.json's resample is 7"),
        ("preprocessor_config.json", {"image_std": [1, 1, 0]}, "cannot be used: std 0 is outside the range"),
        ("preprocessor_config.json", {"image_mean": [1, "x", 0]}, "cannot be used: config.mean[1] must be a number"),
        ("processor_config.json", {"image_processor": [1]}, "is damaged: its image_processor is no JSON object"),
        ("config.json", {"text_config": [3]}, "is damaged: a value has the wrong type"),
        ("config.json", {"text_config": {"hidden_size": 0}}, "is damaged: a number is zero or too large"),
        ("config.json", {"text_config": {"num_hidden_layers": 10**9}}, "cannot be used: layers 1000000000 is outside"),
        ("config.json", {"text_config": {"vocab_size": -3}}, "cannot be used: vocab_size -3 is outside the range"),
    ],
)
def test_the_file_that_is_wrong_is_named(hf, name, values, message):
    write_json(hf / "config.json", {"model_type": "clip"})
    write_json(hf / name, {"model_type": "clip"} | values if name == "config.json" else values)
    told = unloadable(hf)
    assert told.startswith(f"{hf / name} ")
    assert message in told


@pytest.mark.filterwarnings(HF)
def test_tokenizers_are_not_blamed_on_the_config(hf):
    write_json(hf / "config.json", {"model_type": "clip"})
    write_json(hf / "tokenizer_config.json", {"padding_side": "left"})
    assert unloadable(hf).startswith(f"the tokenizer in {hf} cannot be used: tokenizer_config.json pads on the left")
