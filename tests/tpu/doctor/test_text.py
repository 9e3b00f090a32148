"""What doctor found, as a table."""

import pytest

from clip_jax.tpu.doctor.examination import Check, Finding, Report
from clip_jax.tpu.doctor.text import report_text


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_keeps_within_the_terminal(width):
    words = " ".join(["word"] * 60)
    checks = (Check("versions", Finding("ok", words)), Check("data speed", Finding("failed", "short", words)))
    text = report_text(Report(checks), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len({line.index("word") for line in lines if "word" in line}) == 2  # advice is indented by its arrow
    assert text.split().count("word") == 120
    assert lines[-1] == "not ready: 1 failed, 1 ok"
