"""Models written to a folder and read back, and what is said about folders that do not fit."""

import json
import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.tokenizer_models import bert_like

import clip_jax
from clip_jax import Clip, UserError
from clip_jax.config import ComputeConfig, TokenizerConfig
from clip_jax.weights import released
from clip_jax.weights.checkpoint import Origin
from clip_jax.weights.released import DESCRIPTION, MAX_TOKENIZER_FILE, WEIGHTS
from clip_jax.weights.tree import flatten


@pytest.fixture
def folder(toy, tmp_path):
    clip_jax.save(toy, tmp_path / "deep" / "model")
    return tmp_path / "deep" / "model"


def message_of(folder, **options) -> str:
    with pytest.raises(UserError) as caught:
        clip_jax.load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def describe(folder, **values) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps(description | values))


def test_round_trip_is_bit_identical(toy, folder):
    loaded = clip_jax.load(folder)
    assert loaded.config == toy.config
    assert loaded.compute == ComputeConfig()
    assert jax.tree.structure(loaded.params) == jax.tree.structure(toy.params)
    for ours, saved in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(toy.params), strict=True):
        assert ours.dtype == jnp.float32
        assert np.asarray(ours).tobytes() == np.asarray(saved).tobytes()
    assert sorted(os.listdir(folder)) == sorted([WEIGHTS, DESCRIPTION])


def test_files_are_what_safetensors_and_json_read(toy, folder):
    tensors = load_file(folder / WEIGHTS)
    np.testing.assert_array_equal(tensors["visual/projection"], toy.params["visual"]["projection"])
    assert tensors.keys() == flatten(toy.params).keys()
    description = json.loads((folder / DESCRIPTION).read_text())
    assert description["format"] == 2
    assert description["config"]["vision"]["transformer"]["activation"] == "quick_gelu"


def test_what_the_source_held_beside_comes_back(toy, tmp_path):
    origin = Origin(
        table="open_clip",
        dtypes={"visual/projection": "float16", "text/transformer/block/norm_1/scale:2": "bfloat16"},
        scalar_shape=(1,),
        configs={"open_clip_config.json": {"model_cfg": {"embed_dim": 24, "nested": [1, None, True, 2.5, "é"]}}},
    )
    clip_jax.save(replace(toy, origin=origin), tmp_path / "model")
    # Of the types on record, those that the values do not fit are dropped: these parameters were never so narrow.
    assert clip_jax.load(tmp_path / "model").origin == replace(origin, dtypes={})
    narrow = toy.params["visual"]["projection"].astype(jnp.float16).astype(jnp.float32)
    params = {**toy.params, "visual": {**toy.params["visual"], "projection": narrow}}
    clip_jax.save(replace(toy, params=params, origin=origin), tmp_path / "narrow")
    assert clip_jax.load(tmp_path / "narrow").origin == replace(origin, dtypes={"visual/projection": "float16"})
    assert load_file(tmp_path / "narrow" / WEIGHTS)["visual/projection"].dtype == np.float16


def test_a_tokenizer_goes_along(toy, tmp_path):
    config = replace(toy.config, tokenizer=TokenizerConfig("tokenizer_json", "whitespace", "tokenizer.json"))
    clip = Clip(config, toy.params, tokenizer_files={"tokenizer.json": bert_like()})
    clip_jax.save(clip, tmp_path / "model")
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == bert_like()
    loaded = clip_jax.load(tmp_path / "model")
    assert loaded.tokenizer_files == clip.tokenizer_files
    np.testing.assert_array_equal(loaded.tokenize(["a photo of a dog"]), clip.tokenize(["a photo of a dog"]))


def test_a_model_of_the_first_format_is_read(toy, folder):
    """It had a config and nothing else."""
    config = json.loads((folder / DESCRIPTION).read_text())["config"]
    (folder / DESCRIPTION).write_text(json.dumps({"format": 1, "config": config}))
    loaded = clip_jax.load(folder)
    assert (loaded.config, loaded.origin, loaded.tokenizer_files) == (toy.config, Origin(), {})
    jax.tree.map(np.testing.assert_array_equal, loaded.params, toy.params)


