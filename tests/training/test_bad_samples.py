"""Counting what had to be replaced, and stopping where it is too much."""

import io
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.tables import ListTable

from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import make_pipeline
from clip_jax.data.reader import Augmentation
from clip_jax.data.table import BadSample, Sample
from clip_jax.errors import UserError
from clip_jax.inputs.tokenizer import ClipTokenizer
from clip_jax.training.bad_samples import BadSamples, add_up
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


def counted(bad: int) -> BadSamples:
    """An epoch of a table of 1,000 in batches of 500, of which so many are bad, by turns for two causes."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "png")
    samples = [Sample(f"{i}", buffer.getvalue(), ("a",)) for i in range(1000)]
    for i in range(bad):
        samples[i] = replace(samples[i], captions=()) if i % 2 else replace(samples[i], image=b"")
    tokenizer = ClipTokenizer(context_length=8)
    pipeline = make_pipeline([(ListTable(samples), 1.0)], tokenizer, 8, 500, 0, Shuffle(), Augmentation())
    counts = BadSamples(CONFIG, pipeline)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for batch in pipeline.batches(0, 2):
            counts.count(batch)
    assert len([one for one in told if "another takes its place" in str(one.message)]) == 2
    return counts


def test_what_a_pipeline_replaces_is_counted_and_ends_the_run_above_the_share():
    pytest.importorskip("tensorflow")
    assert counted(10).figures() == {"bad_samples/bad_image": 5, "bad_samples/no_caption": 5}
    too_many = counted(11)
    with pytest.raises(UserError, match=r"1\.1% of the samples .*\(bad_image 6, no_caption 5\), more than .* 1\.0%"):
        too_many.figures()


def test_processes_that_share_rows_count_once():
    """Four processes, of which two each have the same rows: first row, then the counts of two causes."""
    gathered = np.array([[0, 1, 2], [0, 1, 2], [500, 10, 0], [500, 10, 0]])
    np.testing.assert_array_equal(add_up(gathered), [11, 2])
