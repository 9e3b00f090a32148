"""Configs, their strict parser and the named architectures, the latter against open_clip's own configs."""

import json
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any, Literal

import jax
import pytest
from support.open_clip_shim import import_open_clip

from clip_jax.config import ClipConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import init_params
from clip_jax.presets import get_config, list_models
from clip_jax.schema import nearest, parse


@pytest.mark.parametrize("name", list_models())
def test_config_survives_json(name):
    config = get_config(name)
    assert ClipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_configs_are_frozen_and_hashable(toy_config):
    with pytest.raises(FrozenInstanceError):
        toy_config.embed_dim = 3
    assert hash(toy_config) == hash(replace(toy_config)) != hash(replace(toy_config, embed_dim=25))


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith("ViT")])
def test_presets_are_open_clips(name):
    theirs = import_open_clip().get_model_config(name)
    assert theirs is not None
    ours = get_config(name)
    vision, text = theirs["vision_cfg"], theirs["text_cfg"]
    assert ours.embed_dim == theirs["embed_dim"]
    assert (ours.vision.image_size, ours.vision.patch_size) == (vision["image_size"], vision["patch_size"])
    stack = ours.vision.transformer
    assert (stack.width, stack.layers, stack.heads) == (vision["width"], vision["layers"], vision["width"] // 64)
    stack = ours.text.transformer
    assert (stack.width, stack.layers, stack.heads) == (text["width"], text["layers"], text["heads"])
    assert (ours.text.context_length, ours.text.vocab_size) == (text["context_length"], text["vocab_size"])
    activation = "quick_gelu" if theirs.get("quick_gelu") else "gelu"
    assert ours.vision.transformer.activation == ours.text.transformer.activation == activation


@pytest.mark.parametrize(
    ("name", "millions"), [("ViT-B-32", 151.28), ("ViT-B-16", 149.62), ("ViT-L-14", 427.62), ("ViT-L-14-336", 427.94)]
)
def test_parameter_counts(name, millions):
    """As in the table of open_clip's docs/model_profile.csv."""
    shapes = jax.eval_shape(lambda: init_params(get_config(name), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B/32", "unknown model 'ViT-B/32'; did you mean 'ViT-B-32'?"),
        ("vit-l-14-336-quickgelu", "unknown model 'vit-l-14-336-quickgelu'; did you mean 'ViT-L-14-336-quickgelu'?"),
        ("", "unknown model ''; valid are "),
    ],
)
def test_unknown_model(name, message):
    with pytest.raises(UserError) as caught:
        get_config(name)
    assert str(caught.value).startswith(message)


def test_nearest():
    assert nearest("bach_size", ["batch_size", "steps"]) == "did you mean 'batch_size'?"
    assert nearest("zzz", ["b", "a"]) == "valid are a, b"


def test_sizes_that_do_not_divide():
    with pytest.raises(UserError, match="width 100 does not divide into 3 heads"):
        TransformerConfig(width=100, layers=1, heads=3)
    with pytest.raises(UserError, match="image_size 230 is not a whole number of 32-pixel patches; 224 would be"):
        VisionConfig(230, 32, TransformerConfig(64, 1, 1))


@dataclass(frozen=True)
class Inner:
    rate: float
    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    steps: int = 1
    name: str | None = None
    ratio: int | float = 1
    pair: tuple[int, float] = (1, 2.0)
    items: tuple[Inner, ...] = ()
    table: dict[str, float] = field(default_factory=dict)
    anything: Any = None
    flag: bool = False


def test_parse_fills_nested_values():
    values = {
        "inner": {"rate": 1, "mode": "slow"},
        "name": "n",
        "ratio": 0.5,
        "pair": [3, 4],
        "items": [{"rate": 2.5}],
        "table": {"a": 1},
        "anything": [1, "x"],
        "flag": True,
    }
    parsed = parse(Outer, values, "config")
    assert parsed == Outer(Inner(1.0, "slow"), 1, "n", 0.5, (3, 4.0), (Inner(2.5),), {"a": 1.0}, [1, "x"], True)
    assert [type(x) for x in (parsed.inner.rate, *parsed.pair, parsed.table["a"])] == [float, int, float, float]
    assert type(parse(Outer, {"inner": {"rate": 1}, "ratio": 2}, "config").ratio) is int


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "config has no key 'stepz'; did you mean 'steps'?"),
        ({"inner": {}}, "config.inner lacks the key 'rate'"),
        ({"inner": 3}, "config.inner must be a mapping with keys of Inner, not 3"),
        ({"inner": {"rate": "1"}}, "config.inner.rate must be a number, not '1'"),
        ({"inner": {"rate": True}}, "config.inner.rate must be a number, not True"),
        ({"inner": {"rate": 1, "mode": "fats"}}, "config.inner.mode is 'fats'; did you mean 'fast'?"),
        ({"steps": 1.0}, "config.steps must be an integer, not 1.0"),
        ({"steps": True}, "config.steps must be an integer, not True"),
        ({"steps": None}, "config.steps must be an integer, not None"),
        ({"flag": 1}, "config.flag must be true or false, not 1"),
        ({"name": 3}, "config.name must be a string or none, not 3"),
        ({"pair": [1]}, "config.pair must have 2 values, not 1"),
        ({"pair": 1}, "config.pair must be a list, not 1"),
        ({"pair": [1, "b"]}, "config.pair[1] must be a number, not 'b'"),
        ({"items": [{"rate": 1}, {}]}, "config.items[1] lacks the key 'rate'"),
        ({"table": 3}, "config.table must be a mapping, not 3"),
        ({"table": {"a": "b"}}, "config.table.a must be a number, not 'b'"),
    ],
)
def test_parse_refuses(untyped, change, message):
    with pytest.raises(UserError) as caught:
        parse(Outer, {"inner": {"rate": 1}} | change, "config")
    assert str(caught.value) == message


def test_model_config_names_the_place(toy_config):
    values = toy_config.to_dict()
    values["vision"]["transformer"]["activation"] = "gelo"
    with pytest.raises(UserError, match=r"^model config.vision.transformer.activation is 'gelo'; did you mean 'gelu'"):
        ClipConfig.from_dict(values)


def test_mlp_width_of_vit_g():
    """open_clip's ViT-g-14 has an MLP ratio of 4.3637, which means 6144 wide."""
    assert TransformerConfig(width=1408, layers=1, heads=16, mlp_ratio=4.3637).mlp_width == 6144


def test_text_defaults():
    text = TextConfig(TransformerConfig(64, 1, 1))
    assert (text.context_length, text.vocab_size) == (77, 49408)
