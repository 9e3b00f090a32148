"""A checkpoint run in PyTorch by the library that it is written for, for comparison. Needs the extra `torch`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import UserError, reason
from clip_jax.weights.parity import Trace, assemble
from clip_jax.weights.reading import HF_CONFIG, OPEN_CLIP_CONFIG

STAGES = {"stem": "avgpool", "stage_1": "layer1", "stage_2": "layer2", "stage_3": "layer3", "stage_4": "layer4"}


def trace_in_torch(folder: Path, pixels: np.ndarray, tokens: np.ndarray) -> Trace:
    """The same trace as `parity.trace`, computed in float32 by open_clip or transformers, unmodified.

    Raises UserError for folders of neither, and where the libraries are not installed.
    """
    torch = _library("torch")
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    texts = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        if (folder / OPEN_CLIP_CONFIG).is_file():
            return _open_clip(folder, images, texts)
        if (folder / HF_CONFIG).is_file():
            return _transformers(folder, images, texts)
    raise UserError(
        f"{folder} is neither an open_clip nor a transformers folder, so no PyTorch library loads it; "
        "convert it with --to open_clip or --to hf first"
    )


def _library(name: str) -> Any:
    with _importing(name):
        return import_module(name)


@contextmanager
def _importing(name: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, RuntimeError) as error:  # torchvision raises the second where it does not fit torch
        raise UserError(
            f"{name} cannot be imported ({reason(error)}); pip install '.[torch]' in the repository, with torch and "
            "torchvision from the same index"
        ) from error


def _open_clip(folder: Path, images: Any, texts: Any) -> Trace:
    open_clip = _library("open_clip")
    model: Any = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval().float()
    visual = model.visual
    if hasattr(visual, "layer1"):
        stages = {name: getattr(visual, module) for name, module in STAGES.items()}
    else:
        stages = _numbered(visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks)
    text = model.text if hasattr(model, "text") else model
    image_layers, image = _watch(stages, lambda: model.encode_image(images))
    text_layers, embedding = _watch(_numbered(text.transformer.resblocks), lambda: model.encode_text(texts))
    bias = 0.0 if getattr(model, "logit_bias", None) is None else float(model.logit_bias)
    return assemble(image_layers, image.numpy(), text_layers, embedding.numpy(), float(model.logit_scale.exp()), bias)


def _transformers(folder: Path, images: Any, texts: Any) -> Trace:
    library = _library("transformers")
    config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
    with _importing("transformers"):  # which imports models only now
        model_class = library.MODEL_MAPPING[type(config)]
    model = model_class.from_pretrained(folder, dtype="float32", local_files_only=True).eval()
    siglip = hasattr(model, "logit_bias")

    def image_features() -> Any:
        pooled = model.vision_model(pixel_values=images).pooler_output
        return pooled if siglip else model.visual_projection(pooled)

    def text_features() -> Any:
        pooled = model.text_model(input_ids=texts).pooler_output
        return pooled if siglip else model.text_projection(pooled)

    image_layers, image = _watch(_numbered(model.vision_model.encoder.layers), image_features)
    text_layers, text = _watch(_numbered(model.text_model.encoder.layers), text_features)
    bias = float(model.logit_bias) if siglip else 0.0
    return assemble(image_layers, image.numpy(), text_layers, text.numpy(), float(model.logit_scale.exp()), bias)


def _numbered(modules: Any) -> dict[str, Any]:
    return {f"layer {number}": module for number, module in enumerate(modules, start=1)}


def _watch(modules: Mapping[str, Any], run: Callable[[], Any]) -> tuple[dict[str, np.ndarray], Any]:
    """What the modules put out while `run` runs, images as [b, h, w, c], and what it returns."""
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            values = (output[0] if isinstance(output, tuple) else output).numpy()
            outputs[name] = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: outputs[name] for name in modules}, result
