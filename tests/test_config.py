"""Configs, what they refuse, and their strict parser."""

import json
import math
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from typing import Any, Literal

import pytest

from clip_jax.config import (
    ClipConfig,
    PreprocessConfig,
    ResNetConfig,
    TextConfig,
    TokenizerConfig,
    TransformerConfig,
    VisionConfig,
    mlp_ratio,
)
from clip_jax.errors import UserError
from clip_jax.schema import nearest, parse


def test_configs_are_frozen_and_hashable(toy_config):
    with pytest.raises(FrozenInstanceError):
        toy_config.embed_dim = 3
    assert hash(toy_config) == hash(replace(toy_config)) != hash(replace(toy_config, embed_dim=25))


def test_nearest():
    assert nearest("bach_size", ["batch_size", "steps"]) == "did you mean 'batch_size'?"
    assert nearest("zzz", ["b", "a"]) == "valid are a, b"


STACK = TransformerConfig(64, 1, 1)
PLAIN = ClipConfig(48, VisionConfig(32, 8, STACK), TextConfig(STACK))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: TransformerConfig(width=100, layers=1, heads=3),
            "width 100 does not divide into 3 heads; choose heads that divide it",
        ),
        (
            lambda: TransformerConfig(width=100, layers=1, heads=0),
            "width 100 does not divide into 0 heads; choose heads that divide it",
        ),
        (lambda: VisionConfig(32, 0, STACK), "patch_size 0 is outside the range from 1 to 1048576"),
        (lambda: VisionConfig(31, 32, STACK), "image_size 31 is smaller than one patch of 32 pixels"),
        (
            lambda: VisionConfig(32, 8, STACK, class_token=False),
            "pooling is class_token, but class_token is false; pooling mean or map needs none",
        ),
        (
            lambda: ResNetConfig(31, (1, 1, 1, 1)),
            "image_size 31 is too small for a ResNet; it must be at least 32",
        ),
        (lambda: ResNetConfig(64, (1, 1, 1, 1), width=10, heads=6), "320 channels do not divide into 6 heads"),
        (lambda: ResNetConfig(64, (1, 1, 1, 1), heads=0), "2048 channels do not divide into 0 heads"),
        (
            lambda: TextConfig(STACK, pooling="end_token"),
            "end_token_id belongs to pooling end_token, which needs it; give both or neither",
        ),
        (
            lambda: TextConfig(STACK, pooling="last", end_token_id=3),
            "end_token_id belongs to pooling end_token, which needs it; give both or neither",
        ),
        (
            lambda: ClipConfig(48, VisionConfig(32, 8, STACK, projection="none"), TextConfig(STACK)),
            "the vision tower has no projection, so its width 64 must be embed_dim 48",
        ),
        (
            lambda: ClipConfig(48, ResNetConfig(32, (1, 1, 1, 1)), TextConfig(STACK, projection="none")),
            "the text tower has no projection, so its width 64 must be embed_dim 48",
        ),
    ],
)
def test_refusals(build, message):
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: replace(STACK, width=0), "width 0 is outside the range from 1 to 1048576"),
        (lambda: replace(STACK, width=-64), "width -64 is outside"),
        (lambda: replace(STACK, width=2**40), "width 1099511627776 is outside"),
        (lambda: replace(STACK, layers=0), "layers 0 is outside the range from 1 to 1000"),
        (lambda: replace(STACK, layers=10**9), "layers 1000000000 is outside"),
        (lambda: replace(STACK, heads=-1), "width 64 does not divide into -1 heads"),
        (lambda: replace(STACK, mlp_ratio=0.0), "mlp_ratio 0.0 is outside the range from 1e-30 to 1e+30"),
        (lambda: replace(STACK, mlp_ratio=math.nan), "mlp_ratio nan is outside"),
        (lambda: replace(STACK, mlp_ratio=math.inf), "mlp_ratio inf is outside"),
        (
            lambda: replace(STACK, mlp_ratio=0.01),
            "the MLP's width (width times mlp_ratio) 0 is outside",
        ),
        (lambda: replace(STACK, mlp_ratio=1e9), "the MLP's width (width times mlp_ratio) 64000000000 is outside"),
        (lambda: replace(STACK, norm_epsilon=0.0), "norm_epsilon 0.0 is outside"),
        (lambda: replace(STACK, norm_epsilon=-1e-5), "norm_epsilon -1e-05 is outside"),
        (lambda: replace(STACK, norm_epsilon=math.nan), "norm_epsilon nan is outside"),
        (lambda: replace(STACK, layer_scale=-math.inf), "layer_scale -inf is outside the range from -1e+30 to 1e+30"),
        (lambda: VisionConfig(2**30, 8, STACK), "image_size 1073741824 is outside"),
        (lambda: VisionConfig(32, -8, STACK), "patch_size -8 is outside"),
        (lambda: ResNetConfig(2**30, (1, 1, 1, 1)), "image_size 1073741824 is outside the range from 32"),
        (lambda: ResNetConfig(64, (1, 1, 0, 1)), "layers 0 is outside"),
        (lambda: ResNetConfig(64, (1, 1, 1, 5000)), "layers 5000 is outside"),
        (lambda: ResNetConfig(64, (1, 1, 1, 1), width=0), "width 0 is outside"),
        (lambda: ResNetConfig(64, (1, 1, 1, 1), width=-1), "width -1 is outside"),
        (lambda: TextConfig(STACK, context_length=0), "context_length 0 is outside"),
        (lambda: TextConfig(STACK, context_length=10**30), "context_length 1000000000000000000000000000000 is outside"),
        (lambda: TextConfig(STACK, vocab_size=-1), "vocab_size -1 is outside the range from 1 to 16777216"),
        (
            lambda: TextConfig(STACK, pooling="end_token", end_token_id=-1),
            "end_token_id -1 is outside the range from 0",
        ),
        (lambda: TextConfig(STACK, pooling="end_token", end_token_id=2**31), "end_token_id 2147483648 is outside"),
        (lambda: PreprocessConfig(mean=(0.0, math.nan, 0.0)), "mean nan is outside"),
        (lambda: PreprocessConfig(std=(1.0, 1.0, 0.0)), "std 0.0 is outside"),
        (lambda: PreprocessConfig(std=(math.inf, 1.0, 1.0)), "std inf is outside"),
        (lambda: PreprocessConfig(fill=256), "fill 256 is outside the range from 0 to 255"),
        (lambda: TokenizerConfig(pad_id=-1), "pad_id -1 is outside the range from 0 to 2147483647"),
        (lambda: TokenizerConfig(end_id=2**31), "end_id 2147483648 is outside"),
        (lambda: TokenizerConfig(zeroed_id=10**1000), "zeroed_id 1000000"),
        (lambda: ClipConfig(0, ResNetConfig(32, (1, 1, 1, 1)), TextConfig(STACK)), "embed_dim 0 is outside"),
        (lambda: replace(PLAIN, initial_logit_scale=math.inf), "initial_logit_scale inf is outside"),
        (lambda: replace(PLAIN, initial_logit_bias=math.nan), "initial_logit_bias nan is outside"),
    ],
)
def test_numbers_out_of_range(build, message):
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


