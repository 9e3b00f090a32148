"""Files of torch.save and TorchScript: read bit by bit as torch reads them, and never run."""

import argparse
import collections
import copyreg
import functools
import io
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch

from clip_jax import UserError
from clip_jax.weights import pickled
from clip_jax.weights.tensors import open_tensors

DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
    *("uint64", "uint32", "uint16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(file, expected: dict[str, torch.Tensor]) -> None:
    assert list(file.tensors) == list(expected)
    for name, tensor in expected.items():
        lazy = file.tensors[name]
        values = lazy.read()
        assert values.shape == lazy.shape == tuple(tensor.shape)
        assert values.dtype == lazy.dtype
        assert f"torch.{lazy.dtype.name}" == str(tensor.dtype)
        assert values.flags.c_contiguous
        assert values.flags.writeable
        assert values.tobytes() == bits(tensor)


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


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4).half()
        self.register_buffer("positions", torch.arange(5))
        self.scale = 2.5
        self.sizes = [1, 2, 3]

    def forward(self, x):
        return self.linear(x)


class Model(torch.nn.Module):
    """Shaped like OpenAI's archives: facts of the architecture are tensors of the root."""

    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Sequential(Block(), torch.nn.ReLU(), Block())
        self.shared = torch.nn.ModuleList([torch.nn.Linear(4, 4)] * 2)
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.6593))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("vocab_size", torch.tensor(49408))
        self.width = 4

    def forward(self, x):
        return self.visual[0](x).float() * self.logit_scale.exp() + self.shared[0].bias


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict(tmp_path, model, protocol):
    path = saved(tmp_path / "x", model.state_dict(), pickle_protocol=protocol)
    file = open_tensors(path)
    assert file.kind == "torch"
    assert file.metadata == {}
    assert_same(file, model.state_dict())
    assert file.tensors["input_resolution"].read() == 224


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(tmp_path, dtype):
    values = torch.randint(0, 2, (4, 6), generator=torch.Generator().manual_seed(0))
    tensors = {"x": values.to(getattr(torch, dtype)), "scalar": values[0, 0].to(getattr(torch, dtype))}
    assert_same(open_tensors(saved(tmp_path / "x", tensors)), tensors)


def test_views_of_shared_storages(tmp_path):
    base = torch.arange(60, dtype=torch.float32)
    tensors = {
        "tied": base,
        "again": base,
        "part": base[7:19],
        "transposed": base.view(5, 12).t(),
        "permuted": base.view(3, 4, 5).permute(2, 0, 1),
        "strided": base[3::7],
        "diagonal": base.view(6, 10).diagonal(),
        "scalar": base[59],
        "one": base[4:5].view(1, 1, 1),
        "empty": base[:0],
        "empty_end": base[60:],
        "empty_wide": torch.zeros(0, 512),
        "expanded": torch.arange(3).expand(4, 3),
        "overlapping": base.unfold(0, 5, 2),
    }
    path = saved(tmp_path / "x", tensors)
    assert_same(open_tensors(path), torch.load(path, weights_only=True))
    with zipfile.ZipFile(path) as archive:
        assert sum("/data/" in name for name in archive.namelist()) == 3  # the case is what it says


def test_each_read_is_a_fresh_array(tmp_path):
    lazy = open_tensors(saved(tmp_path / "x", {"w": torch.zeros(3)})).tensors["w"]
    lazy.read()[:] = 1
    assert lazy.read().tolist() == [0, 0, 0]


def test_one_tensor_is_held_at_a_time(tmp_path):
    size = 2**21
    base = torch.ones(4 * size)  # each tensor is a part of one storage
    path = saved(tmp_path / "x", {f"w{index}": base[index * size : (index + 1) * size] for index in range(4)})
    tracemalloc.start()
    total = sum(float(tensor.read()[-1]) for tensor in open_tensors(path).tensors.values())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 4
    assert peak < 1.1 * 4 * size


def test_parameters_and_tensors_with_attributes(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(2, 3))
    marked = torch.nn.Parameter(torch.randn(3))
    marked.note = "a note"  # pyright: ignore[reportAttributeAccessIssue]
    tagged = torch.randn(4)
    tagged.note = {"a": 1}  # pyright: ignore[reportAttributeAccessIssue]
    path = saved(tmp_path / "x", {"parameter": parameter, "marked": marked, "tagged": tagged})
    with zipfile.ZipFile(path) as archive:
        content = archive.read("x/data.pkl")
    assert b"_rebuild_from_type_v2" in content  # the case is what it says
    assert_same(open_tensors(path), torch.load(path, weights_only=True))


def test_training_checkpoint(tmp_path, model):
    checkpoint = {
        "epoch": 32,
        "name": "ViT-B-32",
        "lr": 5e-4,
        "distributed": True,
        "state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "rng": b"bytes",
        "device": torch.device("cpu"),
        "sizes": torch.Size([1, 2]),
        "kinds": {"a", "b"},
        "dtype": torch.float32,
    }
    file = open_tensors(saved(tmp_path / "x", checkpoint))
    assert file.metadata == {"epoch": "32", "name": "ViT-B-32", "lr": "0.0005", "distributed": "True"}
    assert_same(file, model.state_dict())