def test_the_path_of_its_weights_will_do(toy, folder):
    assert clip_jax.load(folder / WEIGHTS).config == toy.config


def test_saving_again_replaces(toy, folder):
    scaled = replace(toy, params=jax.tree.map(lambda leaf: 2 * leaf, toy.params))
    clip_jax.save(scaled, folder)
    np.testing.assert_array_equal(clip_jax.load(folder).params["logit_scale"], scaled.params["logit_scale"])


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_bfloat16(toy, folder, dtype):
    loaded = clip_jax.load(folder, dtype=dtype)
    assert loaded.compute.dtype == "bfloat16"
    kernel = loaded.params["visual"]["projection"]
    assert kernel.dtype == jnp.bfloat16
    expected = np.asarray(toy.params["visual"]["projection"]).astype(ml_dtypes.bfloat16)  # rounds to nearest even
    assert np.asarray(kernel).tobytes() == expected.tobytes()
    assert loaded.logit_scale == toy.logit_scale
    assert loaded.encode_text("a dog").dtype == np.float32


def test_bfloat16_round_trip(folder, tmp_path):
    rounded = clip_jax.load(folder, dtype="bfloat16")
    clip_jax.save(rounded, tmp_path / "again")
    types = {name: str(tensor.dtype) for name, tensor in load_file(tmp_path / "again" / WEIGHTS).items()}
    assert types.pop("logit_scale") == "float32"
    assert set(types.values()) == {"bfloat16"}
    again = clip_jax.load(tmp_path / "again", dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, again.params, rounded.params)


def test_other_dtypes_are_refused(folder):
    assert message_of(folder, dtype="float16") == "dtype float16 is not supported; float32 and bfloat16 are"
    assert message_of(folder, dtype="flaot32") == "dtype flaot32 is not supported; float32 and bfloat16 are"


def test_every_tensor_that_does_not_fit_is_named(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["visual/projection"], tensors["text/norm_final/bias"]
    tensors["visual/class_embedding"] = np.zeros(31, np.float32)
    tensors["head"] = np.zeros(3, np.float32)
    save_file(tensors, folder / WEIGHTS)
    message = message_of(folder)
    for problem in (
        "visual/projection is missing",
        "text/norm_final/bias is missing",
        "visual/class_embedding has shape [31], not [32]",
        "head is unknown",
    ):
        assert problem in message
    assert message.count(";") == 3


def truncate(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "is truncated or damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "is empty; fetch it again"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"lacks {WEIGHTS}"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).write_text("{}"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).write_text("[]"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).write_bytes(b"\xff\xfe"), "damaged"),
        (lambda folder: describe(folder, config={"embed_dim": 3}), "lacks the key"),
        (lambda folder: describe(folder, format=3), "is of format 3; this version of clip_jax reads up to 2"),
        (lambda folder: describe(folder, format="2"), "is of format '2'; this version of clip_jax reads up to 2"),
    ],
    ids=[
        "truncated",
        "empty",
        "no weights",
        "torn JSON",
        "no config",
        "a list",
        "not UTF-8",
        "no key",
        "newer",
        "text",
    ],
)
def test_damaged_folders(folder, damage, message):
    damage(folder)
    assert message in message_of(folder)


def test_paths_that_hold_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"holds no model: neither {DESCRIPTION}" in message_of(tmp_path / "empty")
    assert "there is no file, folder or pretrained model" in message_of(tmp_path / "absent")
    assert message_of("ViT-B-32") == "'ViT-B-32' is an architecture without weights; clip_jax.create makes a random one"


