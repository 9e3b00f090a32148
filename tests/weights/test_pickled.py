"""Files of torch.save and TorchScript: read bit by bit as torch reads them, and never run."""

import argparse
import collections
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch
from support.torch_files import message_of, saved, torch_zip

from clip_jax import UserError
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
