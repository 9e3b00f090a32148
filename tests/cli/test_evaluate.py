"""`clip-jax evaluate` on data that is not all well."""

import json

import numpy as np
import pytest
from PIL import Image

from clip_jax.cli.main import main
from clip_jax.clip import create, save


@pytest.mark.filterwarnings("default")  # the command line prints it
def test_images_that_were_left_out_are_told(tmp_path, capsys):
    save(create("tiny"), tmp_path / "model")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(folder / "a.png")
    (tmp_path / "data/dog/b.png").write_bytes((tmp_path / "data/dog/a.png").read_bytes()[:500])
    written = tmp_path / "result.json"
    arguments = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--json", str(written)]
    main(["evaluate", "zero-shot", *arguments])
    result = json.loads(written.read_text())
    assert (result["images"], result["left_out"]) == (2, 1)
    shown = capsys.readouterr()
    assert "2 images, 2 classes" in shown.out
    assert "left out: 1 that cannot be used, the first is dog/b.png" in shown.out
    assert "warning: of 3 images 1 cannot be used, the first is dog/b.png: image bytes is corrupt" in shown.err