def test_the_end_token_of_a_larger_vocabulary():
    """Small models of transformers for tests keep the default end token and have fewer words."""
    assert TextConfig(STACK, vocab_size=99, pooling="end_token", end_token_id=49407).end_token_id == 49407


def test_towers_without_projection_as_wide_as_the_space():
    config = ClipConfig(64, VisionConfig(32, 8, STACK, projection="none"), TextConfig(STACK, projection="none"))
    assert ClipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("image_size", "patch_size", "grid"), [(224, 32, 7), (384, 14, 27), (378, 14, 27), (391, 14, 27), (14, 14, 1)]
)
def test_what_fills_no_whole_patch_is_left_out(image_size, patch_size, grid):
    config = VisionConfig(image_size, patch_size, STACK)
    assert (config.grid, config.patches) == (grid, grid**2)


@pytest.mark.parametrize(("image_size", "grid"), [(32, 1), (62, 1), (63, 2), (224, 7), (288, 9), (448, 14)])
def test_grid_of_a_resnet(image_size, grid):
    """63 pixels: 32 after the first convolution, which pads, and half of that four times over."""
    assert ResNetConfig(image_size, (1, 1, 1, 1)).grid == grid


def test_pool_width_of_rn50x64():
    """It has 128 channels, 4096 of them at last, as open_clip's RN50x64 has."""
    assert ResNetConfig(448, (3, 15, 36, 10), width=128, heads=64).pool_width == 4096


