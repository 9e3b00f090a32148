"""The migration page's flags and config keys: theirs by their parser, ours by our schema, and what is said of both."""

import argparse
import ast
import re
import shlex
from dataclasses import asdict
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from support.closeness import relative_error
from support.config_keys import at, config_with, holds, key_and_text, literal
from support.markdown import GUIDES, code, table
from support.open_clip_shim import import_open_clip

import clip_jax
from clip_jax.config import VisionConfig
from clip_jax.presets import get_config
from clip_jax.training.config import DataConfig, OptimizerConfig, TrainConfig
from clip_jax.training.learning_rates import is_trained
from clip_jax.training.optimizer import decayed, make_schedule
from clip_jax.weights.pretrained import get_pretrained
from clip_jax.weights.tree import flatten

torch = pytest.importorskip("torch")
open_clip = import_open_clip()
params = pytest.importorskip("open_clip_train.params")

PAGE = next(page for page in GUIDES if page.name == "migration.md")
FLAGS = table(PAGE, "theirs", "default", "ours", "default", "what differs")
KEYS = table(PAGE, "theirs, `config.`", "ours, `config.`", "what differs")
SMALL = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8}
WORDS = {"context_length": 12, "vocab_size": 700, "width": 40, "layers": 3, "heads": 5}


@lru_cache
def their_parser() -> argparse.ArgumentParser:
    """The parser that `parse_args` makes and keeps to itself."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        keep = argparse.ArgumentParser.parse_args
        patch.setattr(argparse.ArgumentParser, "parse_args", lambda self, *a: (found.append(self), keep(self, *a))[1])
        params.parse_args([])
    return found[0]


def flags_of(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("--")]


@pytest.mark.parametrize("row", FLAGS, ids=lambda row: row[0])
def test_their_flags_are_there_with_those_defaults(row):
    """Of several flags, each has its own default, or all have the one."""
    [said] = code(row[0])
    words, known = shlex.split(said), their_parser()._option_string_actions
    flags, defaults = flags_of(words), [ast.literal_eval(default) for default in code(row[1])]
    assert {*flags} <= known.keys()  # none abbreviated
    params.parse_args(words)
    # Learning rate and Adam's numbers follow the model.
    found = params.parse_args([] if flags == ["--model"] else ["--model", "ViT-B-32"])
    assert [getattr(found, known[flag].dest) for flag in flags] == (
        defaults if len(defaults) > 1 else defaults * len(flags)
    )


@pytest.mark.parametrize("row", [*FLAGS, *KEYS], ids=lambda row: row[0])
def test_our_key_is_taken(row):
    [override] = code(row[2] if len(row) == 5 else row[1])
    key, text = key_and_text(override)
    assert holds(at(asdict(config_with(override)), key), literal(text))


@pytest.mark.parametrize("row", FLAGS, ids=lambda row: row[0])
def test_our_key_has_that_default(row):
    [override] = code(row[2])
    key = override.partition("=")[0]
    if row[3]:
        [default] = code(row[3])
        assert at(asdict(TrainConfig(DataConfig(""))), key) == literal(default)
    else:  # a place, which has no default
        assert key.startswith(("data.source", "evaluate."))


def test_no_flag_of_theirs_is_passed_over():
    told = {*re.findall(r"--[a-z0-9-]+", PAGE.read_text(encoding="utf-8"))}
    assert their_parser()._option_string_actions.keys() - {"-h", "--help"} <= told


def test_names():
    """Architectures and pretrained tags, and how many of open_clip's there are."""
    architectures = {name for name in clip_jax.list_models() if not name.startswith("tiny")}
    assert architectures <= {*open_clip.list_models()}
    theirs = {f"{tag}/{name}" for name, tag in open_clip.list_pretrained()}
    ours = {*clip_jax.list_pretrained()}
    assert ours <= theirs
    assert f"{len(ours)} of open_clip's {len(theirs)}" in " ".join(PAGE.read_text(encoding="utf-8").split())
    rows = table(
        PAGE, "`open_clip.create_model(NAME, pretrained=TAG)`", "`clip_jax.load(...)`", "activation of the weights"
    )
    for left, right, activation in rows:
        (name, tag), [known] = code(left), code(right)
        assert known == f"{tag}/{name}"
        assert known in ours & theirs
        assert get_pretrained(known).config.text.transformer.activation == activation
        assert open_clip.get_pretrained_cfg(name, tag)
        for quick in (open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, tag)):
            assert quick.get("quick_gelu", False) == (activation == "quick_gelu")  # or open_clip would warn


def test_plain_names_have_the_exact_gelu():
    for name, quick in (("ViT-B-32", False), ("ViT-B-32-quickgelu", True)):
        assert bool(open_clip.get_model_config(name).get("quick_gelu")) == quick
        assert (get_config(name).text.transformer.activation == "quick_gelu") == quick