def test_model_is_a_wrapper_too_and_the_state_dict_goes_first(tmp_path):
    a, b = torch.ones(1), torch.zeros(2)
    assert_same(open_tensors(saved(tmp_path / "x", {"model": {"a": a}, "iter": 3})), {"a": a})
    assert_same(open_tensors(saved(tmp_path / "x", {"model": {"a": a}, "state_dict": {"b": b}})), {"b": b})


@pytest.mark.parametrize(
    ("prefixes", "stripped"),
    [
        (["module."], True),
        (["_orig_mod."], True),
        (["module._orig_mod."], True),
        (["_orig_mod.module.module."], True),
        (["module.", ""], False),
        (["modules."], False),
    ],
)
def test_prefixes_are_stripped_where_all_names_have_them(tmp_path, prefixes, stripped):
    names = [f"{prefix}layer.{index}" for index, prefix in enumerate(prefixes)]
    names += [f"{prefixes[0]}module.bias"]
    file = open_tensors(saved(tmp_path / "x", {name: torch.ones(1) for name in names} | {"version": 3}))
    assert list(file.tensors) == (["layer.0", "module.bias"] if stripped else names)
    assert file.metadata == {"version": "3"}


def test_values_beside_tensors(tmp_path):
    content = {"w": torch.ones(2), "epoch": 3, "_extra_state": None, "notes": ["a", {"b": (1, 2)}], "big": 2**80, 7: 8}
    content["text"] = "two\nlines"
    file = open_tensors(saved(tmp_path / "x", content))
    assert list(file.tensors) == ["w"]
    assert file.metadata == {"epoch": "3"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), "bad": [torch.ones(1)]}, "holds tensors inside of bad; a state dict is flat"),
        ({"bad": {"deep": (1, {"w": torch.ones(1)})}}, "holds tensors inside of bad"),
        ({1: [torch.ones(1)]}, "holds tensors inside of an entry without a name"),
        ({1: torch.ones(1)}, "name is no string"),
        ({"x" * 1001: torch.ones(1)}, "name is no string of up to 1000 characters"),
        ({"a\nb": torch.ones(1)}, r"named 'a\\nb'; names are printable"),
        ({"epoch": 3}, "holds no tensors"),
        ({}, "holds no tensors"),
        ([torch.ones(1)], "holds no state dict"),
        (torch.ones(1), "holds no state dict"),
        ({"state_dict": {}, "model": {"a": torch.ones(1)}}, "holds no tensors"),
        ({"c": torch.ones(1, dtype=torch.complex64)}, "ComplexFloatStorage: it holds a tensor that is complex"),
        ({"s": torch.eye(2).to_sparse()}, "_rebuild_sparse_tensor: it holds a tensor that is sparse"),
        ({"m": torch.ones(1, device="meta")}, "that is without values"),
        (torch.nn.Linear(1, 1), r"names the global torch\.nn\.modules\.linear\.Linear, which is no tensor; it was not"),
        ({"w": torch.ones(1), "args": argparse.Namespace(lr=1)}, r"names the global argparse\.Namespace"),
        ({"w": torch.ones(1), "d": collections.defaultdict(int)}, r"names the global collections\.defaultdict"),
        ({"w": torch.ones(1), "n": np.float64(1)}, r"names the global numpy\.\S+scalar"),
        ({"w": torch.ones(1), (1, 2): 3}, "dict whose keys are no strings or numbers"),
    ],
)
def test_refuses_what_is_no_state_dict(tmp_path, content, message):
    path = saved(tmp_path / "x", content)
    with pytest.raises(UserError, match=message) as caught:
        open_tensors(path)
    assert "\n" not in str(caught.value)


def test_refuses_quantised_and_negated_tensors(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    assert "that is quantised" in message_of(saved(tmp_path / "x", {"q": quantised}))
    negated = torch.imag(torch.conj(torch.ones(2, dtype=torch.complex64)))
    assert negated.is_neg()
    with zipfile.ZipFile(saved(tmp_path / "n", {"x": torch.zeros(2)})) as archive:
        plain = archive.read("n/data.pkl")
    flagged = plain.replace(b"Rq", b"R}X\x03\x00\x00\x00neg\x88sq", 1)  # after the hooks, as torch writes the bit
    assert flagged != plain
    path = torch_zip(tmp_path / "x", flagged, {"0": bytes(8)})
    assert torch.load(path, weights_only=True)["x"].is_neg()  # the case is what it says
    assert "in an unknown way" in message_of(path)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript(tmp_path, model, how):
    path = tmp_path / "x"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        compiled = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.ones(2, 3).half())
        torch.jit.save(compiled, path)
        expected = torch.jit.load(path).state_dict()
    file = open_tensors(path)
    assert file.kind == "torchscript"
    assert file.metadata["training"] == "True"
    assert file.metadata.get("width") == ("4" if how == "script" else None)
    assert set(expected) >= {"input_resolution", "visual.0.linear.weight", "visual.2.positions", "shared.1.weight"}
    assert {name: bits(t) for name, t in expected.items()} == {n: t.read().tobytes() for n, t in file.tensors.items()}
    assert_same(file, {name: expected[name] for name in file.tensors})


def test_tensor_attributes_of_torchscript(tmp_path):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.input_resolution = torch.tensor(224)  # neither a parameter nor a buffer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.input_resolution

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Plain()), tmp_path / "x")
    lazy = open_tensors(tmp_path / "x").tensors["input_resolution"]
    assert lazy.shape == ()
    assert lazy.dtype == np.int64
    assert lazy.read() == 224


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
