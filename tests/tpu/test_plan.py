"""Plans for slices that are not there: what the compiler says, what is foretold, and what is refused."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest

from clip_jax.cli.main import main
from clip_jax.errors import UserError
from clip_jax.tpu import compile_step
from clip_jax.tpu import plan as plans
from clip_jax.tpu.compile_step import out_of_memory
from clip_jax.tpu.plan import Plan, largest_batch, plan
from clip_jax.tpu.roofline import roofline
from clip_jax.tpu.topology import parse_topology
from clip_jax.training.chips import GIB
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.model import training_model

TINY = TrainConfig(data=DataConfig(""), batch_size=64, model=ModelConfig("tiny", layers="scan"))
needs_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed")


@pytest.mark.parametrize(
    ("name", "slices", "devices"),
    [("v5e:16x16", 1, 256), ("v6e:8x16", 2, 256), ("v4:4x4x4", 1, 64), ("tpu7x:4x4x4", 1, 128)],
)
def test_topologies(name, slices, devices):
    assert parse_topology(name, slices).devices == devices


@pytest.mark.parametrize(
    ("name", "slices", "message"),
    [
        ("v5litepod-16", 1, "is no TPU topology; v5e:16x16"),
        ("v5e:16", 1, "is no TPU topology"),
        ("v7x:4x4", 1, "is no TPU topology"),
        ("v4:4x4", 1, "a slice of v4 has 3 sides"),
        ("v5e:4x0", 1, "a slice of v5e has 2 sides"),
        ("v5e:4x4", 0, "at least one slice"),
    ],
)
def test_names_that_are_none(name, slices, message):
    with pytest.raises(UserError, match=message):
        parse_topology(name, slices)


@needs_libtpu
def test_a_step_that_fits(tmp_path, capsys):
    """Through the command line: the shares of parameters by arithmetic, and both loss collectives in the program."""
    config = tmp_path / "tiny.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    model = {'name': 'tiny', 'layers': 'scan'}\n"
        "    return ConfigDict({'batch_size': 64, 'model': model, 'data': {'source': ''}})\n"
    )
    picture, written = tmp_path / "memory.png", tmp_path / "plan.json"
    options = ["--config", str(config), "--topology", "v5e:2x2", "--mesh", "data=2,fsdp=2"]
    main(["plan", *options, "--picture", str(picture), "--json", str(written)])
    shown = capsys.readouterr().out
    assert "tiny at a batch of 64 on v5e:2x2: fits" in shown
    found = json.loads(written.read_text())
    assert found["fits"]
    assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert found["parameters"] < found["optimizer"] < 2.1 * found["parameters"]  # two moments and a few counters
    assert found["parameters"] + found["optimizer"] + found["batch"] <= found["peak"] < 0.2 * GIB
    assert found["collectives"]["all-gather"] > 0  # of features, and of parameters that fsdp has split
    assert picture.read_bytes().startswith(b"\x89PNG")


@needs_libtpu
def test_a_batch_that_does_not_fit(tmp_path, capsys):
    recipe, written = Path(__file__).parents[2] / "configs" / "openai_vit_b32.py", tmp_path / "plan.json"
    with pytest.raises(SystemExit) as stopped:
        main(["plan", f"--config={recipe}", "--topology=v5e:2x2", f"--json={written}"])
    assert stopped.value.code == 1
    assert "does not fit" in capsys.readouterr().out
    found = json.loads(written.read_text())
    assert not found["fits"]
    assert found["needed"] > found["available"] == pytest.approx(15.75 * GIB)


@needs_libtpu
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TINY, batch_size=30), "batch_size 30 does not divide over data x fsdp = 4 devices"),
        (replace(TINY, mesh=replace(TINY.mesh, fsdp=3)), "does not fit 4 devices"),
    ],
)
def test_what_no_compiler_is_needed_for(config, message):
    with pytest.raises(UserError, match=message):
        plan(config, parse_topology("v5e:2x2"))


@needs_libtpu
@pytest.mark.slow
def test_slices_are_crossed_by_data_alone():
    config = replace(TINY, mesh=replace(TINY.mesh, fsdp=2))
    assert plan(config, parse_topology("v5e:2x2", 2)).mesh == {"data": 4, "fsdp": 2, "tensor": 1}
    with pytest.raises(UserError, match="data=1 does not divide over 2 slices"):
        plan(replace(TINY, mesh=replace(TINY.mesh, data=1, fsdp=8)), parse_topology("v5e:2x2", 2))


@needs_libtpu
@pytest.mark.slow
def test_the_paper_on_v5e():
    """ViT-B/32 at the batch of 32,768 on 256 chips; experiments/benchmarks/plans.py has ViT-L/14."""
    model = ModelConfig("ViT-B-32-quickgelu", "bfloat16", "scan", "block")
    found = plan(replace(TINY, batch_size=32_768, model=model), parse_topology("v5e:16x16"))
    assert found.peak is not None
    assert found.peak < 3 * GIB


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(plans, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs libtpu.*pip install '\.\[tpu\]'"):
        plan(TINY, parse_topology("v5e:2x2"))


def test_a_compiler_that_aborts(monkeypatch):
    def aborts(*_, **__):
        return plans.subprocess.CompletedProcess([], -6, "", "F0000 libtpu.cc:1] Check failed: core_count\n")

    monkeypatch.setattr(plans, "find_spec", lambda name: True)
    monkeypatch.setattr(plans.subprocess, "run", aborts)
    with pytest.raises(UserError, match=r"stopped with signal SIGABRT: .*core_count"):
        plan(TINY, parse_topology("v5e:2x2"))


@pytest.mark.parametrize(
    ("fixed", "each", "start"),
    [(2e9, 1e6, 1024), (2e9, 1e6, 65_536), (1e8, 3.3e7, 256), (1.5e10, 1e5, 4096), (0.0, 2e8, 8192)],
)
def test_the_largest_batch(monkeypatch, fixed, each, start):
    """On a chip whose memory is `fixed` and so much for each sample: within a twentieth, in at most five tries."""
    topology, tries = parse_topology("v5e:4x4"), []
    available = 15.75 * GIB

    def compiled(config, topology):
        used = int(fixed + each * config.batch_size / 16)
        blank = Plan(topology, config, {"data": 16, "fsdp": 1, "tensor": 1}, 0, 0, 0, 0, available)
        return replace(blank, peak=used) if used <= available else replace(blank, needed=float(used))

    monkeypatch.setattr(plans, "plan", compiled)
    found = largest_batch(replace(TINY, batch_size=start), topology, tries.append)
    assert len(tries) <= 5
    most = (available - fixed) / each * 16
    assert most / 1.06 - 32 <= found.config.batch_size <= most
    assert found.config.batch_size % 16 == 0


def test_no_batch_fits(monkeypatch):
    topology = parse_topology("v5e:4x4")
    full = Plan(topology, TINY, {"data": 16, "fsdp": 1, "tensor": 1}, 0, 0, 0, 0, 1e9, needed=9e9)
    monkeypatch.setattr(plans, "plan", lambda config, topology: replace(full, config=config))
    with pytest.raises(UserError, match="not even a batch of 16 fits v5e:4x4; spread the parameters"):
        largest_batch(TINY, topology, lambda one: None)


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (35.05G) exceeds "
        "available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 35.05G of 15.75G hbm. Exceeded by 19.3G.",
    ],
)
def test_both_ways_of_saying_that_memory_is_short(message):
    assert out_of_memory(message) == {"needed": 35.05 * GIB, "available": 15.75 * GIB}
    with pytest.raises(UserError, match="the TPU compiler failed: INTERNAL"):
        out_of_memory("INTERNAL: something else")


@pytest.mark.parametrize(("tail", "dropout"), [(0, 0.5), (0.1, 0.0)])
def test_the_tail_of_a_masked_run_decides_about_memory(monkeypatch, tail, dropout):
    """A step that leaves patches out needs less memory, but what counts is that of the last updates, which see all."""
    compiled = []

    def jit_step(config, *_):
        compiled.append(config.model.patch_dropout)
        raise UserError("so much for compiling")

    monkeypatch.setattr(compile_step, "jit_step", jit_step)
    monkeypatch.setattr(compile_step, "topology_devices", lambda *_: jax.devices())
    config = replace(TINY, model=replace(TINY.model, patch_dropout=0.5, unmasked_tail=tail))
    with pytest.raises(UserError, match="so much"):
        compile_step.compile_step(config, "v5e:2x4", 1)
    assert compiled == [dropout]


def test_a_locked_tower_costs_a_forward_pass():
    """LiT: 59.2 M of ViT-B/32's parameters are the text tower's, with the gradients that are all-reduced."""
    topology, mesh = parse_topology("v5e:4x4"), {"data": 16, "fsdp": 1, "tensor": 1}
    config = replace(TINY, batch_size=16_384, model=ModelConfig("ViT-B-32-quickgelu"))
    model = training_model(config)
    locked = roofline(replace(config, optimizer=OptimizerConfig(frozen="^visual/.+")), model, topology, mesh)
    free = roofline(config, model, topology, mesh)
    features = 4 * 16_384 * 512 * 4
    assert locked.links == pytest.approx((2 * 15 / 16 * 63.43e6 * 4 + features) / 200e9, rel=1e-2)
    # Three passes are one, for 50 tokens of width 768; and eight passes over 87.85 M parameters are none.
    saved = 2 * 24 * 50 * 768 * 12 * 2 * 1_024 + 8 * 87.85e6 * 4
    assert free.memory - locked.memory == pytest.approx(saved / 819e9, rel=1e-2)


def test_limits_by_hand():
    """ViT-B/32 at 32,768 on 256 chips: 14.78 GFLOPs a pair thrice, and gradients of 151.3 M parameters all-reduced."""
    config = replace(TINY, batch_size=32_768, model=ModelConfig("ViT-B-32-quickgelu"))
    topology = parse_topology("v5e:16x16")
    limits = roofline(config, training_model(config), topology, {"data": 256, "fsdp": 1, "tensor": 1})
    pair = 14.78e9 + 2 * 32_768 * 512
    assert limits.compute == pytest.approx(3 * 32_768 * pair / (256 * 197e12), rel=1e-3)
    gradients = 2 * 255 / 256 * 151.28e6 * 4
    features = 4 * 32_768 * 512 * 4
    assert limits.links == pytest.approx((gradients + features) / 200e9, rel=1e-3)
    assert limits.seconds == max(limits.compute, limits.memory, limits.links)
    assert np.isclose(limits.most_mfu, limits.compute / limits.seconds)
