"""Eight fake CPU devices and JAX's strict rank promotion for every test, and models small enough to build at will."""

import gc
import os
import tempfile
from collections.abc import Iterator

# Read when JAX is first imported, so before anything else here.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Programs that several tests compile, workers and the processes that they start included, are compiled once a session.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="clip_jax-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import jaxtyping
import numpy as np
import pytest

from clip_jax.clip import Clip
from clip_jax.config import ClipConfig, PreprocessConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.models.two_tower import Params, init_params


def pytest_configure(config: pytest.Config) -> None:
    """The fast tests skip XLA's optimisations, which take most of their time; the slow ones compile as users do."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes by their argument's name: archives have the time in them, and workers must agree on every test's name."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_finish() -> None:
    """Garbage collections, which some code asks for, pass over all that the libraries have made so far."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """A file's compiled programs go with it; those of thousands of tests would be gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def toy_config() -> ClipConfig:
    """A model whose every size differs from the others, so that no axis can stand for another unnoticed."""
    return ClipConfig(
        embed_dim=24,
        vision=VisionConfig(16, 8, TransformerConfig(width=32, layers=2, heads=4)),
        text=TextConfig(TransformerConfig(width=40, layers=3, heads=5), context_length=12, vocab_size=700),
        preprocess=PreprocessConfig(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    )


@pytest.fixture(scope="session")
def toy_params(toy_config) -> Params:
    """Freshly initialised, then every parameter shaken, since zero biases and unit scales hide mistakes."""
    rng = np.random.default_rng(0)
    params = jax.jit(lambda: init_params(toy_config, jax.random.key(0)))()
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32).astype(np.float32), params
    )


@pytest.fixture(scope="session")
def toy(toy_config, toy_params) -> Clip:
    return Clip(toy_config, toy_params)


@pytest.fixture
def untyped(monkeypatch) -> None:
    """Without pytest's checks of signatures, which answer a wrong type before the package's own errors can."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
