"""Files of tensors of every kind, damaged ones, and files of other kinds, all recognised by content alone."""

import gzip
import io
import json
import pickle
import random
import tarfile
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from clip_jax import UserError
from clip_jax.weights import archive as archive_module
from clip_jax.weights.tensors import open_tensors

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.arange(3, dtype=np.float16)}


def torch_arrays() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in ARRAYS.items()}


def write_torchscript(path) -> None:
    module = torch.nn.Module()
    module.a = torch.nn.Linear(3, 2)
    module.a.weight, module.a.bias = (
        torch.nn.Parameter(tensor, requires_grad=False) for tensor in torch_arrays().values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(module), path)


def write_npz(path, save=np.savez) -> None:
    with open(path, "wb") as file:
        save(file, **ARRAYS)


WRITERS = {
    "safetensors": lambda path: save_file(ARRAYS, path, {"format": "pt"}),
    "torch": lambda path: torch.save(torch_arrays(), path),
    "torchscript": write_torchscript,
    "npz": write_npz,
    "npz_compressed": lambda path: write_npz(path, np.savez_compressed),
}


def message_of(path) -> str:
    with pytest.raises(UserError) as caught:
        [tensor.read() for tensor in open_tensors(path).tensors.values()]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["x", "x.safetensors", "x.bin", "x.npz", "x.json"])
def test_content_tells_the_kind(tmp_path, kind, name):
    WRITERS[kind](tmp_path / name)
    file = open_tensors(tmp_path / name)
    assert file.kind == kind.removesuffix("_compressed")
    assert set(file.tensors) == set(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(file.tensors[key].read(), array, strict=True)


def zip_of(**members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


def tar_of(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def legacy() -> bytes:
    out = io.BytesIO()
    torch.save(torch_arrays(), out, _use_new_zipfile_serialization=False)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "x is a git-lfs pointer, not the file"),
        (b"\n<!DOCTYPE html><html>", "x is an HTML page, not the file that was to be downloaded"),
        (b"<html><head>", "x is an HTML page"),
        (legacy(), "x is in the format of torch before 1.6, which is not read; load it in a newer torch and save it"),
        (pickle.dumps({"a": 1}, 2), "x is a bare pickle, which is not read"),
        (pickle.dumps({"a": 1}, 5), "x is a bare pickle, which is not read"),
        (tar_of("sys_info"), "x is a tar archive; unpack it"),
        (gzip.compress(b"x"), "x is compressed with gzip; unpack it first"),
        (b"\x89HDF\r\n\x1a\n", "x is an HDF5 file, which is not read"),
        (b"\x00\x01\x02\x03", "x is no file of tensors; safetensors, files of torch.save or TorchScript, .npz"),
        (b"PK", "x is no file of tensors"),
        (b"{}", "x is JSON, but no index with a 'weight_map' of a sharded model"),
        (b'{"weight_map": []}', "the 'weight_map' of"),
        (b'{"weight_map": {}}', "the 'weight_map' of"),
        (b'{"weight_map": {"a": 1}}', "the 'weight_map' of"),
        (b'{"weight_map": 3}', "x is JSON, but no index"),
        (b'{"weight_map": ' + b"[" * 100_000, "x is JSON, but no index"),
        (b"{\xff}", "x is JSON, but no index"),
        (zip_of(), "x is a zip archive, but neither torch's nor NumPy's"),
        (zip_of(**{"a.txt": "a"}), "x is a zip archive, but neither torch's nor NumPy's"),
        (zip_of(**{"data.pkl": "a"}), "x is a zip archive, but neither torch's nor NumPy's"),
        (zip_of(**{"a/data.pkl": "N.", "b/data.pkl": "N."}), "x is a zip archive, but neither torch's nor NumPy's"),
        (zip_of(**{"a/data.pkl": "N.", "../x": ""}), "x has an entry ../x, which leads out of the archive"),
        (zip_of(**{"a/data.pkl": "N.", "/etc/x": ""}), "x has an entry /etc/x, which leads out of the archive"),
        (zip_of(**{"a/data.pkl": "N."})[:-5], "x is truncated or damaged"),
        (b"PK\3\4" + bytes(100), "x is truncated or damaged"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    assert message in message_of(tmp_path / "x")


def test_missing_files_and_folders(tmp_path):
    assert f"cannot read {tmp_path}/x: No such file" in message_of(tmp_path / "x")
    assert f"{tmp_path} is not a file" in message_of(tmp_path)


def sharded(folder, shards, weight_map=None, metadata=None):
    for name, arrays in shards.items():
        if arrays is not None:
            save_file({key: np.full(2, index, np.float32) for index, key in enumerate(arrays)}, folder / name)
    weight_map = weight_map or {key: name for name, arrays in shards.items() for key in arrays or ()}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata or {}, "weight_map": weight_map}, indent=2))
    return path


def test_sharded(tmp_path):
    path = sharded(
        tmp_path, {"1.safetensors": ["a", "c"], "2.safetensors": ["b"]}, metadata={"total_size": 24, "x": []}
    )
    file = open_tensors(path)
    assert file.kind == "safetensors"
    assert file.metadata == {"total_size": "24"}
    assert {name: tensor.read().tolist() for name, tensor in file.tensors.items()} == {
        "a": [0, 0],
        "c": [1, 1],
        "b": [0, 0],
    }


