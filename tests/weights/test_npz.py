"""Files of numpy.savez against numpy.load."""

import io
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from clip_jax import UserError
from clip_jax.weights.tensors import open_tensors

ARRAYS = {
    "params/img/embedding/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "params/t": np.float32(2.6593),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
    "big_endian": np.arange(5, dtype=">f8"),
    "fortran_big_endian": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "empty": np.zeros((3, 0, 2), np.float16),
    "bool": np.array([True, False]),
    "uint8": np.arange(3, dtype=np.uint8),
}


def message_of(path) -> str:
    with pytest.raises(UserError) as caught:
        [tensor.read() for tensor in open_tensors(path).tensors.values()]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def npz(path, members: dict[str, bytes], method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(header: str, data: bytes = b"", version=(1, 0)) -> bytes:
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode() + data


def header(descr="'<f4'", shape="(2,)", rest="") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{rest}}}\n"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_reads(tmp_path, save):
    save(tmp_path / "x.npz", **ARRAYS)
    file = open_tensors(tmp_path / "x.npz")
    assert file.kind == "npz"
    assert file.metadata == {}
    with np.load(tmp_path / "x.npz") as expected:
        assert list(file.tensors) == list(expected)
        for name, tensor in file.tensors.items():
            values = tensor.read()
            np.testing.assert_array_equal(values, expected[name])
            assert values.shape == tensor.shape
            assert values.dtype == tensor.dtype == expected[name].dtype.newbyteorder("=")
            assert values.dtype.isnative
            assert values.flags.c_contiguous
            assert values.flags.writeable


def test_bfloat16(tmp_path):
    values = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "x.npz", w=values)
    with np.load(tmp_path / "x.npz") as stored:
        assert stored["w"].dtype.kind == "V"  # NumPy forgets the type
    tensor = open_tensors(tmp_path / "x.npz").tensors["w"]
    assert tensor.dtype == tensor.read().dtype == ml_dtypes.bfloat16
    assert tensor.read().tobytes() == values.tobytes()


def test_newer_headers_and_other_spacing(tmp_path):
    for version in ((1, 0), (2, 0)):
        content = npy(
            "{'shape':(2,),'fortran_order':False,'descr':'<f4'}", np.array([1, 2], np.float32).tobytes(), version
        )
        assert open_tensors(npz(tmp_path / "x", {"w.npy": content})).tensors["w"].read().tolist() == [1, 2]


def test_a_large_compressed_tensor_is_read_in_pieces(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, 2**21).astype(np.float32)
    np.savez_compressed(tmp_path / "x.npz", w=values)
    tracemalloc.start()
    read = open_tensors(tmp_path / "x.npz").tensors["w"].read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(read, values)
    assert peak < 1.5 * values.nbytes


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_objects_are_neither_read_nor_run(tmp_path):
    marker = tmp_path / "marker"
    np.savez(tmp_path / "x.npz", w=np.array([Evil(marker)], object))
    message = message_of(tmp_path / "x.npz")
    assert "w.npy in" in message or "the header of w.npy" in message
    assert not marker.exists()


@pytest.mark.parametrize("dtype", ["U3", "S3", "complex64", "float128", "M8[s]", "V4", [("a", "f4"), ("b", "f4")]])
def test_refuses_what_is_no_tensor_of_numbers(tmp_path, dtype):
    np.savez(tmp_path / "x.npz", ok=np.ones(3), bad=np.zeros(2, dtype))
    assert "bad.npy in" in message_of(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(header(), bytes(8)), None),
        (npy(header(), bytes(7)), "not of the size that its header says"),
        (npy(header(), bytes(9)), "not of the size that its header says"),
        (npy(header(shape="(3,)"), bytes(8)), "not of the size that its header says"),
        (npy(header(shape="(2**40,)"), bytes(8)), "the header of w.npy makes no sense"),
        (npy(header(shape="(1099511627776,)"), bytes(8)), "not of the size that its header says"),
        (npy(header(shape="(0, 4611686018427387904)")), "the shape of w.npy is impossible"),
        (npy(header(shape="(-2,)"), bytes(8)), "the shape of w.npy is impossible"),
        (npy(header(shape="(-1, -2)"), bytes(8)), "the shape of w.npy is impossible"),
        (npy(header(shape="2"), bytes(8)), "the header of w.npy makes no sense"),
        (npy(header(shape=f"({'1,' * 40})"), bytes(4)), "the shape of w.npy is impossible"),
        (npy(header(descr="'|O'"), bytes(16)), "is of type object"),
        (npy(header(descr="'nonsense'"), bytes(8)), "the header of w.npy makes no sense"),
        (npy(header(descr="(" * 300 + ")" * 300), bytes(8)), "the header of w.npy makes no sense"),
        (npy(header(descr="__import__('os').system('true')"), bytes(8)), "the header of w.npy makes no sense"),
        (npy(header(rest=", 'more': 1"), bytes(8)), "the header of w.npy makes no sense"),
        (npy("(" * 9000, bytes(8)), "the header of w.npy makes no sense"),
        (npy(header() + " " * 20_000, bytes(8)), "the header of w.npy makes no sense"),
        (npy(header(), bytes(8), (3, 0)), "the header of w.npy makes no sense"),
        (b"\x93NUMPY\1\0\xff\xff", "the header of w.npy makes no sense"),
        (b"", "the header of w.npy makes no sense"),
        (b"not an array", "the header of w.npy makes no sense"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_refuses_headers_that_do_not_fit(tmp_path, content, message, method):
    path = npz(tmp_path / "x", {"w.npy": content, "noise.npy": npy_of(np.random.default_rng(0).random(999))}, method)
    if message is None:
        assert open_tensors(path).tensors["w"].read().tolist() == [0, 0]
    else:
        assert message in message_of(path)


def npy_of(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_refuses_bombs(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", w=np.zeros(10**7))
    assert "over 100 times its size" in message_of(tmp_path / "x.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_other_compression(tmp_path, method):
    path = npz(tmp_path / "x", {"w.npy": npy_of(np.ones(3))}, method)
    assert "compressed by an unknown method" in message_of(path)


def test_refuses_wrong_checksums(tmp_path):
    values = np.random.default_rng(0).random(100)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", w=values)
        content = bytearray((tmp_path / "x.npz").read_bytes())
        with zipfile.ZipFile(tmp_path / "x.npz") as archive:
            end = archive.start_dir
        content[end - 100] ^= 1
        (tmp_path / "x.npz").write_bytes(content)
        assert "is truncated or damaged (w.npy" in message_of(tmp_path / "x.npz")
