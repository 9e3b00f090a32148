"""What cannot be read or written, through `clip_jax.load` and `clip-jax convert`: one line, and nothing left behind."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save_file
from support.checkpoints import TOKENIZERS, write_json, write_open_clip

import clip_jax
from clip_jax import UserError
from clip_jax.cli.main import main

torch = pytest.importorskip("torch")

NAME = "ViT-M-16-alt"
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
OUR_WEIGHTS = "model.safetensors"
# A conversion that is killed when a part of the weights is on the disk.
KILLED = """
import os, signal, sys
from clip_jax.cli.main import main
from clip_jax.weights import safetensors_file

write = safetensors_file._write

def write_and_die(file, name, tensor):
    write(file, name, tensor)
    file.flush()
    if file.tell() > 100_000:
        os.kill(os.getpid(), signal.SIGKILL)

safetensors_file._write = write_and_die
main(["convert", *sys.argv[1:]])
"""

Arrays = dict[str, np.ndarray]


@pytest.fixture
def source(tmp_path) -> Path:
    write_open_clip(tmp_path / "source", NAME)
    return tmp_path / "source"


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[..., str]:
    """Runs `clip-jax convert`, which must refuse and leave every file as it was; what it says."""

    def convert(source: Any, target: Path = tmp_path / "target", *options: str) -> str:
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as caught:
            main(["convert", str(source), str(target), *options])
        captured = capsys.readouterr()
        assert caught.value.code == 2
        assert captured.out == ""
        assert captured.err.startswith("clip-jax: ")
        assert captured.err.count("\n") == 1
        assert contents(tmp_path) == before
        return captured.err.removeprefix("clip-jax: ").rstrip("\n")

    return convert


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unloadable(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        clip_jax.load(path)
    return str(caught.value)


def change_config(folder: Path, tower: str | None, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (config["model_cfg"] if tower is None else config["model_cfg"][tower]).update(values)
    write_json(folder / CONFIG, config)


def change_weights(path: Path, change: Callable[[Arrays], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


# Files


@pytest.mark.parametrize("part", [0.999, 0.5, 0.01])
def test_truncated_safetensors(source, refused, part):
    cut(source / WEIGHTS, part)
    assert refused(source).startswith(f"{source / WEIGHTS} is truncated or damaged")
    assert unloadable(source) == refused(source)


@pytest.mark.parametrize("part", [0.999, 0.5, 0.01])
def test_truncated_torch_file(source, refused, part):
    tensors = {name: torch.tensor(values) for name, values in load_file(source / WEIGHTS).items()}
    (source / WEIGHTS).unlink()
    file = source / "open_clip_pytorch_model.bin"
    torch.save(tensors, file)
    cut(file, part)
    assert refused(source).startswith(f"{file} is truncated or damaged")
    assert unloadable(source) == refused(source)


def test_truncated_npz(tmp_path, refused):
    file = tmp_path / "siglip.npz"
    np.savez(file, allow_pickle=False, **{"params/img/embedding/kernel": np.zeros((8, 8, 3, 16), np.float32)})
    cut(file, 0.7)
    assert refused(file).startswith(f"{file} is truncated or damaged")


def test_an_empty_file(source, refused):
    (source / WEIGHTS).write_bytes(b"")
    assert refused(source) == f"{source / WEIGHTS} is empty; fetch it again"


def test_what_is_not_there(tmp_path, refused):
    assert refused(tmp_path / "absent").startswith(f"there is no file, folder or pretrained model '{tmp_path}")
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == (
        f"{tmp_path / 'empty'} holds no model: neither clip_jax.json, open_clip_config.json nor config.json with "
        "weights, nor training checkpoints"
    )
    assert refused("ViT-B-32") == "'ViT-B-32' is an architecture without weights; clip_jax.create makes a random one"
    assert "did you mean 'openai/ViT-B-32'?" in refused("openai/VIT-B32")


def test_an_evil_pickle_is_not_run(tmp_path, refused):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"visual.proj": torch.zeros(2, 2), "extra": Evil()}, tmp_path / "evil.pt")
    message = refused(tmp_path / "evil.pt")
    assert "posix.system" in message
    assert unloadable(tmp_path / "evil.pt") == message
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil()))
    assert "is a bare pickle, which is not read" in refused(tmp_path / "bare.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "folder/model.safetensors"])
def test_an_index_that_leads_elsewhere(tmp_path, source, refused, name):
    (source / WEIGHTS).rename(tmp_path / "secret.safetensors")
    (source / CONFIG).unlink()
    write_json(source / "model.safetensors.index.json", {"weight_map": {"visual.proj": name}})
    assert f"{name!r} is no plain file name" in refused(source)


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "a/../../secret.json"])
def test_tokenizer_files_that_lead_elsewhere(tmp_path, source, refused, name):
    (tmp_path / "secret.json").write_text("{}")
    clip_jax.save(clip_jax.load(source), tmp_path / "model")
    description = json.loads((tmp_path / "model" / "clip_jax.json").read_text())
    write_json(tmp_path / "model" / "clip_jax.json", description | {"tokenizer_files": [name]})
    assert f"{name!r} is no plain file name" in refused(tmp_path / "model")


def test_zip_bombs(tmp_path, refused):
    zeros = {"params/img/embedding/kernel": np.zeros((4000, 4000), np.float32)}
    np.savez_compressed(tmp_path / "bomb.npz", allow_pickle=False, **zeros)
    assert "unpacks to" in refused(tmp_path / "bomb.npz")
    stored = io.BytesIO()
    torch.save({"visual.proj": torch.zeros(4000, 4000)}, stored)
    with zipfile.ZipFile(stored) as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.namelist():
            small.writestr(entry, plain.read(entry))
    assert "is compressed; give the file as torch wrote it" in refused(tmp_path / "bomb.pt")


# Weights


def test_every_problem_is_named(source, refused):
    def change(tensors: Arrays) -> None:
        del tensors["visual.proj"], tensors["transformer.resblocks.1.ln_1.bias"]
        tensors["visual.class_embedding"] = np.zeros(31, np.float32)
        tensors["text_projection"] = tensors["text_projection"].T.copy()
        tensors["ln_final.weight"] = tensors["ln_final.weight"].astype(np.int64)
        tensors["head.weight"] = np.zeros(3, np.float32)
        tensors["visual.transformer.resblocks.2.ln_1.bias"] = np.zeros(32, np.float32)

    change_weights(source / WEIGHTS, change)
    message = refused(source)
    start = f"the weights in {source / WEIGHTS} do not fit the model: "
    assert message.startswith(start)
    assert sorted(message.removeprefix(start).split("; ")) == [
        "head.weight is unknown",
        "ln_final.weight is of type int64, not floating-point",
        "text_projection has shape [24, 40], not [40, 24]",
        "transformer.resblocks.1.ln_1.bias is missing",
        "visual.class_embedding has shape [31], not [32]",
        "visual.proj is missing",
        "visual.transformer.resblocks.2.ln_1.bias is unknown",
    ]
    assert unloadable(source) == message


def test_many_problems_of_a_kind_are_told_as_one(source, refused):
    change_config(source, "vision_cfg", layers=50)
    message = refused(source)
    assert "visual.transformer.resblocks.*.mlp.c_fc.weight is missing (48 of these)" in message
    assert "visual.transformer.resblocks.*.ln_*.bias is missing (96 of these)" in message
    assert len(message) < 1000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("layout", ["clip_jax", "open_clip"])
def test_weights_that_are_not_finite(source, refused, value, dtype, layout):
    def change(tensors: Arrays) -> None:
        for name in ("visual.proj", "transformer.resblocks.1.mlp.c_fc.weight"):
            tensors[name] = tensors[name].astype(dtype)
            tensors[name][3, 2] = value

    change_weights(source / WEIGHTS, change)
    named = {
        "open_clip": "transformer.resblocks.1.mlp.c_fc.weight, visual.proj",
        "clip_jax": "text/transformer/block/mlp/up/kernel, visual/projection",
    }
    problem = "are not finite (NaN or infinite)"
    options = ("--to", layout)
    assert refused(source, source.parent / "target", *options) == f"these weights {problem}: {named[layout]}"
    ours = set(named["clip_jax"].split(", "))
    start = f"these weights of {source} {problem}: "
    assert set(unloadable(source).removeprefix(start).split(", ")) == ours


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bfloat16_weights_that_are_not_finite(tmp_path, refused, value):
    model = write_open_clip(tmp_path / "source", NAME)
    tensors = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    tensors["visual.proj"][3, 2] = value
    write_open_clip(tmp_path / "source", NAME, tensors=tensors)
    assert refused(tmp_path / "source").endswith("are not finite (NaN or infinite): visual/projection")
    assert unloadable(tmp_path / "source").endswith("are not finite (NaN or infinite): visual/projection")


def test_statistics_that_are_not_finite(tmp_path, refused):
    write_open_clip(tmp_path / "source", "RN50")
    change_weights(tmp_path / "source" / WEIGHTS, lambda tensors: tensors["visual.bn1.running_var"].fill(np.nan))
    assert "visual/stem/norm_1/variance" in refused(tmp_path / "source")


def test_what_was_there_stays_when_the_new_fails(source, tmp_path, refused):
    clip_jax.save(clip_jax.load(source), tmp_path / "target")
    change_weights(source / WEIGHTS, lambda tensors: tensors["visual.proj"].fill(np.nan))
    assert "not finite" in refused(source, tmp_path / "target", "--overwrite")
    clip_jax.load(tmp_path / "target")


# Configs


@pytest.mark.parametrize("text", ["", "{", '{"model_cfg": ', "[]", "null", "3", "\ufeff{}", "[" * 100_000])
def test_damaged_json(source, refused, text):
    (source / CONFIG).write_text(text, encoding="utf-8")
    message = refused(source)
    assert message.startswith(f"{source / CONFIG}")
    assert "damaged" in message or "lacks embed_dim, vision_cfg or text_cfg" in message


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("tower", "values", "message"),
    [
        (
            "vision_cfg",
            {"attentional_pool": True},
            "vision_cfg asks for what no tower here computes: attentional_pool=True",
        ),
        ("vision_cfg", {"qk_norm": True, "scale_fc": True}, "computes: qk_norm=True, scale_fc=True"),
        ("vision_cfg", {"pos_embed_type": "sin_cos_2d"}, "computes: pos_embed_type='sin_cos_2d'"),
        ("vision_cfg", {"wavelets": 3}, "computes: wavelets=3"),
        ("vision_cfg", {"pool_type": "avg"}, "vision_cfg pools by 'avg' before its last norm"),
        ("vision_cfg", {"timm_model_name": "convnext_base"}, "the vision tower is timm's 'convnext_base'"),
        (
            "vision_cfg",
            {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map"},
            "the projection 'linear' of a timm tower cannot be read",
        ),
        ("vision_cfg", {"image_size": [224, 112]}, "images and patches must be square, not [224, 112]"),
        ("vision_cfg", {"image_size": "37"}, "a size must be a number of pixels, not '37'"),
        ("vision_cfg", {"head_width": 5}, "width 32 does not divide into 6 heads"),
        ("vision_cfg", {"head_width": 0}, "is damaged: a number is zero or too large"),
        ("vision_cfg", {"width": "32"}, "is damaged: a value has the wrong type"),
        ("vision_cfg", {"layers": "2"}, "vision.transformer.layers must be an integer, not '2'"),
        ("vision_cfg", {"layers": 2.0}, "vision.transformer.layers must be an integer, not 2.0"),
        ("vision_cfg", {"layers": True}, "vision.transformer.layers must be an integer, not True"),
        ("vision_cfg", {"layers": 0}, "layers 0 is outside the range from 1 to "),
        ("vision_cfg", {"layers": 10**9}, "layers 1000000000 is outside the range from 1 to "),
        ("vision_cfg", {"width": -32}, "width -32 is outside the range from 1 to "),
        ("vision_cfg", {"mlp_ratio": "wide"}, "is damaged: a value is none that there can be"),
        ("vision_cfg", {"patch_size": 100}, "image_size 37 is smaller than one patch of 100 pixels"),
        ("vision_cfg", {"act_kwargs": {"approximate": "cubic"}}, "act_kwargs {'approximate': 'cubic'} are not known"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "computes: hf_model_name='roberta-base'"),
        ("text_cfg", {"embed_cls": True}, "computes: embed_cls=True"),
        ("text_cfg", {"pool_type": "first"}, "text_cfg's pool_type 'first' is not known; argmax, last, eos are"),
        ("text_cfg", {"heads": 7}, "width 40 does not divide into 7 heads"),
        ("text_cfg", {"context_length": -1}, "context_length -1 is outside the range from 1 to "),
        ("text_cfg", {"vocab_size": 10**30}, "is outside the range from 1 to "),
        ("text_cfg", {"vocab_size": None}, "text.vocab_size must be an integer, not None"),
        (None, {"embed_dim": "24"}, "embed_dim must be an integer, not '24'"),
        (None, {"vision_cfg": 3}, "its vision_cfg is no mapping"),
        (None, {"multimodal_cfg": {"width": 3}}, "model_cfg asks for what no tower here computes: multimodal_cfg"),
    ],
)
def test_open_clip_configs_that_cannot_be_used(source, refused, tower, values, message):
    change_config(source, tower, **values)
    told = refused(source)
    assert told.startswith(f"{source / CONFIG} ")
    assert message in told
    assert unloadable(source) == told


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "config.json is of model_type 'bert'; 'clip' and 'siglip' can be read"),
        ({"model_type": "clip", "vision_config": {"hidden_size": "wide"}}, "is damaged: a value has the wrong type"),
        ({"model_type": "clip", "text_config": [3]}, "is damaged: "),
        ({"model_type": "clip", "text_config": {"hidden_size": 0}}, "is damaged: a number is zero or too large"),
        ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, "has no pooling head"),
        ({"model_type": "siglip", "text_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not known"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*has no .*; the library's defaults are used")
def test_transformers_configs_that_cannot_be_used(tmp_path, source, refused, config, message):
    (source / WEIGHTS).rename(source / "model.safetensors")
    (source / CONFIG).unlink()
    write_json(source / "config.json", config)
    assert message in refused(source)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 3}, "is of format 3; this version of clip_jax reads up to 2"),
        ({"config": None}, "model config must be a mapping"),
        ({"origin": {"table": "open_clip", "types": {}}}, "origin has no key 'types'"),
        ({"origin": {"dtypes": {"visual/projection": "os.system"}}}, "is 'os.system', which is no floating-point type"),
        ({"origin": {"dtypes": {"visual/projection": "int8"}}}, "is 'int8', which is no floating-point type"),
        ({"origin": {"scalar_shape": [3]}}, "origin.scalar_shape is [3]; a scalar's is [] or [1]"),
        ({"origin": {"buffers": {"visual/a/batches": "many"}}}, "origin.buffers.visual/a/batches must be an integer"),
        ({"tokenizer_files": ["tokenizer.json"]}, "lacks tokenizer.json; copy the whole folder"),
        ({"tokenizer_files": 3}, "is damaged: its tokenizer_files must be a list of names"),
    ],
)
def test_descriptions_of_our_own_that_cannot_be_used(tmp_path, source, refused, values, message):
    clip_jax.save(clip_jax.load(source), tmp_path / "model")
    description = json.loads((tmp_path / "model" / "clip_jax.json").read_text())
    write_json(tmp_path / "model" / "clip_jax.json", description | values)
    assert message in refused(tmp_path / "model", tmp_path / "target", "--to", "open_clip")


@pytest.mark.parametrize(
    "damage",
    [
        lambda configs: configs.update({CONFIG: 3}),
        lambda configs: configs[CONFIG].pop("model_cfg"),
        lambda configs: configs[CONFIG].update(model_cfg=[]),
        lambda configs: configs[CONFIG]["model_cfg"].update(embed_dim=25),
        lambda configs: configs[CONFIG]["model_cfg"]["vision_cfg"].update(head_width=0),
        lambda configs: configs[CONFIG]["model_cfg"]["text_cfg"].update(layers=10**30),
    ],
    ids=["a number", "no model", "a list", "another model", "zero", "huge"],
)
def test_a_sources_config_that_describes_another_model_is_not_written(tmp_path, source, damage):
    """Ours is, which says the same as the one that was there at first."""
    clip_jax.save(clip_jax.load(source), tmp_path / "model")
    description = json.loads((tmp_path / "model" / "clip_jax.json").read_text())
    damage(description["origin"]["configs"])
    write_json(tmp_path / "model" / "clip_jax.json", description)
    main(["convert", str(tmp_path / "model"), str(tmp_path / "target"), "--to", "open_clip"])
    assert clip_jax.load(tmp_path / "target").config == clip_jax.load(source).config


# Targets


def test_an_existing_target(source, tmp_path, refused):
    clip_jax.save(clip_jax.load(source), tmp_path / "target")
    assert refused(source) == f"{tmp_path / 'target'} exists already; pass --overwrite to replace it"
    (tmp_path / "file").write_text("mine")
    for options in ((), ("--overwrite",)):
        message = refused(source, tmp_path / "file", *options)
        assert message == f"{tmp_path / 'file'} exists already and is a file; give a folder"


def test_overwriting_leaves_other_files(source, tmp_path, capsys):
    target = tmp_path / "target"
    main(["convert", str(source), str(target), "--to", "open_clip"])
    (target / "notes.txt").write_text("mine")
    (target / "samples").mkdir()
    main(["convert", str(source), str(target), "--overwrite"])
    assert "notes.txt" in capsys.readouterr().out
    assert sorted(path.name for path in target.iterdir()) == [
        "clip_jax.json",
        "model.safetensors",
        "notes.txt",
        "samples",
    ]
    assert (target / "notes.txt").read_text() == "mine"
    clip_jax.load(target)


@pytest.mark.parametrize("layout", ["clip_jax", "open_clip"])
def test_source_and_target_are_the_same(source, refused, layout):
    expected = load_file(source / WEIGHTS)
    assert "exists already; pass --overwrite" in refused(source, source, "--to", layout)
    main(["convert", str(source), str(source), "--to", layout, "--overwrite"])
    clip_jax.save(clip_jax.load(source), source.parent / "again", layout="open_clip")
    written = load_file(source.parent / "again" / WEIGHTS)
    assert written.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(written[name], values)


def test_a_target_inside_of_the_source(source, capsys):
    """And the other way round: nothing is lost, however often."""
    expected = contents(source)
    for options in ((), ("--overwrite",)):
        main(["convert", str(source), str(source / "ours"), *options])
        found = contents(source)
        assert {path: found[path] for path in expected} == expected
        assert found.keys() - expected.keys() == {source / "ours" / name for name in ("clip_jax.json", OUR_WEIGHTS)}
    main(["convert", str(source / "ours"), str(source), "--overwrite", "--to", "open_clip"])
    assert "wrote" in capsys.readouterr().out
    ours = {path: content for path, content in found.items() if path not in expected}
    after = contents(source)
    assert {path: after[path] for path in ours} == ours
    for name, values in load_file(source / WEIGHTS).items():
        np.testing.assert_array_equal(values, load(expected[source / WEIGHTS])[name])


def test_a_conversion_that_is_killed(source, tmp_path, capsys):
    """Nothing is at the target, or what was there before, and the next conversion is none the worse."""
    target = tmp_path / "models" / "target"
    for options in ((), ("--overwrite",)):
        before = contents(target)
        command = [sys.executable, "-c", KILLED, str(source), str(target), *options]
        assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGKILL
        assert target.exists() == bool(options)
        assert contents(target) == before
        assert any(contents(tmp_path / "models").keys() - before.keys())  # it had begun to write
        main(["convert", str(source), str(target), *options])
        assert [path.name for path in target.parent.iterdir()] == ["target"]
        assert clip_jax.load(target).config == clip_jax.load(source).config
    capsys.readouterr()


def test_unknown_layouts(source, refused):
    assert refused(source, source.parent / "target", "--to", "openclip") == (
        "unknown layout 'openclip'; did you mean 'open_clip'?"
    )
    assert refused(source, source.parent / "target", "--to", "keras") == (
        "unknown layout 'keras'; valid are clip_jax, hf, open_clip, openai"
    )


def test_layouts_that_lack_the_architecture(source, tmp_path, refused):
    assert "no layer scale" in refused(source, tmp_path / "target", "--to", "hf")
    write_open_clip(tmp_path / "resnet", "RN50")
    message = refused(tmp_path / "resnet", tmp_path / "target", "--to", "hf")
    assert message == "transformers has no CLIP with a ResNet; write the layout open_clip or openai"


@pytest.mark.parametrize("place", ["/proc/nothing/model", "{file}/model", "/dev/null/model"])
def test_places_that_cannot_be_written(source, tmp_path, refused, place):
    (tmp_path / "file").write_text("")
    target = Path(place.format(file=tmp_path / "file"))
    assert refused(source, target).startswith(f"cannot write to {target}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(source, tmp_path, refused):
    (tmp_path / "closed").mkdir(mode=0o500)
    target = tmp_path / "closed" / "model"
    assert refused(source, target) == f"cannot write to {target}: Permission denied"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
@pytest.mark.parametrize("mode", [0o300, 0o600], ids=["not listed", "not entered"])
def test_folders_that_cannot_be_read(source, tmp_path, capsys, mode):
    clip_jax.save(clip_jax.load(source), tmp_path / "closed")
    (tmp_path / "closed" / "clip_jax.json").unlink()
    (tmp_path / "closed" / "model.safetensors").rename(tmp_path / "closed" / "a.pt")
    before = contents(tmp_path)
    (tmp_path / "closed").chmod(mode)
    try:
        for paths, told in (("source", "closed"), "cannot write to"), (("closed", "target"), "cannot read"):
            for options in ((), ("--overwrite",)):
                with pytest.raises(SystemExit) as caught:
                    main(["convert", *(str(tmp_path / path) for path in paths), *options])
                assert caught.value.code == 2
                captured = capsys.readouterr()
                assert captured.err.startswith(f"clip-jax: {told} {tmp_path / 'closed'}")
                assert captured.err.endswith(": Permission denied\n")
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert contents(tmp_path) == before


def test_a_full_disk(source, tmp_path, refused, monkeypatch):
    class Full(io.FileIO):
        def write(self, content: Any, /) -> int:
            raise OSError(28, "No space left on device")

    def open_full(path: Any, mode: str = "r", **options: Any) -> Any:
        return Full(path, "w") if mode == "wb" else open(path, mode, **options)

    monkeypatch.setattr("clip_jax.weights.safetensors_file.open", open_full, raising=False)
    assert refused(source).endswith("No space left on device")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--image-size", "0"), "image_size 0 is smaller than one patch of 8 pixels"),
        (("--image-size", "-8"), "image_size -8 is smaller than one patch of 8 pixels"),
        (("--context-length", "0"), "context length 0 is not within the 9 positions that were trained"),
        (("--context-length", "20"), "resample_text=True (--resample-text) stretches them"),
        (("--image-size", "100000"), "image size 100000 makes 12500 x 12500 positions; 512 is the most"),
        (("--context-length", "1000000", "--resample-text"), "context length 1000000 is too long; 65536 is the most"),
        (("--image-size", "big"), "argument --image-size: invalid int value: 'big'; see clip-jax convert --help"),
        (("--layers", "3"), "unrecognized arguments: --layers 3; see clip-jax convert --help"),
        (("--activation", "relu"), "invalid choice: 'relu'"),
    ],
)
def test_options_that_make_no_sense(source, tmp_path, refused, options, message):
    assert message in refused(source, tmp_path / "target", *options)


def test_a_missing_tokenizer_is_asked_for_when_there_are_strings(tmp_path, capsys):
    """The weights can be converted without it; the file may come later."""
    write_open_clip(tmp_path / "source", "ViT-H-14-CLIPA")
    (tmp_path / "source" / "tokenizer.json").unlink()
    (tmp_path / "source" / "tokenizer_config.json").unlink()
    main(["convert", str(tmp_path / "source"), str(tmp_path / "target"), "--to", "open_clip"])
    capsys.readouterr()
    with pytest.raises(UserError) as caught:
        clip_jax.load(tmp_path / "target").encode_text("a dog")
    assert str(caught.value) == (
        "strings need the tokenizer's file tokenizer.json, which is missing; put the one of "
        "https://huggingface.co/bert-base-uncased beside the weights"
    )
    (tmp_path / "target" / "tokenizer.json").write_bytes(TOKENIZERS["ViT-H-14-CLIPA"][0]())
    assert clip_jax.load(tmp_path / "target").tokenize("a dog").shape == (1, 9)
