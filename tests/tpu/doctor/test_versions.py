"""Packages that belong together, and some that do not."""

import jax
import pytest

from clip_jax.tpu.doctor.versions import check_versions, version_of

REQUIRED = ["jax<0.11,>=0.10.2", "flax>=0.12", 'optax>=0.2; extra == "train"', 'torch==2.13; extra == "test"']
JAX_REQUIRES = ["jaxlib<=0.10.2,>=0.10.1", 'libtpu==0.0.42.*; extra == "tpu"']


@pytest.mark.parametrize(
    ("changes", "extras", "status", "message"),
    [
        ({}, [], "ok", "jax 0.10.2, jaxlib 0.10.2"),
        ({"jax": "0.11.1"}, [], "failed", "jax 0.11.1 is not <0.11,>=0.10.2"),
        ({"jaxlib": "0.10.1"}, [], "failed", "jaxlib 0.10.1 is there, of jax 0.10.2"),
        ({"jaxlib": "0.9.0"}, [], "failed", "jaxlib 0.9.0 is not <=0.10.2,>=0.10.1"),
        ({"flax": None}, [], "failed", "flax is not installed"),
        ({"optax": None}, [], "ok", "optax none"),
        ({"optax": None}, ["train"], "failed", "optax is not installed"),
        ({"optax": "0.1"}, [], "failed", "optax 0.1 is not >=0.2"),
        ({"torch": "1.0"}, ["train"], "ok", ""),
        ({"libtpu": "0.0.41"}, [], "warning", "libtpu 0.0.41 is not ==0.0.42.*"),
        ({"libtpu": "0.0.41"}, ["tpu"], "failed", "libtpu 0.0.41 is not ==0.0.42.*"),
    ],
)
def test_versions(changes, extras, status, message):
    installed = {
        "jax": "0.10.2",
        "jaxlib": "0.10.2",
        "flax": "0.12.8",
        "optax": "0.2.8",
        "libtpu": "0.0.42.1",
    } | changes
    requirements = {"clip_jax": REQUIRED, "jax": JAX_REQUIRES}
    finding = check_versions(extras, installed.get, lambda name: requirements[name])
    assert finding.status == status, finding.seen
    assert message in finding.seen


def test_versions_of_this_environment():
    assert version_of("jax") == jax.__version__
    assert version_of("no-such-package") is None
    assert check_versions([], version_of, lambda name: []).status == "warning"  # run from a checkout