def test_saving_where_it_cannot(toy, folder):
    with pytest.raises(UserError, match=f"{WEIGHTS} exists already and is a file; give a folder"):
        clip_jax.save(toy, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"unknown layout 'hff'; did you mean 'hf'\?"):
        clip_jax.save(toy, folder, layout="hff")


@pytest.mark.parametrize("name", ["model.safetensors", ".hidden_secret", "clip_jax.json", "notes.txt", "id_rsa"])
def test_other_files_are_no_tokenizers(folder, name):
    if not (folder / name).exists():
        (folder / name).write_text("secret")
    message = f"{folder / DESCRIPTION} takes '{name}' for a tokenizer's file, which it is not"
    describe(folder, tokenizer_files=[name])
    assert message_of(folder) == message
    config = json.loads((folder / DESCRIPTION).read_text())["config"]
    config["tokenizer"] |= {"kind": "tokenizer_json", "file": name}
    describe(folder, tokenizer_files=[], config=config)
    if name in ("notes.txt", "id_rsa"):  # a tokenizer may be called so
        assert clip_jax.load(folder).tokenizer_files == {name: b"secret"}
    else:
        assert message_of(folder) == message


def test_tokenizer_files_that_are_too_large(folder):
    with open(folder / "tokenizer.json", "wb") as file:
        file.truncate(MAX_TOKENIZER_FILE + 1)
    describe(folder, tokenizer_files=["tokenizer.json"])
    assert message_of(folder).startswith(f"{folder / 'tokenizer.json'} is too large")


@pytest.mark.parametrize("listed", [3, None, {"a": 1}, [3], "tokenizer.json"])
def test_lists_of_tokenizer_files_that_are_none(folder, listed):
    describe(folder, tokenizer_files=listed)
    assert message_of(folder) == f"{folder / DESCRIPTION} is damaged: its tokenizer_files must be a list of names"


@pytest.mark.parametrize(
    "buffers",
    [
        {"visual/stem/norm_1/batches": 10**30},
        {"visual/stem/norm_1/batches": 2**63},
        {"visual/stem/norm_1/batches": -1},
        {"visual/projection": 3},
        {"batches": 3},
        {"../batches.txt": 3},
    ],
)
def test_buffers_that_count_no_batches(folder, buffers):
    describe(folder, origin={"buffers": buffers})
    assert message_of(folder) == (
        f"{folder / DESCRIPTION} cannot be used: origin.buffers.{next(iter(buffers))} is no count of batches: "
        "PATH/batches, 0 to 2**63 - 1"
    )


@pytest.mark.parametrize("dtype", ["f4,", "(2,", ",", "9999999999999999999f4", "float31"])
def test_types_that_numpy_would_parse(folder, dtype):
    describe(folder, origin={"dtypes": {"visual/projection": dtype}})
    assert "which is no floating-point type" in message_of(folder)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.bfloat16, np.float16])
def test_one_layer_of_a_stacked_parameter(folder, dtype):
    """Read at its place in the file, in types that NumPy knows and others."""
    path = "text/transformer/block/mlp/up/kernel"
    tensors = load_file(folder / WEIGHTS)
    expected = tensors[path].astype(dtype)
    save_file(tensors | {path: expected}, folder / WEIGHTS)
    parameter = released.read(folder).parameters[path]
    assert len(expected) == 3
    for layer, values in enumerate(expected):
        read = parameter.read(layer)
        assert (read.dtype, read.shape) == (values.dtype, values.shape)
        assert read.tobytes() == values.tobytes()
    whole = parameter.read(None)
    assert (whole.dtype, whole.tobytes()) == (expected.dtype, expected.tobytes())


def test_home_is_expanded(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    clip_jax.save(toy, "~/model")
    assert (tmp_path / "model" / WEIGHTS).is_file()
    assert clip_jax.load("~/model").config == toy.config


def test_flat_names(toy_params):
    names = flatten(toy_params).keys()
    assert {"logit_scale", "text/token_embedding", "visual/transformer/block/attention/qkv/kernel"} <= names
