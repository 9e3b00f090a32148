"""Pickles that would call functions, hide tensors or fill the memory: refused, and nothing of them is run."""

import copyreg
import functools
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch
from support.torch_files import message_of, saved, tensor_pickle, torch_zip

from clip_jax.weights import pickled
from clip_jax.weights.tensors import open_tensors


def record(state: bytes, name: bytes = b"M") -> bytes:
    """An object of a TorchScript class with the state that some opcodes make."""
    return b"c__torch__\n" + name + b"\n)\x81" + state + b"b"


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Point:
    pass


def evil_calls(marker):
    touch = f"touch {marker}"
    return {
        "posix.system": Call(os.system, touch),
        "builtins.eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.exec": Call(exec, f"open({str(marker)!r}, 'w').close()"),
        "builtins.getattr": Call(getattr, Call(__import__, "os"), "system"),
        "torch.hub.load": Call(torch.hub.load, "owner/repository", "model"),
        "functools.partial": Call(functools.partial, os.system, touch),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "io.open": Call(open, str(marker), "w"),
    }


@pytest.mark.parametrize("name", evil_calls(""))
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_function_is_called(tmp_path, name, protocol):
    marker = tmp_path / "marker"
    content = pickle.dumps({"w": evil_calls(marker)[name]}, protocol)
    path = torch_zip(tmp_path / "evil.pt", content)
    # getattr's and partial's arguments name other globals, and which comes first is pickle's affair.
    inner = {"builtins.getattr": {"builtins.__import__"}, "functools.partial": {"posix.system"}}.get(name, set())
    message = message_of(path)
    assert any(f"evil.pt names the global {n}, which is no tensor; it was not run" in message for n in {name, *inner})
    assert not marker.exists()


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.exec", "io.open"])
def test_the_evil_pickles_are_evil(tmp_path, name):
    marker = tmp_path / "marker"
    content = pickle.dumps(evil_calls(marker)[name], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files that are never closed
        pickle.loads(content)
    assert marker.exists()


def evil_pickles(marker: str) -> dict[str, bytes]:
    command = text(f"touch {marker}".encode())
    system = b"cos\nsystem\n"
    return {
        "GLOBAL os.system": system + b"(" + command + b"tR.",
        "INST posix.system": b"(S'touch " + marker.encode() + b"'\niposix\nsystem\n.",
        "STACK_GLOBAL os.system": b"\x80\x04" + text(b"os") + text(b"system") + b"\x93(" + command + b"tR.",
        "dotted torch.os.system": b"\x80\x04" + text(b"torch") + text(b"os.system") + b"\x93(" + command + b"tR.",
        "dotted torch._utils": b"\x80\x04" + text(b"torch") + text(b"_utils._rebuild_tensor_v2") + b"\x93.",
        "not a string": b"\x80\x04K\x01" + text(b"system") + b"\x93.",
        "OBJ os.system": b"(" + system + command + b"o.",
        "NEWOBJ os.system": system + b")\x81.",
        "__builtin__.eval": b"c__builtin__\neval\n(" + text(b"1") + b"tR.",
        "__torch__.Evil": b"c__torch__\nEvil\n)\x81.",
        "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\nctypes\nFunctionType\nNtR.",
        "long name": b"c" + b"a" * 100_000 + b"\nb\n.",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GLOBAL os.system", "names the global os.system, which is no tensor; it was not run"),
        ("INST posix.system", "names the global posix.system, which is no tensor; it was not run"),
        ("STACK_GLOBAL os.system", "names the global os.system, which is no tensor; it was not run"),
        ("dotted torch.os.system", "names the global torch.os.system, which is no tensor; it was not run"),
        ("dotted torch._utils", "names the global torch._utils._rebuild_tensor_v2, which is no"),
        ("not a string", "names a global by what is no string"),
        ("OBJ os.system", "names the global os.system"),
        ("NEWOBJ os.system", "names the global os.system"),
        ("__builtin__.eval", "names the global builtins.eval"),
        ("__torch__.Evil", "names the global __torch__.Evil"),
        ("copyreg._reconstructor", "names the global copyreg._reconstructor"),
        ("long name", "aaa..., which is no tensor"),
    ],
)
def test_hand_made_pickles_name_no_global(tmp_path, name, message):
    marker = tmp_path / "marker"
    found = message_of(torch_zip(tmp_path / "evil.pt", evil_pickles(str(marker))[name]))
    assert message in found
    assert len(found) < 1000
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # What the stack machine itself could be made to do with names that are allowed.
        (b"ctorch\nFloatStorage\n}X\x01\x00\x00\x00aNsb.", "sets the state of what has none"),
        (b"ccollections\nOrderedDict\n(]X\x01\x00\x00\x00aatR.", "calls collections.OrderedDict in an unknown way"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "calls torch._utils._rebuild_tensor_v2 in an unknown way"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n]R.", "calls what is no function"),
        (b"X\x01\x00\x00\x00a)R.", "calls what is no function"),
        (b"ctorch\nFloatStorage\n)\x81.", "makes an object of what is no class"),
        (b"N)\x81.", "makes an object of what is no class"),
        (b"N]e.", "truncated or damaged"),
        (b"NNa.", "appends to what is no list"),
        (b"N(NNu.", "sets items of what is no dict"),
        (b"}(Nu.", "its pickle makes no sense"),
        (b"}]Ns.", "dict whose keys are no strings or numbers"),
        (b"N}b.", "sets the state of what has none"),
        (b"\x82\x01.", "has the opcode EXT1"),
        (b"P0\n.", "has the opcode PERSID"),
        (b"ccollections\nOrderedDict\n)}\x92.", "has the opcode NEWOBJ_EX"),
        (b"\x80\x05\x97.", "has the opcode NEXT_BUFFER"),
        (b"N2.", "has the opcode DUP"),
        (b"NQ.", "refers to what is no storage"),
        (b"(X\x07\x00\x00\x00storagecbuiltins\nset\nX\x01\x00\x00\x000NK\x01tQ.", "refers to what is no storage"),
        (b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nK\x00NK\x01tQ.", "refers to what is no storage"),
        (b"(X\x06\x00\x00\x00modulecos\nsystem\nNNNtQ.", "names the global os.system"),
        (b"S'\\o'\n.", "holds no state dict"),  # an escape that Python warns of
        (b".", "its pickle makes no sense"),
        (b"", "its pickle makes no sense"),
        (b"N", "its pickle makes no sense"),
        (b"h\x05.", "its pickle makes no sense"),
        (b"t.", "its pickle makes no sense"),
        (b"X\xff\xff\xff\x7fa.", "its pickle makes no sense"),
        (b"\xff", "its pickle makes no sense"),
        (b"c\xff\n\xff\n.", "its pickle makes no sense"),
    ],
)
def test_refuses_unusual_pickles(tmp_path, content, message):
    assert message in message_of(torch_zip(tmp_path / "evil.pt", content))


