"""What is made of weights without a config: the architecture from shapes, the rest from names, flags, or not at all."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import (
    OPEN_CLIP,
    channels_first,
    open_clip_model,
    random_pixels,
    random_tokens,
    write_open_clip,
)
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip

import clip_jax
from clip_jax import UserError, list_models
from clip_jax.cli.main import main
from clip_jax.config import ClipConfig
from clip_jax.presets import PRESETS, get_config
from clip_jax.weights.evidence import Hints, config_from_shapes
from clip_jax.weights.keys import Shape, observed_shapes
from clip_jax.weights.tables import table_of

torch = pytest.importorskip("torch")

TOY = "ViT-B-32-quickgelu"  # of OPEN_CLIP
UNTOLD = "which differ in what shapes do not tell (activation, preprocessing or tokenizer)"
CLIP_JAX_ALONE = {name for name in list_models() if name.startswith("tiny") or name.endswith("-quickgelu")}
# One of each kind; the others are slow.
KINDS = ("RN50", "ViT-B-32", "ViT-B-32-256", "ViT-M-16-alt", "ViT-g-14", "ViT-H-14-CLIPA", "ViT-B-16-SigLIP")


def message_of(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        clip_jax.load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def bare(tmp_path) -> Path:
    """A state dict, of an architecture without a name, and nothing else."""
    torch.save(open_clip_model(OPEN_CLIP[TOY]).state_dict(), tmp_path / "bare.pt")
    return tmp_path / "bare.pt"


@pytest.fixture
def named(monkeypatch) -> None:
    """Two names for the toy's shapes."""
    config = toy_config()
    gelu = replace(config.text, transformer=replace(config.text.transformer, activation="gelu"))
    monkeypatch.setitem(PRESETS, "toy-quickgelu", config)
    monkeypatch.setitem(PRESETS, "toy", replace(config, text=gelu))


def toy_config() -> ClipConfig:
    from clip_jax.weights.open_clip_config import from_open_clip

    return from_open_clip(OPEN_CLIP[TOY])


def shapes_in_open_clip(name: str) -> dict[str, Shape]:
    """The shapes of the weights that open_clip builds by this name, none of which is made, as shapes of ours."""
    open_clip = import_open_clip()
    config = open_clip.get_model_config(name)
    build = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        tensors = build(**config).state_dict()
    return observed_shapes(table_of(set(tensors)), {key: tuple(tensor.shape) for key, tensor in tensors.items()})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in KINDS else pytest.mark.slow)
        for name in list_models()
        if name not in CLIP_JAX_ALONE
    ],
)
def test_released_architectures(name):
    """By its name each becomes what it is, and without only where no other has the same shapes."""
    shapes, config = shapes_in_open_clip(name), get_config(name)
    assert config_from_shapes(shapes, Hints(model=name), Hints(), "here") == config
    try:
        assert config_from_shapes(shapes, Hints(), Hints(), "here") == config
    except UserError as error:
        listed = str(error).removeprefix("the weights in here fit ").split(", which differ")[0]
        names = listed.replace(" and ", ", ").split(", ")
        assert name in names
        assert len({PRESETS[other] for other in names}) == len(names) > 1


def test_siglip_by_its_shapes():
    """Where the resolutions of one grid differ, a name is needed; their vocabularies tell the generations apart."""
    assert config_from_shapes(shapes_in_open_clip("ViT-B-16-SigLIP2"), Hints(), Hints(), "here") == get_config(
        "ViT-B-16-SigLIP2"
    )
    with pytest.raises(UserError, match="fit ViT-SO400M-14-SigLIP-378 and ViT-SO400M-14-SigLIP-384, which differ"):
        config_from_shapes(shapes_in_open_clip("ViT-SO400M-14-SigLIP-384"), Hints(), Hints(), "here")


def test_flags_decide_between_names():
    shapes = shapes_in_open_clip("ViT-B-32")
    assert config_from_shapes(shapes, Hints(activation="gelu"), Hints(), "here") == get_config("ViT-B-32")
    assert config_from_shapes(shapes, Hints(activation="quick_gelu"), Hints(), "here") == get_config(
        "ViT-B-32-quickgelu"
    )


