"""What data holds, against what was put into it."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support.tables import ListTable

from clip_jax.data.inspection import inspect
from clip_jax.data.table import BadSample, Sample
from clip_jax.inputs.tokenizer import ClipTokenizer

TOKENIZER = ClipTokenizer(context_length=16)


def image(width: int, height: int, level: int, form: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(buffer, form)
    return buffer.getvalue()


def test_what_is_found():
    samples: list[Sample | BadSample] = [
        Sample(f"{i}", image(30 + i, 20, i), (f"caption {i}", "again")) for i in range(100)
    ]
    samples[7] = Sample("7", image(30, 20, 7)[:50], ("cut off",))
    samples[8] = BadSample("8", "no image", "there is none")
    samples[9] = Sample("9", image(30, 20, 9), ())
    samples[10] = Sample("10", image(30, 20, 9), (), label=1)
    samples[11] = Sample("11", image(30, 20, 0), ("word " * 14,))  # with its marks exactly 16 tokens
    samples[12] = Sample("12", image(30, 20, 0), ("word " * 15,))
    found = inspect(ListTable(samples, parts=2), TOKENIZER)
    assert (found.samples, found.parts, found.looked_at, found.labelled) == (100, 2, 100, 1)
    assert found.causes == {"bad image": 1, "no image": 1, "no caption": 1}
    assert [bad.key for bad in found.bad] == ["7", "8", "9"]
    widths = [30, *range(31, 37), 30, 30, 30, *range(43, 130)]
    assert found.spreads["width"] == pytest.approx(
        dict(zip(("0 %", "5 %", "50 %", "95 %", "100 %"), np.percentile(widths, (0, 5, 50, 95, 100)), strict=True))
    )
    assert found.spreads["height"]["0 %"] == found.spreads["height"]["100 %"] == 20
    assert found.captions == 2 * 94 + 2
    assert found.spreads["tokens a caption"]["100 %"] == 17
    assert found.cut == pytest.approx(1 / 190)
    assert found.repeated_images == pytest.approx(2 / 97)
    assert found.repeated_captions == pytest.approx(93 / 190)
    json.dumps(found.to_dict())


def test_a_jpeg_that_only_looks_whole_is_bad():
    """Its header and its end are in order, but its first component has sampling factors of 0."""
    whole = image(30, 20, 9, "jpeg")
    frame = whole.index(b"\xff\xc0")
    samples = [Sample("good", whole, ("a",)), Sample("bad", whole[: frame + 11] + b"\0" + whole[frame + 12 :], ("a",))]
    found = inspect(ListTable(samples), TOKENIZER)
    assert [(bad.key, bad.cause) for bad in found.bad] == [("bad", "bad image")]


def test_a_part_of_it():
    table = ListTable([Sample(f"{i}", image(30, 20, i % 200), ("a",)) for i in range(1000)])
    found = inspect(table, TOKENIZER, limit=128)
    assert found.looked_at == 128
    assert inspect(table, TOKENIZER, limit=5000).looked_at == 1000