def test_extension_codes_are_not_looked_up(tmp_path):
    copyreg.add_extension("tests.nowhere", "thing", 0xF0)
    try:
        assert "has the opcode EXT1" in message_of(torch_zip(tmp_path / "evil.pt", b"\x82\xf0."))
    finally:
        copyreg.remove_extension("tests.nowhere", "thing", 0xF0)


def test_evil_state_of_torchscript_classes(tmp_path):
    marker = tmp_path / "marker"
    command = b"cos\nsystem\n(" + text(f"touch {marker}".encode()) + b"tR"
    evil = {
        "names the global os.system": record(b"}" + text(b"a") + command + b"s"),
        "names the global builtins.eval": b"c__torch__\nM\n)\x81}" + text(b"__setstate__") + b"cbuiltins\neval\nsb",
        "has a __torch__.M that is no plain module": record(b"}}\x86"),
        "calls __torch__.M in an unknown way": b"c__torch__\nM\n)R",
        "sets the state of what has none": b"c__torch__\nM\n}b",
        "a name is refused": b"c__torch__x\nM\n)\x81",
        "name is no string": record(b"}K\x01" + tensor_pickle()[9:-2] + b"s"),
    }
    for message, content in evil.items():
        message = "names the global __torch__x.M" if message == "a name is refused" else message
        found = message_of(torch_zip(tmp_path / "evil.pt", content + b".", {"0": bytes(24)}, torchscript=True))
        assert message in found, found
    harmless = record(b"}" + text(b"__class__") + b"Ns" + text(b"w") + tensor_pickle()[9:-2] + b"s")
    path = torch_zip(tmp_path / "x.pt", harmless + b".", {"0": bytes(24)}, torchscript=True)
    assert list(open_tensors(path).tensors) == ["w"]  # attributes are entries of a dict, whatever they are called
    assert not marker.exists()


def test_modules_that_share_or_hold_themselves(tmp_path):
    deep = record(b"}" + text(b"w") + tensor_pickle()[9:-2] + b"s")
    for _ in range(150):
        deep = record(b"}" + text(b"m") + deep + b"s")
    laughs = record(b"}") + b"q\x00"
    for _ in range(60):
        laughs = record(b"}(" + text(b"a") + laughs + text(b"b") + b"h\x00u") + b"q\x00"
    itself = b"c__torch__\nM\n)\x81q\x00}" + text(b"m") + b"h\x00sb"
    for content, message in ((deep, "nested more than 100"), (laughs, "more than 20000 modules"), (itself, "nested")):
        assert message in message_of(torch_zip(tmp_path / "x", content + b".", {"0": bytes(24)}, torchscript=True))