def test_another_resolution_of_a_named_architecture():
    shapes = shapes_in_open_clip("ViT-B-16") | {"visual/positional_embedding": (1 + 20**2, 768)}
    shapes["text/positional_embedding"] = (50, 512)
    config = config_from_shapes(shapes, Hints(activation="gelu"), Hints(), "here")
    expected = get_config("ViT-B-16")
    assert config == replace(
        expected,
        vision=replace(expected.vision, image_size=320),
        text=replace(expected.text, context_length=50),
    )


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, "--activation, --vision-heads, --text-heads"),
        ({"activation": "gelu"}, "--vision-heads, --text-heads"),
        ({"activation": "gelu", "text_heads": 5}, "--vision-heads"),
        ({"vision_heads": 2, "text_heads": 5}, "--activation"),
    ],
)
def test_what_is_asked_of_unnamed_shapes(bare, options, asked):
    assert message_of(bare, **options) == (
        f"the weights in {bare} are of no named architecture, and shapes do not tell everything; give {asked}, or "
        "--model with the name of an architecture of these shapes"
    )


def test_flags_that_tell_everything(bare):
    clip = clip_jax.load(bare, activation="quick_gelu", vision_heads=2, text_heads=5)
    # The image size is that of whole patches; the rows and columns beyond them belong to no weight.
    vision = replace(toy_config().vision, image_size=32)
    assert clip.config == replace(toy_config(), vision=vision)
    pixels, tokens = random_pixels(32), random_tokens(16, 49408, 49407)
    model = open_clip_model(OPEN_CLIP[TOY])
    with torch.no_grad():
        image, text = model.encode_image(channels_first(pixels)), model.encode_text(torch.tensor(tokens).long())
    assert relative_error(clip.encode_image(pixels), image) <= 1e-5
    assert relative_error(clip.encode_text(tokens), text) <= 1e-5


def test_flags_of_the_command(bare, tmp_path, capsys):
    flags = ["--activation", "quick_gelu", "--vision-heads", "2", "--text-heads", "5"]
    main(["convert", str(bare), str(tmp_path / "model"), *flags])
    assert "(open_clip): " in capsys.readouterr().out
    assert (
        clip_jax.load(tmp_path / "model").config
        == clip_jax.load(bare, activation="quick_gelu", vision_heads=2, text_heads=5).config
    )


def test_heads_that_cannot_be(bare):
    options = {"activation": "gelu", "text_heads": 5}
    assert message_of(bare, vision_heads=3, **options).startswith("width 32 does not divide into 3 heads")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "there is no activation 'relu'; did you mean 'gelu'?"),
        ({"vision_heads": 0}, "a tower has at least one head, not 0"),
        ({"text_heads": -2}, "a tower has at least one head, not -2"),
        ({"text_heads": "5"}, "a tower has at least one head, not '5'"),
    ],
)
def test_flags_that_cannot_be(bare, options, message):
    """Even where the others would do without them."""
    assert message_of(bare, **{"activation": "gelu", "vision_heads": 2, "text_heads": 5, **options}) == message


@pytest.mark.usefixtures("named")
def test_names_of_the_same_shapes(bare):
    assert message_of(bare) == (
        f"the weights in {bare} fit toy and toy-quickgelu, {UNTOLD}; say which with --model, as in --model toy"
    )
    assert clip_jax.load(bare, model="toy-quickgelu").config == PRESETS["toy-quickgelu"]
    assert clip_jax.load(bare, model="toy").config == PRESETS["toy"]
    assert clip_jax.load(bare, activation="quick_gelu").config == PRESETS["toy-quickgelu"]
    assert clip_jax.load(bare, model="toy", activation="quick_gelu").config == PRESETS["toy-quickgelu"]


def test_names_that_do_not_fit(bare):
    assert message_of(bare, model="VIT-B32").startswith("unknown model 'VIT-B32'; did you mean 'ViT-B-32'?")
    message = message_of(bare, model="ViT-B-16")
    assert message.startswith(f"the weights in {bare} do not fit the model: ")
    assert "visual.proj has shape [32, 24], not [768, 512]" in message
    assert "text_projection has shape [40, 24], not [512, 512]" in message
    assert "visual.transformer.resblocks.*.ln_*.weight is missing (20 of these)" in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrapped_state_dicts(tmp_path, prefix, wrapper):
    tensors = {f"{prefix}{key}": value for key, value in open_clip_model(OPEN_CLIP[TOY]).state_dict().items()}
    torch.save(tensors if wrapper is None else {"epoch": 3, wrapper: tensors}, tmp_path / "bare.pt")
    clip = clip_jax.load(tmp_path / "bare.pt", activation="gelu", vision_heads=2, text_heads=5)
    assert clip.params["visual"]["projection"].shape == (32, 24)


