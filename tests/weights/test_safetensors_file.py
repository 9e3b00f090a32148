"""Safetensors files against the library: the same values read, the same bytes written, one tensor held at a time."""

import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from clip_jax import UserError
from clip_jax.weights.lazy_tensor import LazyTensor
from clip_jax.weights.safetensors_file import DTYPES, write_safetensors
from clip_jax.weights.tensors import open_tensors


def lazy(array: np.ndarray) -> LazyTensor:
    return LazyTensor(array.shape, array.dtype, lambda: array)


def random_tree(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = [f"{'abcdefg'[rng.integers(7)]}.{index}{'-é/ñ'[rng.integers(4)]}" for index in rng.permutation(20)]
    dtypes = list(DTYPES.values())
    shapes = [(), (1,), (0,), (3, 0, 2), (5,), (2, 3), (4, 1, 3)]
    return {
        name: rng.integers(0, 2, shapes[rng.integers(len(shapes))]).astype(dtypes[rng.integers(len(dtypes))])
        for name in names
    }


def raw(path, header: dict | bytes, data: bytes = b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def message_of(path) -> str:
    with pytest.raises(UserError) as caught:
        open_tensors(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"é\n": '"\\\x1f\x7f'}])
def test_writes_the_bytes_that_the_library_writes(tmp_path, seed, metadata):
    tree = random_tree(seed)
    save_file(tree, tmp_path / "theirs", metadata or None)
    write_safetensors(tmp_path / "ours", {name: lazy(array) for name, array in tree.items()}, metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_no_tensors(tmp_path):
    write_safetensors(tmp_path / "ours", {}, {})
    save_file({}, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert open_tensors(tmp_path / "ours").tensors == {}


def test_several_metadata(tmp_path):
    metadata = {"b": "1", "a": "2"}  # the library writes them in no fixed order
    write_safetensors(tmp_path / "x", {"w": lazy(np.ones(3))}, metadata)
    with safe_open(tmp_path / "x", "np") as file:
        assert file.metadata() == metadata
    assert open_tensors(tmp_path / "x").metadata == metadata


@pytest.mark.parametrize("seed", range(8))
def test_reads_what_torch_wrote(tmp_path, seed):
    rng = np.random.default_rng(seed)
    dtypes = [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint16, torch.uint32),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu),
    ]
    tree = {str(dtype): torch.from_numpy(rng.integers(0, 2, (seed, 3))).to(dtype) for dtype in dtypes}
    tree["scalar"] = torch.tensor(rng.integers(100))
    safetensors.torch.save_file(tree, tmp_path / "x", {"epoch": "3"})
    file = open_tensors(tmp_path / "x")
    assert file.kind == "safetensors"
    assert file.metadata == {"epoch": "3"}
    assert set(file.tensors) == set(tree)
    for name, tensor in tree.items():
        values = file.tensors[name].read()
        assert values.shape == file.tensors[name].shape == tuple(tensor.shape)
        assert values.dtype == file.tensors[name].dtype
        assert f"torch.{values.dtype.name}" == str(tensor.dtype)
        assert values.tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert values.flags.c_contiguous
        assert values.flags.writeable


def test_order_is_that_of_the_values(tmp_path):
    entry = {"dtype": "U8", "shape": [1]}
    header = {"z": entry | {"data_offsets": [1, 2]}, "a": entry | {"data_offsets": [0, 1]}}
    file = open_tensors(raw(tmp_path / "x", header, b"\1\2"))
    assert [(name, int(tensor.read()[0])) for name, tensor in file.tensors.items()] == [("a", 1), ("z", 2)]


def test_each_read_is_a_fresh_array(tmp_path):
    save_file({"w": np.zeros(3)}, tmp_path / "x")
    tensor = open_tensors(tmp_path / "x").tensors["w"]
    tensor.read()[:] = 1
    assert tensor.read().tolist() == [0, 0, 0]