@pytest.mark.parametrize(
    "value",
    [
        b"N" + b"r\xf0\xff\xff\xff",  # a place for each index up to this would be 34 GB
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR",  # 2 GB of zeros
        b"]" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(100)),  # 2^100 references
        b"]q\x01h\x01a",  # a list that holds itself
    ],
    ids=["memo", "bytearray", "laughs", "cycle"],
)
def test_memory_is_bounded(tmp_path, value):
    path = torch_zip(tmp_path / "x", tensor_pickle()[:-1] + text(b"value") + value + b"s.", {"0": bytes(24)})
    tracemalloc.start()
    file = open_tensors(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(file.tensors) == ["w"]
    assert peak < 2**20


def test_depth_is_no_danger(tmp_path):
    tensor, deep, storage = tensor_pickle()[:-1], b")" + b"\x85" * 100_000, {"0": bytes(24)}
    assert list(open_tensors(torch_zip(tmp_path / "x", tensor + text(b"d") + deep + b"s.", storage)).tensors) == ["w"]
    assert "keys are no strings" in message_of(torch_zip(tmp_path / "x", tensor + deep + b"Ns.", storage))
    rebuild = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    assert "in an unknown way" in message_of(torch_zip(tmp_path / "x", rebuild + b"(" + rebuild + b"N)NtR.", storage))


def test_too_many_opcodes(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "MAX_OPCODES", 1000)
    assert "over 1000 opcodes" in message_of(torch_zip(tmp_path / "x", b"N" * 1001 + b"."))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"offset": 1}, "w reaches outside of its storage"),
        ({"offset": 2**62}, "w reaches outside of its storage"),
        ({"size": (2, 4)}, "w reaches outside of its storage"),
        ({"stride": (4, 1)}, "w reaches outside of its storage"),
        ({"stride": (2**62, 1)}, "w reaches outside of its storage"),
        ({"storage": "torch\nDoubleStorage"}, "w reaches outside of its storage"),
        ({"offset": 7, "size": (0, 3)}, "w reaches outside of its storage"),
        ({"offset": -1}, "describes a tensor in an unknown way"),
        ({"offset": True}, "describes a tensor in an unknown way"),
        ({"offset": 1.0}, "describes a tensor in an unknown way"),
        ({"offset": 10**400}, "describes a tensor in an unknown way"),
        ({"size": (2, -3)}, "describes a tensor in an unknown way"),
        ({"size": (2, 3, 1)}, "describes a tensor in an unknown way"),
        ({"size": [2, 3]}, "describes a tensor in an unknown way"),
        ({"stride": (3, -1)}, "describes a tensor in an unknown way"),
        ({"size": (10**400, 3)}, "describes a tensor in an unknown way"),
        ({"storage": "torch.storage\nUntypedStorage"}, "describes a tensor in an unknown way"),
        ({"size": (0, 2**62), "stride": (0, 0)}, "the shape of w is impossible"),
        ({"size": (1,) * 33, "stride": (1,) * 33}, "the shape of w is impossible"),
        ({"size": (10**6, 10**6), "stride": (0, 0)}, "blows w up"),
        ({"key": "1"}, "the storage of w is missing"),
        ({"key": "../data.pkl"}, "the storage of w is missing"),
    ],
)
def test_refuses_tensors_outside_of_their_storage(tmp_path, view, message):
    path = torch_zip(tmp_path / "x", tensor_pickle(**view), {"0": bytes(24)})
    assert message in message_of(path)


def test_hand_made_tensors_are_tensors(tmp_path):
    content = np.arange(6, dtype=np.float32)
    path = torch_zip(tmp_path / "x", tensor_pickle(), {"0": content.tobytes()})
    assert open_tensors(path).tensors["w"].read().tolist() == content.reshape(2, 3).tolist()
    assert torch.load(path, weights_only=True)["w"].tolist() == content.reshape(2, 3).tolist()


def test_byte_order(tmp_path):
    path = saved(tmp_path / "x", {"w": torch.ones(2)})
    content = path.read_bytes()
    big = torch_zip(tmp_path / "y", tensor_pickle(), {"0": bytes(24)})
    with zipfile.ZipFile(big, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert b"byteorder" in content
    assert "was saved in big-endian order" in message_of(big)


def test_compressed_entries(tmp_path):
    path = torch_zip(tmp_path / "x", tensor_pickle(), {"0": bytes(24)}, method=zipfile.ZIP_DEFLATED)
    assert "archive/data.pkl in" in message_of(path)
    assert "is compressed" in message_of(path)