@pytest.mark.parametrize("name", ["epoch_3.pt", "open_clip_model.safetensors", "anything.safetensors"])
def test_weights_beside_their_config(tmp_path, name):
    model = write_open_clip(tmp_path, TOY)
    expected = clip_jax.load(tmp_path)
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / name)
    if name.endswith(".pt"):
        (tmp_path / name).unlink()
        torch.save(model.state_dict(), tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        assert clip_jax.load(path).config == expected.config


def test_a_flag_overrules_the_config_beside_a_file(tmp_path):
    write_open_clip(tmp_path, TOY)
    options = {"activation": "gelu", "vision_heads": 4, "text_heads": 5}
    config = clip_jax.load(tmp_path / "open_clip_model.safetensors", **options).config
    assert config.text.transformer.activation == "gelu"


def test_several_files_without_a_config(tmp_path, bare):
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pt")
    assert message_of(tmp_path) == f"{tmp_path} holds bare.pt, other.pt; give the path of the one to read"
    (tmp_path / "other.pt").unlink()
    assert message_of(tmp_path).startswith(f"the weights in {bare} are of no named architecture")


def test_transformers_weights_without_a_config(tmp_path):
    from safetensors.torch import save_file
    from support.torch_clip import transformers_clip

    config = toy_config()
    model = transformers_clip(config, seed=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    assert "give --activation, --vision-heads, --text-heads" in message_of(tmp_path)
    clip = clip_jax.load(tmp_path, activation="quick_gelu", vision_heads=2, text_heads=5)
    tokens = random_tokens(16, 49408, 49407)
    with torch.no_grad():
        pooled = model.text_model(input_ids=torch.tensor(tokens).long()).pooler_output
        expected = model.text_projection(pooled)
    assert relative_error(clip.encode_text(tokens), expected) <= 1e-5


@pytest.mark.filterwarnings("ignore:.*has no .*; the library's defaults are used")
def test_transformers_weights_beside_their_config(tmp_path):
    """Heads and epsilon that no shape tells."""
    from support.torch_clip import transformers_clip

    config = toy_config()
    stack = replace(config.text.transformer, heads=4, norm_epsilon=1e-3)
    config = replace(config, text=replace(config.text, transformer=stack))
    transformers_clip(config, seed=1).save_pretrained(tmp_path)
    clip = clip_jax.load(tmp_path / "model.safetensors")
    assert clip.config.text.transformer == stack
    assert clip.config == clip_jax.load(tmp_path).config
    overruled = clip_jax.load(
        tmp_path / "model.safetensors", activation="quick_gelu", vision_heads=2, text_heads=5
    ).config
    assert overruled.text.transformer == toy_config().text.transformer


def test_custom_text_without_a_config(tmp_path):
    """SigLIP's layout of names around CLIP's own towers."""
    model = open_clip_model(OPEN_CLIP["custom text, no bias"])
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    assert "give --activation, --vision-heads, --text-heads, or --model" in message_of(tmp_path / "bare.pt")
    clip = clip_jax.load(tmp_path / "bare.pt", activation="gelu", vision_heads=2, text_heads=5)
    tokens = random_tokens(9, 60, 59)
    with torch.no_grad():
        image = model.encode_image(channels_first(random_pixels(37)))
        text = model.encode_text(torch.tensor(tokens).long())
    assert relative_error(clip.encode_image(random_pixels(37)[:, :32, :32]), image) <= 1e-5
    assert relative_error(clip.encode_text(tokens), text) <= 1e-5


@pytest.fixture
def openai(tmp_path) -> Path:
    """A file in the layout `openai`, which has no config file, and the folder `source` that it was made from."""
    toy = OPEN_CLIP[TOY]
    config = {
        **toy,
        "vision_cfg": {**toy["vision_cfg"], "image_size": 32, "width": 128, "head_width": 64},
        "text_cfg": {**toy["text_cfg"], "width": 64, "heads": 1},
    }
    write_open_clip(tmp_path / "source", "bias", config=config)  # for its preprocessing
    main(["convert", str(tmp_path / "source"), str(tmp_path / "openai"), "--to", "openai"])
    return tmp_path / "openai" / "model.safetensors"


def test_the_config_in_a_files_metadata(openai, tmp_path):
    config = clip_jax.load(openai).config
    assert config == clip_jax.load(tmp_path / "source").config == clip_jax.load(openai.parent).config
    overruled = clip_jax.load(openai, activation="gelu", vision_heads=4, text_heads=2).config
    assert overruled.text.transformer == replace(config.text.transformer, activation="gelu", heads=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the config in {} is damaged, it is no JSON: "),
        ("[]", "the config in {} is damaged: it holds no JSON object"),
        ("[" * 5000, "the config in {} is damaged: it is nested more than 100 deep"),
        ('{"embed_dim": NaN}', "the config in {} is damaged, it is no JSON: NaN is no number"),
        ('{"embed_dim": 3}', "{} cannot be used: model config lacks the key 'vision'"),
    ],
    ids=["torn", "a list", "deep", "NaN", "no key"],
)
def test_a_damaged_config_in_a_files_metadata(openai, text, message):
    from safetensors.torch import load_file, save_file

    save_file(load_file(openai), openai, {"format": "pt", "clip_jax": text})
    assert message_of(openai).startswith(message.format(openai))


def test_mean_pooling_is_not_told_by_shapes(tmp_path):
    torch.save(open_clip_model(OPEN_CLIP["ViT-H-14-CLIPA"]).state_dict(), tmp_path / "bare.pt")
    message = message_of(tmp_path / "bare.pt", activation="gelu", vision_heads=2, text_heads=5)
    assert message == f"shapes do not tell how the vision tower in {tmp_path / 'bare.pt'} pools; give --model"


def tensors_without(*parts: str) -> Iterator[tuple[str, Any]]:
    for key, value in open_clip_model(OPEN_CLIP[TOY]).state_dict().items():
        if not key.startswith(parts):
            yield key, value


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc.weight": torch.zeros(2, 2)}, "the tensors' names (fc.weight, ...) are those of no CLIP that is known"),
        (
            {f"blocks.{i}.norm1.weight": torch.zeros(2) for i in range(5)},
            "names (blocks.0.norm1.weight, blocks.1.norm1.weight, blocks.2.norm1.weight, ...) are those of no CLIP",
        ),
        (
            dict(tensors_without("transformer", "token_embedding", "positional_embedding")),
            "do not make up both towers of a CLIP: 'text/positional_embedding' is missing",
        ),
        (
            dict(tensors_without("visual.transformer")),
            "do not make up both towers of a CLIP: 'visual/transformer/block/mlp/up/kernel' is missing",
        ),
    ],
    ids=["no CLIP", "another vision transformer", "no text tower", "no vision tower"],
)
def test_weights_of_something_else(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "bare.pt")
    assert message in message_of(tmp_path / "bare.pt")


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        (
            "vision_model.head.probe",
            (2, 1, 48),
            "vision_model.head.probe in {} has shape [2, 1, 48], as no CLIP has it",
        ),
        ("text_model.embeddings.position_embedding.weight", (5,), "the shapes of the weights in {} are of no CLIP: "),
        ("vision_model.embeddings.patch_embedding.weight", (0, 3, 8, 8), "the weights in {} do not fit the model: "),
        ("vision_model.embeddings.patch_embedding.weight", (48, 3, 0, 0), "the shapes of the weights in {} are of no"),
        ("vision_model.encoder.layers.1.mlp.fc1.weight", (0, 0), "the shapes of the weights in {} are of no CLIP: "),
        ("vision_model.encoder.layers.999999999.mlp.fc1.bias", (8,), "the weights in {} do not fit the model: "),
        ("vision_model.encoder.layers.999999999.mlp.fc1.weight", (120, 48), "the shapes of the weights in {} are of"),
    ],
)
def test_shapes_of_no_model(tmp_path, key, shape, message):
    from support.torch_clip import transformers_siglip

    config = get_config("ViT-B-16-SigLIP")
    stack = replace(config.text.transformer, width=48, layers=2, heads=4)
    vision = replace(config.vision, image_size=32, patch_size=8, transformer=stack)
    text = replace(config.text, transformer=stack, vocab_size=60, context_length=9)
    tensors = transformers_siglip(replace(config, embed_dim=48, vision=vision, text=text), seed=1).state_dict()
    file = tmp_path / "bare.pt"
    options = {"activation": "gelu", "vision_heads": 4, "text_heads": 4}
    torch.save(tensors, file)
    clip_jax.load(file, **options)
    torch.save({**tensors, key: torch.zeros(shape)}, file)
    assert message_of(file, **options).startswith(message.format(file))