def test_arrays_in_any_order_are_written_contiguously(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {"fortran": np.asfortranarray(array), "view": array[:, ::2].T, "swapped": array.astype(ml_dtypes.bfloat16).T}
    write_safetensors(tmp_path / "x", {name: lazy(values) for name, values in tree.items()}, {})
    for name, values in load_file(tmp_path / "x").items():
        np.testing.assert_array_equal(values, tree[name])


def test_one_tensor_is_held_at_a_time(tmp_path):
    size = 2**22
    tensors = {
        f"w{index}": LazyTensor((size,), np.dtype(np.float32), lambda: np.ones(size, np.float32)) for index in range(6)
    }
    tracemalloc.start()
    write_safetensors(tmp_path / "x", tensors, {})
    _, writing = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    total = sum(float(tensor.read()[-1]) for tensor in open_tensors(tmp_path / "x").tensors.values())
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 6
    assert max(writing, reading) < 1.1 * 4 * size


def test_refuses_to_write_what_was_not_promised(tmp_path):
    for promised in (
        LazyTensor((3,), np.dtype(np.float32), lambda: np.ones(3)),
        LazyTensor((1, 3), np.dtype(float), lambda: np.ones(3)),
    ):
        with pytest.raises(UserError, match=r"w was read as float64\[3\], not as float(32\[3\]|64\[1, 3\]) as its"):
            write_safetensors(tmp_path / "x", {"w": promised}, {})


@pytest.mark.parametrize("dtype", ["complex64", ">f4", "U3", "float128", ml_dtypes.int4])
def test_refuses_to_write_other_types(tmp_path, dtype):
    with pytest.raises(UserError, match=r"w is of type .* which safetensors lacks; it has U64, "):
        write_safetensors(tmp_path / "x", {"w": lazy(np.zeros(2, dtype))}, {})
    assert not (tmp_path / "x").exists()


def test_refuses_places_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*: No such file or directory"):
        write_safetensors(tmp_path / "missing" / "x", {}, {})


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": ENTRY}, bytes(4), "truncated or damaged"),
        ({"w": ENTRY}, bytes(12), "truncated or damaged"),
        ({"w": ENTRY, "v": ENTRY}, bytes(8), "truncated or damaged"),
        ({"w": ENTRY | {"shape": [3]}}, bytes(8), "truncated or damaged"),
        ({"w": ENTRY | {"shape": [-1]}}, bytes(8), "truncated or damaged"),
        ({"w": ENTRY | {"dtype": "F33"}}, bytes(8), "truncated or damaged"),
        ({"w": ENTRY | {"data_offsets": [4, 12]}}, bytes(12), "truncated or damaged"),
        ({"w": ENTRY | {"data_offsets": [8, 0]}}, bytes(8), "truncated or damaged"),
        ({"w": 3}, b"", "truncated or damaged"),
        (b'{"w": {', b"", "truncated or damaged"),
        (b"{" * 5000, b"", "truncated or damaged"),
        (b'{"\xff": 3}', b"", "truncated or damaged"),
        (
            {"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
            bytes(8),
            "w in .* is of type C64; read are U64",
        ),
        ({"w": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, b"", "shape of w is impossible"),
        ({"w": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, bytes(4), "shape of w is impossible"),
        ({"a\nb": ENTRY}, bytes(8), r"named 'a\\nb'; names are printable"),
    ],
)
def test_refuses_damaged_files(tmp_path, header, data, message):
    path = raw(tmp_path / "x", header, data)
    with pytest.raises(UserError, match=message) as caught:
        open_tensors(path)
    assert "\n" not in str(caught.value)


def test_refuses_a_header_beyond_the_file(tmp_path):
    (tmp_path / "x").write_bytes(struct.pack("<Q", 99_000_000) + b'{"w": ')
    assert "truncated or damaged" in message_of(tmp_path / "x")


def test_a_file_that_shrinks_after_opening_is_reported(tmp_path):
    save_file({"w": np.zeros(100)}, tmp_path / "x")
    tensor = open_tensors(tmp_path / "x").tensors["w"]
    with open(tmp_path / "x", "r+b") as file:
        file.truncate(300)
    with pytest.raises(UserError, match="it ends too soon"):
        tensor.read()
    (tmp_path / "x").unlink()
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        tensor.read()
