"""Fifty updates beside open_clip's own model, losses and parameter groups under torch.optim.AdamW."""

import math
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from support.open_clip_shim import import_open_clip
from support.torch_clip import params_from_open_clip

from clip_jax.losses import Kind
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state
from clip_jax.training.step import make_step, normalise_pixels

torch = pytest.importorskip("torch")
open_clip = import_open_clip()

STEPS, WARMUP, BATCH = 50, 10, 32
RECIPES: dict[Kind, OptimizerConfig] = {
    "softmax": OptimizerConfig(learning_rate=1e-3, warmup=WARMUP, b2=0.98, weight_decay=0.2, clip_norm=1.0),
    "sigmoid": OptimizerConfig(learning_rate=1e-3, warmup=WARMUP, b2=0.95, weight_decay=1e-4, max_logit_scale=None),
}


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Four that come again and again, so that there is something to learn."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, BATCH, 16, 16, 3), dtype=np.uint8)
    tokens = rng.integers(1, 699, (4, BATCH, 12)).astype(np.int32)
    tokens[..., -1] = 699
    return [(pixels[step % 4], tokens[step % 4]) for step in range(STEPS)]


def torch_model(kind: Kind) -> Any:
    torch.manual_seed(0)
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8}
    text = {"context_length": 12, "vocab_size": 700, "width": 40, "layers": 3, "heads": 5}
    begin = {} if kind == "softmax" else {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}
    return open_clip.CLIP(24, vision, text, quick_gelu=True, **begin)


def open_clip_losses(kind: Kind, model: Any, config: Any) -> list[float]:
    recipe = RECIPES[kind]
    whole = [p for n, p in model.named_parameters() if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n]
    decayed = [p for p in model.parameters() if not any(p is other for other in whole)]
    groups = [{"params": whole, "weight_decay": 0.0}, {"params": decayed, "weight_decay": recipe.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(recipe.b1, recipe.b2), eps=recipe.epsilon)
    from open_clip.loss import ClipLoss, SigLipLoss

    score, found = (ClipLoss() if kind == "softmax" else SigLipLoss()), []
    for step, (pixels, tokens) in enumerate(batches()):
        if step < WARMUP:
            rate = recipe.learning_rate * (step + 1) / WARMUP
        else:
            rate = recipe.learning_rate * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = torch.tensor(np.asarray(normalise_pixels(jax.numpy.asarray(pixels), config)).transpose(0, 3, 1, 2))
        optimizer.zero_grad()
        loss = score(*model(images, torch.tensor(tokens)))
        loss.backward()
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        if kind == "softmax":
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
        found.append(loss.item())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("method", "parts"), [("gather", 1), ("ring", 2)])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_loss_curves(toy_config, kind, method, parts):
    """On one device with `gather`; with `ring` on a mesh of eight, in microbatches."""
    theirs = torch_model(kind)
    params = params_from_open_clip(theirs.state_dict())
    if kind == "sigmoid":
        toy_config = replace(toy_config, initial_logit_scale=math.log(10), initial_logit_bias=-10.0)
    config = TrainConfig(
        data=DataConfig("scenes:train"),
        steps=STEPS,
        batch_size=BATCH,
        microbatches=parts,
        model=ModelConfig("tiny", "float32", "scan"),
        loss=LossConfig(kind, method),
        optimizer=RECIPES[kind],
    )
    devices = jax.devices()[: 1 if method == "gather" else 8]
    mesh = make_mesh(MeshConfig() if method == "gather" else MeshConfig(2, 2, 2), devices)
    optimizer = make_optimizer(config.optimizer, STEPS)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(toy_config, optimizer, mesh))
    state = {"params": params, "opt_state": optimizer.init(params), "step": jax.numpy.int32(0)}
    state = jax.device_put(state, shardings)
    step, ours = make_step(config, toy_config, optimizer, mesh, shardings), []
    for pixels, tokens in batches():
        state, figures = step(state, pixels, tokens)
        ours.append(float(figures["loss"]))
    expected = open_clip_losses(kind, theirs, toy_config.preprocess)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert expected[-1] < 0.7 * expected[0]  # they have learnt, so the curves are of something