def test_openai_is_quick_gelu_under_either_name():
    for name in ("openai/ViT-B-32", "openai/ViT-B-32-quickgelu"):
        assert get_pretrained(name).config.text.transformer.activation == "quick_gelu"


def test_their_last_group_of_a_vit_is_the_projection():
    [override] = {code(row[4])[-1] for row in FLAGS if "--lock-image-unlocked-groups" in row[0]}
    flags = is_trained(jax.eval_shape(lambda: clip_jax.create("tiny").params), config_with(override).optimizer.frozen)
    assert [name for name, flag in flatten(flags["visual"]).items() if flag] == ["projection"]
    model = open_clip.CLIP(24, SMALL, WORDS)
    model.lock_image_tower(unlocked_groups=1)
    assert [name for name, p in model.visual.named_parameters() if p.requires_grad] == ["proj"]


def test_learning_rates_are_equal_in_every_step():
    from open_clip_train.scheduler import cosine_lr

    steps, warmup, peak = 200, 20, 5e-4
    theirs = cosine_lr(SimpleNamespace(param_groups=[{}]), peak, warmup, steps)
    ours = make_schedule(OptimizerConfig(learning_rate=peak, warmup=warmup), steps)
    expected = [theirs(step) for step in range(steps)]
    assert relative_error([ours(step) for step in range(steps)], expected) <= 1e-6


def test_weight_decay_is_on_as_many_numbers():
    """Those that open_clip_train's main takes out of it, by its own words for them."""
    config = clip_jax.create("tiny").config
    ours = jax.eval_shape(lambda: clip_jax.create("tiny").params)
    vision, text = config.vision, config.text
    assert isinstance(vision, VisionConfig)
    model = open_clip.CLIP(
        config.embed_dim,
        {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            **tower(vision.transformer),
            "head_width": 64,
        },
        {"context_length": text.context_length, "vocab_size": text.vocab_size, **tower(text.transformer)}
        | {"heads": text.transformer.heads},
    )

    def excluded(name: str, parameter: Any) -> bool:
        return parameter.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))

    expected = sum(p.numel() for name, p in model.named_parameters() if not excluded(name, p))
    sizes = jax.tree.map(lambda flag, leaf: leaf.size if flag else 0, decayed(ours), ours)
    assert sum(jax.tree.leaves(sizes)) == expected
    assert sum(p.size for p in jax.tree.leaves(ours)) == sum(p.numel() for p in model.parameters())


def tower(stack: Any) -> dict[str, int]:
    return {"width": stack.width, "layers": stack.layers}


def test_their_accumulation_multiplies_the_gradient_of_the_scale():
    """By open_clip_train's own epoch of one update, in four parts and in one."""
    from open_clip_train.train import train_one_epoch

    rng = np.random.default_rng(0)
    pixels = torch.tensor(rng.standard_normal((8, 3, 16, 16)), dtype=torch.float32)
    tokens = torch.tensor(rng.integers(1, 699, (8, 12)))
    gradients = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = open_clip.CLIP(24, SMALL, WORDS, output_dict=True)
        batches = Batches(zip(pixels.chunk(parts), tokens.chunk(parts), strict=True))
        data = {"train": SimpleNamespace(dataloader=batches, set_epoch=lambda epoch: None)}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        options = params.parse_args(["--accum-freq", str(parts), "--device", "cpu", "--precision", "fp32"])
        options.distill, options.skip_scheduler, options.rank, options.local_rank = False, True, 1, 1
        options.distributed, options.world_size, options.wandb = False, 1, False
        train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None, None, None, options)
        gradients.append({name: p.grad.numpy() for name, p in model.named_parameters()})
    whole, parted = gradients
    for name in whole:
        assert relative_error(parted[name], whole[name] * (4 if name == "logit_scale" else 1)) <= 1e-4, name


class Batches(list):
    """What open_clip_train asks of a loader."""

    num_samples = 8

    @property
    def num_batches(self) -> int:
        return len(self)


def test_sigmoid_begins_alike():
    """open_clip_train's main begins at these numbers where --siglip is given."""
    from clip_jax.training.model import training_model

    config = config_with("loss.kind=sigmoid")
    model = training_model(config, None)
    assert (np.exp(model.initial_logit_scale), model.initial_logit_bias) == pytest.approx((10, -10))
    source = params.__file__.replace("params.py", "main.py")
    with open(source, encoding="utf-8") as file:
        text = file.read()
    assert "model_kwargs['init_logit_scale'] = np.log(10)" in text
    assert "model_kwargs['init_logit_bias'] = -10" in text
