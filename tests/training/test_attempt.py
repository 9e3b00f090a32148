"""What a run leaves beside its checkpoints: what each attempt was made with, the first batch, a trace."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from clip_jax.data.pipeline import Batch
from clip_jax.errors import UserError
from clip_jax.inputs.clip_tokenizer import ClipTokenizer
from clip_jax.training.attempt import PROFILE, Profile, check_profile, draw_first_batch, environment, note


def test_every_attempt_is_noted(tmp_path):
    note(tmp_path, 0, environment())
    note(tmp_path, 30, {"a": 1})
    first, second = sorted((tmp_path / "attempts").iterdir())
    assert second.name.startswith("000000030-")
    assert json.loads(second.read_text()) == {"a": 1}
    found = json.loads(first.read_text())
    assert found["python"] == platform.python_version()
    assert found["versions"]["orbax-checkpoint"] == version("orbax-checkpoint")
    assert found["devices"] == {"kind": "cpu", "platform": "cpu", "number": 8}
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    assert (found["git"] or {}).get("commit", "") == head


def test_the_first_batch_is_drawn(tmp_path):
    """A sheet with a red and a green picture in it shows much of both."""
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    pixels[0, ..., 0] = pixels[1, ..., 1] = 255
    tokenizer = ClipTokenizer(context_length=12)
    batch = Batch(0, pixels, tokenizer(["a red square", "a green square"]), (), lambda: ["0", "1"])
    draw_first_batch(tmp_path, batch, tokenizer)
    drawn = np.asarray(Image.open(tmp_path / "first_batch.png").convert("RGB")).reshape(-1, 3)
    for colour in ((255, 0, 0), (0, 255, 0)):
        assert (drawn == colour).all(-1).sum() > 1000


def follow(profile: Profile, steps: range) -> None:
    for step in steps:
        profile.follow(step, {"loss": jnp.ones(3) + step})


def traces(workdir: Path) -> list[Path]:
    return list((workdir / PROFILE).rglob("*.xplane.pb"))


def test_a_profile_is_written(tmp_path):
    profile = Profile(tmp_path, 10, 100, 2)
    follow(profile, range(11, 17))
    assert traces(tmp_path) == []
    follow(profile, range(17, 30))
    (trace,) = traces(tmp_path)
    assert trace.stat().st_size > 0
    profile.close()
    assert traces(tmp_path) == [trace]


def test_a_run_that_ends_while_it_is_traced_leaves_the_trace(tmp_path):
    profile = Profile(tmp_path, 0, 100, 20)
    follow(profile, range(1, 8))
    profile.close()
    assert len(traces(tmp_path)) == 1
    jax.profiler.start_trace(str(tmp_path / "another"))  # which would fail while one is made
    jax.profiler.stop_trace()


def test_too_few_updates_for_a_profile(tmp_path):
    with pytest.raises(UserError, match=r"config.log.profile is 5, which takes 10 updates .*; the run has 9"):
        check_profile(5, 9)
    check_profile(5, 10)
    check_profile(0, 1)
    with pytest.warns(UserWarning, match=r"only 9 updates are left, too few for config.log.profile 5"):
        profile = Profile(tmp_path, 91, 100, 5)
    follow(profile, range(92, 101))
    profile.close()
    assert not (tmp_path / PROFILE).exists()