def test_only_a_model_with_a_bias_is_sigmoid(toy_config):
    assert not toy_config.is_sigmoid
    assert replace(toy_config, initial_logit_bias=-10.0).is_sigmoid
    assert replace(toy_config, initial_logit_bias=0.0).is_sigmoid


def test_mlp_ratio_gives_the_width_back():
    for width in (*range(1, 130), 768, 1024, 1152, 1408, 1664):
        for mlp_width in range(1, 8 * width, 1 if width < 130 else 37):
            ratio = mlp_ratio(width, mlp_width)
            assert TransformerConfig(width, 1, 1, mlp_ratio=ratio).mlp_width == mlp_width
            assert round(ratio, 4) == ratio


@pytest.mark.parametrize(
    ("width", "mlp_width", "ratio"), [(768, 3072, 4), (1152, 4304, 3.7362), (1408, 6144, 4.3637), (1664, 8192, 4.9231)]
)
def test_mlp_ratio_is_written_as_by_others(width, mlp_width, ratio):
    """As in the configs of open_clip's ViT-SO400M, ViT-g and ViT-bigG."""
    assert mlp_ratio(width, mlp_width) == ratio


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
    speed: Literal["fast", "slow"] | None = None


@dataclass(frozen=True)
class Circle:
    radius: float
    colour: str = "red"


@dataclass(frozen=True)
class Square:
    side: float
    colour: str = "red"


@dataclass(frozen=True)
class Drawing:
    shape: Circle | Square
    background: Square | None = None


def test_parse_takes_the_dataclass_that_knows_the_keys():
    assert parse(Drawing, {"shape": {"radius": 1}}, "d") == Drawing(Circle(1.0))
    assert parse(Drawing, {"shape": {"side": 2, "colour": "blue"}}, "d") == Drawing(Square(2.0, "blue"))
    drawing = Drawing(Circle(3.0), background=Square(4.0))
    assert parse(Drawing, asdict(drawing), "d") == drawing
    assert parse(Drawing, {"shape": Square(1.0), "background": None}, "d") == Drawing(Square(1.0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"side": "2"}, "d.shape.side must be a number, not '2'"),
        ({"side": 2, "color": "blue"}, "d.shape has no key 'color'; did you mean 'colour'?"),
        ({"colour": "blue"}, "d.shape lacks the key 'radius'"),
        (3, "d.shape must be Circle or Square, not 3"),
        (None, "d.shape must be Circle or Square, not None"),
    ],
)
def test_parse_says_what_is_wrong_with_one_of_two_dataclasses(untyped, shape, message):
    with pytest.raises(UserError) as caught:
        parse(Drawing, {"shape": shape}, "d")
    assert str(caught.value) == message


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
        ({"speed": "fats"}, "config.speed must be 'fast', 'slow' or none, not 'fats'"),
        ({"pair": [1]}, "config.pair must have 2 values, not 1"),
        ({"pair": 1}, "config.pair must be a list, not 1"),
        ({"pair": [1, "b"]}, "config.pair[1] must be a number, not 'b'"),
        ({"items": [{"rate": 1}, {}]}, "config.items[1] lacks the key 'rate'"),
        ({"table": 3}, "config.table must be a mapping, not 3"),
        ({"table": {"a": "b"}}, "config.table.a must be a number, not 'b'"),
        ({"table": {"a": 10**400}}, "config.table.a is too large for a number"),
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


@pytest.mark.parametrize(
    "vision", [ResNetConfig(64, (1, 2, 1, 1), width=8, heads=4), VisionConfig(16, 8, STACK, pooling="map")]
)
def test_either_image_tower_survives_json(toy_config, vision):
    config = replace(toy_config, vision=vision, initial_logit_bias=-10.0)
    again = ClipConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_mlp_width_of_vit_g():
    """open_clip's ViT-g-14 has an MLP ratio of 4.3637, which means 6144 wide."""
    assert TransformerConfig(width=1408, layers=1, heads=16, mlp_ratio=4.3637).mlp_width == 6144


def test_text_defaults():
    text = TextConfig(TransformerConfig(64, 1, 1))
    assert (text.context_length, text.vocab_size) == (77, 49408)
