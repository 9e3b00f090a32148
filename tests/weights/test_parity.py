"""`clip-jax parity`: equal models are found equal, in whatever layouts and libraries, and wrong ones are found out."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.checkpoints import OPEN_CLIP, toy_siglip, write_json, write_open_clip
from support.open_clip_shim import import_open_clip
from support.torch_clip import randomise

import clip_jax
from clip_jax import UserError
from clip_jax.cli.main import main
from clip_jax.weights import torch_model
from clip_jax.weights.parity import compare

torch = pytest.importorskip("torch")

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
VIT = "ViT-B-32-quickgelu"  # of OPEN_CLIP
BOTH_TOWERS = [
    *("image layer 1", "image layer 2", "image features", "text layer 1", "text layer 2", "text features", "logits")
]


@dataclass(frozen=True)
class Outcome:
    """What the command said, its exit code, and what it wrote as JSON."""

    code: int
    out: str
    error: str
    result: dict[str, Any]

    @property
    def relative(self) -> dict[str, float]:
        return {difference["name"]: difference["relative"] for difference in self.result["differences"]}


@pytest.fixture
def parity(tmp_path, capsys) -> Callable[..., Outcome]:
    def run(a: Path, b: Path, *options: str) -> Outcome:
        file = tmp_path / "parity.json"
        file.unlink(missing_ok=True)
        try:
            main(["parity", str(a), str(b), *options, "--json", str(file)])
            code = 0
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err, json.loads(file.read_text()) if file.exists() else {})

    return run


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        toy_siglip(patch)
        yield


@pytest.fixture
def source(tmp_path) -> Path:
    write_open_clip(tmp_path / "source", VIT)
    return tmp_path / "source"


def change_config(folder: Path, tower: str | None, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (config["model_cfg"] if tower is None else config["model_cfg"][tower]).update(values)
    write_json(folder / CONFIG, config)


def test_two_layouts_of_one_model(source, tmp_path, parity):
    clip_jax.save(clip_jax.load(source), tmp_path / "hf", layout="hf")
    outcome = parity(source, tmp_path / "hf")
    assert outcome.code == 0
    assert list(outcome.relative) == BOTH_TOWERS
    assert set(outcome.relative.values()) == {0.0}
    assert (outcome.result["equal"], outcome.result["largest"], outcome.result["same_top"]) == (True, 0.0, 1.0)
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["absolute", "relative"]
    assert [line[:20].strip() for line in lines[1:8]] == BOTH_TOWERS
    assert lines[8:] == [
        "top text the same for 100% of the images",
        "equal: largest relative difference 0.0e+00, tolerance 1e-05",
    ]


@pytest.mark.parametrize("name", [VIT, "RN50", "custom text", "ViT-B-16-SigLIP2"])
def test_open_clip_in_torch(tmp_path, parity, name):
    write_open_clip(tmp_path / "source", name)
    outcome = parity(tmp_path / "source", tmp_path / "source", "--torch", "--tolerance", "1e-5")
    assert outcome.code == 0, outcome.out
    assert 0 < outcome.result["largest"] <= 1e-5
    stages = ["image stem", *(f"image stage_{stage}" for stage in (1, 2, 3, 4))]
    assert list(outcome.relative) == (stages + BOTH_TOWERS[2:] if name == "RN50" else BOTH_TOWERS)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
@pytest.mark.filterwarnings("ignore:.*has no .*; the library's defaults are used")
def test_transformers_in_torch(tmp_path, parity, kind):
    import_open_clip()  # transformers imports torchvision, which may need its help
    import transformers

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 36, "intermediate_size": 70}
    text = sizes | {"vocab_size": 60, "max_position_embeddings": 9, "eos_token_id": 7, "bos_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=sizes | {"image_size": 37, "patch_size": 8}
    )
    randomise(getattr(transformers, f"{kind}Model")(config), seed=3).save_pretrained(tmp_path / "hf")
    outcome = parity(tmp_path / "hf", tmp_path / "hf", "--torch", "--tolerance", "1e-5")
    assert outcome.code == 0, outcome.out
    assert list(outcome.relative) == BOTH_TOWERS
    assert 0 < outcome.result["largest"] <= 1e-5


def test_the_first_layer_that_differs_is_seen(source, tmp_path, parity):
    clip_jax.save(clip_jax.load(source), tmp_path / "other", layout="open_clip")
    tensors = load_file(tmp_path / "other" / WEIGHTS)
    tensors["visual.transformer.resblocks.1.mlp.c_fc.bias"][5] += 0.5
    save_file(tensors, tmp_path / "other" / WEIGHTS, {"format": "pt"})
    for options in ((), ("--torch",)):
        outcome = parity(source, tmp_path / "other", *options)
        assert outcome.code == 1
        assert outcome.result["equal"] is False
        within = {name for name, difference in outcome.relative.items() if difference <= 1e-5}
        assert within == {"image layer 1", "text layer 1", "text layer 2", "text features"}
        marked = {line[:20].strip() for line in outcome.out.splitlines() if line.endswith("<-- beyond the tolerance")}
        assert marked == set(BOTH_TOWERS) - within
        assert "DIFFERENT: largest relative difference " in outcome.out


@pytest.mark.parametrize(
    ("tower", "values"),
    [
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-6}}),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6}}),
        ("vision_cfg", {"head_width": 8}),
        ("text_cfg", {"heads": 4}),
        ("text_cfg", {"no_causal_mask": True}),
        (None, {"quick_gelu": False}),
    ],
    ids=["vision epsilon", "text epsilon", "vision heads", "text heads", "mask", "activation"],
)
@pytest.mark.parametrize("library", [pytest.param("ours", marks=pytest.mark.slow), "torch"])
def test_a_wrong_config_is_found_out(tmp_path, parity, tower, values, library):
    """With weights as open_clip draws them: small, as trained ones are, so that an epsilon counts."""
    open_clip = import_open_clip()
    config = {**OPEN_CLIP[VIT], "text_cfg": {**OPEN_CLIP[VIT]["text_cfg"], "vocab_size": 60, "context_length": 9}}
    torch.manual_seed(1)
    tensors = open_clip.CLIP(**config).state_dict()
    for folder in ("right", "wrong"):
        write_open_clip(tmp_path / folder, VIT, config=config, tensors=tensors)
    change_config(tmp_path / "wrong", tower, **values)
    flags = ("--torch",) if library == "torch" else ()
    assert parity(tmp_path / "right", tmp_path / "right", *flags).code == 0
    outcome = parity(tmp_path / "right", tmp_path / "wrong", *flags)
    assert outcome.code == 1
    wrong = {name for name, difference in outcome.relative.items() if difference > 1e-5}
    towers = {"vision_cfg": ["image"], "text_cfg": ["text"], None: ["image", "text"]}[tower]
    assert wrong >= {f"{tower} features" for tower in towers} | {"logits"}


def test_weights_that_are_not_finite_are_not_equal(source, tmp_path, parity):
    clip_jax.save(clip_jax.load(source), tmp_path / "other", layout="open_clip")
    tensors = load_file(tmp_path / "other" / WEIGHTS)
    tensors["visual.transformer.resblocks.1.mlp.c_fc.bias"][5] = np.nan
    save_file(tensors, tmp_path / "other" / WEIGHTS, {"format": "pt"})
    outcome = parity(source, tmp_path / "other")
    assert outcome.code == 1
    assert "DIFFERENT: largest relative difference nan" in outcome.out


@pytest.mark.parametrize("tolerance", ["1e-3", "1e-12"])
def test_the_tolerance_is_the_users(source, parity, tolerance):
    outcome = parity(source, source, "--torch", "--tolerance", tolerance)
    assert outcome.code == (0 if tolerance == "1e-3" else 1)
    assert outcome.result["tolerance"] == float(tolerance)


def test_the_inputs_hang_on_the_seed(source, parity):
    results = [parity(source, source, "--torch", "--seed", seed).relative for seed in ("0", "0", "1")]
    assert results[0] == results[1]
    assert results[0] != results[2]


@pytest.mark.parametrize("torch_flag", [(), ("--torch",)])
@pytest.mark.parametrize(
    ("tower", "values", "inputs"),
    [
        ("vision_cfg", {"image_size": 64}, "images of 64 pixels and 16 tokens of 49408"),
        ("text_cfg", {"context_length": 9}, "images of 37 pixels and 9 tokens of 49408"),
        ("text_cfg", {"vocab_size": 60}, "images of 37 pixels and 16 tokens of 60"),
    ],
)
def test_models_of_other_inputs(source, tmp_path, parity, tower, values, inputs, torch_flag):
    config = {**OPEN_CLIP[VIT], tower: {**OPEN_CLIP[VIT][tower], **values}}
    write_open_clip(tmp_path / "other", VIT, config=config)
    outcome = parity(source, tmp_path / "other", *torch_flag)
    assert outcome.code == 2
    assert outcome.error == (
        "clip-jax: the models cannot be compared: A takes images of 37 pixels and 16 tokens of 49408, B takes "
        f"{inputs}\n"
    )


def test_models_of_other_sizes(source, tmp_path, parity):
    config = {**OPEN_CLIP[VIT], "vision_cfg": {**OPEN_CLIP[VIT]["vision_cfg"], "layers": 1}}
    write_open_clip(tmp_path / "other", VIT, config=config)
    outcome = parity(source, tmp_path / "other")
    assert outcome.code == 2
    assert outcome.error.startswith("clip-jax: the two models have different layers or sizes")


def test_what_torch_cannot_run(source, tmp_path, parity):
    clip_jax.save(clip_jax.load(source), tmp_path / "ours")
    outcome = parity(source, tmp_path / "ours", "--torch")
    assert outcome.code == 2
    assert outcome.error == (
        f"clip-jax: {tmp_path / 'ours'} is neither an open_clip nor a transformers folder, so no PyTorch library loads "
        "it; convert it with --to open_clip or --to hf first\n"
    )


@pytest.mark.parametrize("error", [ImportError("no module"), RuntimeError("operator does not exist")])
def test_without_torch(source, parity, monkeypatch, error):
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(torch_model, "import_module", fail)
    outcome = parity(source, source, "--torch")
    assert outcome.code == 2
    told = f"torch cannot be imported ({type(error).__name__}: {error}); pip install '.[torch]'"
    assert outcome.error.startswith(f"clip-jax: {told}")


def test_without_a_torchvision_that_fits(source, tmp_path, parity, monkeypatch):
    """A model, and torchvision with it, is imported by transformers only when it is asked for."""
    import transformers

    class Models:
        def __getitem__(self, config: type) -> None:
            assert config is transformers.CLIPConfig
            raise ModuleNotFoundError("Could not import") from RuntimeError("operator nms does not exist")

    clip_jax.save(clip_jax.load(source), tmp_path / "hf", layout="hf")
    monkeypatch.setattr(transformers, "MODEL_MAPPING", Models())
    outcome = parity(source, tmp_path / "hf", "--torch")
    assert outcome.code == 2
    assert outcome.error.startswith(
        "clip-jax: transformers cannot be imported (RuntimeError: operator nms does not exist)"
    )


def test_differences_by_hand():
    """Absolute, relative to A's largest value, and how often the likeliest text is the same."""
    a = {"image layer 1": np.array([[1.0, -4.0]]), "logits": np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])}
    b = {"image layer 1": np.array([[1.0, -3.0]]), "logits": np.array([[1.5, 2.0], [0.0, 3.0], [0.0, 1.0]])}
    result = compare(a, b)
    assert [(d.name, d.absolute, d.relative) for d in result.differences] == [
        ("image layer 1", 1.0, 0.25),
        ("logits", 3.0, 1.0),
    ]
    assert result.largest == 1.0
    assert result.same_top == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="different layers or sizes"):
        compare(a, {"logits": b["logits"]})


@pytest.mark.parametrize(
    ("option", "values", "message"),
    [
        ("--batch-size", ("0", "-1", "100000"), "--batch-size must lie in 1..1024"),
        ("--seed", ("-1",), "--seed must not be negative"),
        ("--tolerance", ("-1", "nan", "inf"), "--tolerance must be a number that is not negative"),
    ],
)
def test_options_that_make_no_sense(source, parity, option, values, message):
    for value in values:
        outcome = parity(source, source, f"{option}={value}")
        assert outcome.code == 2
        assert outcome.error == f"clip-jax: {message}; see clip-jax parity --help\n"