def test_sharded_torch_files(tmp_path):
    for index, (name, tensor) in enumerate(torch_arrays().items()):
        torch.save({name: tensor}, tmp_path / f"{index}.bin")
    weight_map = {name: f"{index}.bin" for index, name in enumerate(ARRAYS)}
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": weight_map}))
    file = open_tensors(tmp_path / "index.json")
    assert file.kind == "torch"
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(file.tensors[name].read(), array, strict=True)


def test_every_problem_of_shards_is_named(tmp_path):
    shards = {"1": ["a", "surplus"], "2": ["b"], "3": ["c"]}
    weight_map = {"a": "1", "absent": "1", "b": "1", "d": "missing", "e": "../2", "f": "/etc/passwd", "c": "3"}
    torch.save({"c": torch.zeros(1)}, tmp_path / "3")
    message = message_of(sharded(tmp_path, shards | {"3": None}, weight_map))
    for problem in (
        "1 holds surplus, which the index does not place there",
        "absent is missing from 1",
        "b is missing from 1",
        f"cannot read {tmp_path}/missing: No such file",
        "'../2' is no plain file name",
        "'/etc/passwd' is no plain file name",
        "the shards are of several kinds, safetensors and torch",
    ):
        assert problem in message
    assert message.count(";") == 6 + 2  # two of the problems have one of their own
    many = message_of(sharded(tmp_path, {"1": ["a"]}, {"a": "1", **{f"w{index}": "1" for index in range(1000)}}))
    assert "and 990 more problems" in many
    assert len(many) < 1000


def test_an_index_is_no_shard(tmp_path):
    path = sharded(tmp_path, {"1": ["a"]}, {"a": "model.safetensors.index.json"})
    assert "index.json is no file of tensors" in message_of(path)


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_ENTRIES", 1)
    write_npz(tmp_path / "x")
    assert "has 2 entries; a file of tensors has at most 1" in message_of(tmp_path / "x")


def test_a_directory_larger_than_any_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "_MAX_DIRECTORY", 100)
    write_npz(tmp_path / "x")
    assert "its zip directory cannot be read" in message_of(tmp_path / "x")


def test_names_given_twice(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's
        with zipfile.ZipFile(tmp_path / "x", "w") as archive:
            archive.writestr("a.npy", "")
            archive.writestr("a.npy", "")
    assert "several entries have the same name" in message_of(tmp_path / "x")


def directory_of(content: bytearray) -> int:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.start_dir


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (20, 1, "the sizes of its entries do not add up"),
        (20, 2**31, "overlap or reach beyond its end"),
        (24, 2**31, "the sizes of its entries do not add up"),
        (42, 5, "damaged"),
        (42, 2**31, "overlap or reach beyond its end"),
    ],
)
def test_directories_that_lie(tmp_path, field, value, message):
    write_npz(tmp_path / "x")
    content = bytearray((tmp_path / "x").read_bytes())
    place = directory_of(content) + field  # sizes and offset of the first entry
    content[place : place + 4] = value.to_bytes(4, "little")
    (tmp_path / "x").write_bytes(content)
    assert message in message_of(tmp_path / "x")


def test_entries_that_share_their_bytes(tmp_path):
    """A bomb without much compression: many entries of one content."""
    write_npz(tmp_path / "x")
    content = bytearray((tmp_path / "x").read_bytes())
    first = directory_of(content)
    second = content.index(b"PK\1\2", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    (tmp_path / "x").write_bytes(content)
    message = message_of(tmp_path / "x")
    assert "overlap" in message or "its zip directory cannot be read" in message  # newer zipfiles find it themselves


def damage(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    match rng.randrange(4):
        case 0:
            return content[:place]
        case 1:
            flipped = content[place] ^ (1 << rng.randrange(8))
            return content[:place] + bytes([flipped]) + content[place + 1 :]
        case 2:
            return content[:place] + rng.randbytes(rng.randrange(1, 9)) + content[place:]
        case _:
            return content[:place] + content[place + rng.randrange(1, 9) :]


def damage_inside(content: bytes, rng: random.Random) -> bytes:
    """An archive with one of its entries damaged, whose checksums and sizes are right all the same."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as damaged:
        names = [name for name in archive.namelist() if name.endswith((".pkl", ".npy"))]
        chosen = rng.choice(names)
        for name in archive.namelist():
            entry = archive.read(name)
            damaged.writestr(name, damage(entry, rng) if name == chosen else entry)
    return out.getvalue()


def outcome(path) -> str:
    """Whether a file is read or refused; any other exception is raised."""
    try:
        for tensor in open_tensors(path).tensors.values():
            values = tensor.read()
            assert (values.shape, values.dtype) == (tensor.shape, tensor.dtype)
    except UserError as error:
        return str(error)
    return "read"


@pytest.mark.parametrize(
    ("kind", "how"),
    [(kind, damage) for kind in WRITERS] + [(kind, damage_inside) for kind in ("torch", "torchscript", "npz")],
)
def test_damage_is_an_error_or_a_result(tmp_path, kind, how):
    WRITERS[kind](tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    rng = random.Random(0)
    outcomes = []
    tracemalloc.start()
    for _ in range(300 if how is damage else 150):
        (tmp_path / "x").write_bytes(how(content, rng))
        tracemalloc.reset_peak()
        start = time.perf_counter()
        outcomes.append(outcome(tmp_path / "x"))
        assert time.perf_counter() - start < 2
        assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
    assert not any("\n" in message for message in outcomes)
    assert len(outcomes) - outcomes.count("read") > 50
