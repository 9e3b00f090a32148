"""Counting what had to be replaced, and stopping where it is too much."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from clip_jax.data.table import BadSample
from clip_jax.errors import UserError
from clip_jax.training.bad_samples import BadSamples
from clip_jax.training.config import DataConfig, TrainConfig

CONFIG = TrainConfig(DataConfig("tar:x", most_bad=0.01), batch_size=500)
PIPELINE: Any = SimpleNamespace(examples={"no caption": BadSample("00001/7", "no caption", "it has no caption")})


def batch(**bad: int) -> Any:
    return SimpleNamespace(bad={cause.replace("_", " "): count for cause, count in bad.items()})


def test_counts_go_on_and_the_first_is_told(untyped):
    bad = BadSamples(CONFIG, PIPELINE)
    assert bad.figures() == {}
    with pytest.warns(UserWarning, match="sample 00001/7: it has no caption; another takes its place"):
        bad.count(batch(no_caption=2))
    bad.count(batch(no_caption=1, cut_short=1))
    assert bad.figures() == {"bad_samples/no_caption": 3, "bad_samples/cut_short": 1}


def test_too_many_end_the_run(untyped):
    bad = BadSamples(CONFIG, PIPELINE)
    bad.count(batch(cut_short=8))
    assert bad.figures() == {"bad_samples/cut_short": 8}  # of 500, which is too few to tell
    bad.count(batch(cut_short=8))
    with pytest.raises(UserError, match=r"1\.6% of the samples cannot be used \(cut_short 16\), more than .* 1\.0%"):
        bad.figures()
    lenient = BadSamples(replace(CONFIG, data=replace(CONFIG.data, most_bad=1.0)), PIPELINE)
    for _ in range(4):
        lenient.count(batch(cut_short=500))
    assert lenient.figures() == {"bad_samples/cut_short": 2000}
