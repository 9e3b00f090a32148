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

import clip_jax
from clip_jax import UserError
from clip_jax.config import ComputeConfig
from clip_jax.weights.released import DESCRIPTION, WEIGHTS, flatten


@pytest.fixture
def folder(toy, tmp_path):
    clip_jax.save(toy, tmp_path / "deep" / "model")
    return tmp_path / "deep" / "model"


def message_of(folder, **options) -> str:
    with pytest.raises(UserError) as caught:
        clip_jax.load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert len(tensors) == len(jax.tree.leaves(toy.params))
    description = json.loads((folder / DESCRIPTION).read_text())
    assert description["config"]["vision"]["transformer"]["activation"] == "quick_gelu"


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
    assert loaded.encode_text("a dog").dtype == np.float32


def test_bfloat16_round_trip(folder, tmp_path):
    rounded = clip_jax.load(folder, dtype="bfloat16")
    clip_jax.save(rounded, tmp_path / "again")
    assert {str(tensor.dtype) for tensor in load_file(tmp_path / "again" / WEIGHTS).values()} == {"bfloat16"}
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
        (truncate, "damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "damaged"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"lacks {WEIGHTS}"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).write_text("{}"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).write_text("[]"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).write_bytes(b"\xff\xfe"), "damaged"),
        (
            lambda folder: (folder / DESCRIPTION).write_text('{"format": 1, "config": {"embed_dim": 3}}'),
            "lacks the key",
        ),
        (lambda folder: (folder / DESCRIPTION).write_text('{"format": 2}'), "is of format 2"),
    ],
    ids=["truncated", "empty", "no weights", "torn JSON", "no config", "a list", "not UTF-8", "no key", "newer"],
)
def test_damaged_folders(folder, damage, message):
    damage(folder)
    assert message in message_of(folder)


def test_paths_that_hold_no_model(folder, tmp_path, toy):
    assert "is not a model" in message_of(folder / WEIGHTS)
    (tmp_path / "empty").mkdir()
    assert f"holds neither a released model ({DESCRIPTION}) nor training checkpoints" in message_of(tmp_path / "empty")
    assert "there is no model folder" in message_of(tmp_path / "absent")
    assert message_of("ViT-B-32") == "'ViT-B-32' is an architecture without weights; clip_jax.create makes a random one"
    assert "did you mean 'ViT-B-32'?" in message_of("VIT-B32")


def test_saving_where_it_cannot(toy, folder):
    with pytest.raises(UserError, match="cannot write a model to"):
        clip_jax.save(toy, folder / WEIGHTS)
    with pytest.raises(UserError, match="unknown layout 'hff'; valid is clip_jax"):
        clip_jax.save(toy, folder, layout="hff")


def test_home_is_expanded(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    clip_jax.save(toy, "~/model")
    assert (tmp_path / "model" / WEIGHTS).is_file()
    assert clip_jax.load("~/model").config == toy.config


def test_flat_names(toy_params):
    names = flatten(toy_params).keys()
    assert {"logit_scale", "text/token_embedding", "visual/transformer/block/attention/qkv/kernel"} <= names
