"""The vendored merges against the vocabulary they were taken from."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "make_bpe_merges.py"


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs open_clip_torch")
def test_vendored_merges_equal_their_source():
    run = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # The digest of OpenAI's own bpe_simple_vocab_16e6.txt.gz.
    assert "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a" in run.stdout
