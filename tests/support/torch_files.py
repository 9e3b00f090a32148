"""Files of torch.save and TorchScript, also such as torch would not write, and what is said of them."""

import functools
import io
import pickle
import zipfile

import pytest
import torch

from clip_jax import UserError
from clip_jax.weights.tensors import open_tensors


def message_of(path) -> str:
    with pytest.raises(UserError) as caught:
        [tensor.read() for tensor in open_tensors(path).tensors.values()]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def torch_zip(path, pickle, storages=(), torchscript=False, method=zipfile.ZIP_STORED):
    """A file in the layout of torch.save, or of TorchScript, around any pickle."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle)
        if torchscript:
            archive.writestr("archive/constants.pkl", b"\x80\x02).")
            archive.writestr("archive/code/__torch__.py", b"")
        for key, content in dict(storages).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return path


def tensor_pickle(offset=0, size=(2, 3), stride=(3, 1), storage="torch\nFloatStorage", key="0", **overrides) -> bytes:
    """{'w': a tensor}, written opcode by opcode."""
    out = io.BytesIO()
    numbers = functools.partial(pickle.dumps, protocol=2)

    def put(value):
        out.write(numbers(value)[2:-1])  # without PROTO and STOP

    out.write(b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage")
    out.write(f"c{storage}\n".encode())
    put(key)
    put("cpu")
    put(6)
    out.write(b"tQ")
    put(offset)
    put(size)
    put(stride)
    out.write(b"\x89ccollections\nOrderedDict\n)RtRs.")
    return out.getvalue()
