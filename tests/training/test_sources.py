"""A run from every kind of source: the same samples give the same losses, wherever they lie."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.examples import example, write_tfrecord
from support.short_run import SHORT

from clip_jax.data.scenes import ScenesTable
from clip_jax.data.shards import Record, write_tar_shards
from clip_jax.data.table import usable
from clip_jax.errors import UserError
from clip_jax.training.config import DataConfig, SourceConfig
from clip_jax.training.loop import train
from clip_jax.training.metrics import read_metrics

tfds = pytest.importorskip("tensorflow_datasets")
CONFIG = replace(SHORT, steps=3, batch_size=16)


class Scenes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where tfds would look for checksums of downloads

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="png"), "caption": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for sample in samples():
            yield sample.key, {"image": io.BytesIO(sample.image), "caption": sample.captions[0]}


def samples() -> list[Record]:
    """Forty drawn scenes as PNG."""
    records = []
    for number, sample in enumerate(usable(ScenesTable("train", 40).read(range(40)))):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(sample.image)).save(buffer, "png")
        records.append(Record(f"{number:03d}", buffer.getvalue(), sample.captions[:1], extension="png"))
    return records


@pytest.fixture(scope="module")
def specs(tmp_path_factory) -> dict[str, str]:
    """The same samples in the same order, in every form."""
    root = tmp_path_factory.mktemp("sources")
    write_tar_shards(samples(), root / "tars", samples_per_shard=15)
    (root / "folder").mkdir()
    rows = ["filepath\ttitle"]
    for record in samples():
        (root / "folder" / f"{record.key}.png").write_bytes(record.image)
        (root / "folder" / f"{record.key}.txt").write_text(record.captions[0])
        rows.append(f"folder/{record.key}.png\t{record.captions[0]}")
    (root / "pairs.tsv").write_text("\n".join(rows) + "\n")
    records = [example(image=record.image, caption=record.captions[0]) for record in samples()]
    write_tfrecord(root / "examples.tfrecord", records)
    Scenes(data_dir=str(root / "tfds")).download_and_prepare()
    return {
        "tar": f"tar:{root}/tars",
        "folder": f"folder:{root}/folder",
        "csv": f"csv:{root}/pairs.tsv",
        "tfrecord": f"tfrecord:{root}/examples.tfrecord",
        "tfds": f"tfds:scenes?data_dir={root}/tfds",
    }


def losses(source: str | tuple[str | SourceConfig, ...], workdir: Path) -> list[float]:
    train(replace(CONFIG, data=DataConfig(source)), workdir)
    return [line["loss"] for line in read_metrics(workdir) if "loss" in line]


@pytest.mark.slow
def test_every_source_trains(specs, tmp_path):
    found = {kind: losses(spec, tmp_path / kind) for kind, spec in specs.items()}
    assert len(found["tar"]) == 3
    assert found["csv"] == found["folder"] == found["tfrecord"] == found["tar"]
    assert np.isfinite(found["tfds"]).all()  # tfds has an order of its own
    several = losses((SourceConfig(specs["tar"], 2.0), SourceConfig(specs["csv"], 1.0)), tmp_path / "several")
    assert np.isfinite(several).all()
    assert several != found["tar"]


@pytest.mark.slow
def test_a_list_of_shards_that_changed_is_refused(specs, tmp_path):
    folder = Path(specs["tar"].removeprefix("tar:"))
    losses(specs["tar"], tmp_path / "run")
    last = sorted(folder.glob("*.tar"))[-1]
    last.rename(tmp_path / "taken away")
    try:
        with pytest.raises(UserError, match=r"has changed since .*00002.* is gone"):
            losses(specs["tar"], tmp_path / "run")
    finally:
        (tmp_path / "taken away").rename(last)
