"""Datasets are prepared by tfds itself, in both of its file formats, and compared with what it reads."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, Table, usable
from clip_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
FORMATS = ("array_record", "tfrecord")


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Captions as in coco_captions: a list of features, any number a sample."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = None  # where tfds would look for checksums of downloads

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "depth": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "captions": tfds.features.Sequence(
                {"id": tfds.features.Scalar(np.int64), "text": tfds.features.Scalar(np.str_)}
            ),
            "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"]),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=["red", "green", "blue"])),
            "objects": tfds.features.Sequence({"label": tfds.features.ClassLabel(names=["leg", "wing"])}),
            "other": {"title": tfds.features.Text(), "tags": tfds.features.Sequence(tfds.features.Text())},
            "nested": tfds.features.Sequence(tfds.features.Sequence(tfds.features.Text())),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(range(20)), "test": self._generate_examples(range(20, 25))}

    def _generate_examples(self, numbers):
        for n in numbers:
            yield (
                n,
                {
                    "image": io.BytesIO(png(n)),
                    "depth": io.BytesIO(png(n + 100)),
                    "captions": [{"id": i, "text": f"caption {n} {i}"} for i in range(n % 4)],
                    "label": n % 3,
                    "labels": list(range(n % 4)),
                    "objects": [{"label": n % 2}, {"label": n % 2}],
                    "other": {"title": f"title {n}", "tags": [f"tag {n} {i}" for i in range(n % 3)]},
                    "nested": [[f"nested {n}"], [], [f"more {n}", "x"]],
                },
            )


@pytest.fixture(scope="module", params=FORMATS)
def data_dir(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    Tiny(data_dir=folder, file_format=request.param).download_and_prepare()
    return folder


def reference(folder: Path, split: str) -> list:
    """The examples as tfds reads them, images left encoded."""
    builder = tfds.core.read_only_builder.builder_from_files("tiny", data_dir=folder)
    decoders = {"image": tfds.decode.SkipDecoding(), "depth": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "array_record":
        return list(builder.as_data_source(split=split, decoders=decoders))
    return list(tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)))


@pytest.mark.parametrize("split", ["train", "test", "train[5:15]", "train[:10%]+test", "train[15:]+train[:5]"])
def test_samples_are_those_that_tfds_reads(data_dir, split):
    table = open_table(f"tfds:tiny?data_dir={data_dir}&split={split}")
    assert isinstance(table, Table)
    assert (table.class_names, table.is_remote) == (("cat", "dog", "owl"), False)
    expected = reference(data_dir, split)
    assert len(table) == len(expected) == sum(table.parts.values())
    samples = usable(table.read(range(len(table))))
    for sample, other in zip(samples, expected, strict=True):
        assert sample.image == bytes(other["image"])
        assert sample.captions == tuple(text.decode() for text in other["captions"]["text"])
        assert sample.label == other["label"]
    assert len(set(table.keys(range(len(table))))) == len(table)
    order = [len(table) - 1, 0, 0]
    assert table.read(order) == [samples[i] for i in order]


def test_several_labels(data_dir):
    table = open_table(f"tfds:tiny?data_dir={data_dir}&label=labels")
    assert table.class_names == ("red", "green", "blue")
    samples, expected = usable(table.read(range(20))), reference(data_dir, "train")
    assert [sample.labels for sample in samples] == [tuple(other["labels"]) for other in expected]
    assert {sample.label for sample in samples} == {None}
    nested = usable(open_table(f"tfds:tiny?data_dir={data_dir}&label=objects/label").read(range(20)))
    assert [sample.labels for sample in nested] == [tuple(set(other["objects"]["label"])) for other in expected]


@pytest.mark.parametrize(
    ("name", "options", "captions"),
    [
        ("tiny:1.2.0", "captions=captions/text", lambda e: [text.decode() for text in e["captions"]["text"]]),
        ("tiny:1.*.*", "captions=other/title", lambda e: [e["other"]["title"].decode()]),
        (
            "tiny",
            "captions=other/tags,other/title",
            lambda e: [t.decode() for t in [*e["other"]["tags"], e["other"]["title"]]],
        ),
        ("tiny", "captions=nested", lambda e: [f"nested {e['number']}", f"more {e['number']}", "x"]),
    ],
)
def test_features_by_name(data_dir, name, options, captions):
    table = open_table(f"tfds:{name}?data_dir={data_dir}&image=depth&{options}")
    expected = reference(data_dir, "train")
    for sample, other in zip(usable(table.read(range(20))), expected, strict=True):
        number = {"number": other["other"]["title"].decode().removeprefix("title ")}
        assert sample.image == bytes(other["depth"])
        assert sample.captions == tuple(captions(other | number))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny?split=validation", r"cannot take split=validation of tiny: .*'train', 'test'"),
        ("tiny?split=train[:", "cannot take split=train"),
        ("tiny?split=train%2Btrain[:5]", "cannot take split"),
        ("tiny?split=train+train[:5]", r"split=train\+train\[:5\] of tiny takes samples more than once"),
        ("tiny?image=photo", "tiny has no feature 'photo' for image; did you mean|tiny has no feature 'photo'"),
        ("tiny?image=other/title", "the feature 'other/title' of tiny cannot be image; Image would be"),
        ("tiny?captions=label", "the feature 'label' of tiny cannot be captions; Text would be"),
        ("tiny?label=captions", "the feature 'captions' of tiny cannot be label; ClassLabel would be"),
        ("tiny:9.0.0?split=train", "tiny:9.0.0 is not prepared in .*download_and_prepare"),
        ("tiny/config?split=train", "tiny/config is not prepared in"),
        (
            "nonsense?split=train",
            r"nonsense is not prepared in .*tfds\.builder\('nonsense', data_dir='.*'.*prepares it",
        ),
        ("mnist?split=train", "mnist is not prepared in"),
        ("a b?split=train", "a b"),
    ],
)
def test_refuses(data_dir, text, message):
    with pytest.raises(UserError, match=message) as error:
        open_table(f"tfds:{text}&data_dir={data_dir}")
    assert "\n" not in str(error.value)


def test_says_which_file_is_cut(tmp_path):
    Tiny(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    (path,) = tmp_path.glob("tiny/1.2.0/*train*tfrecord*")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="breaks off"):
        *good, last = open_table(f"tfds:tiny?data_dir={tmp_path}").read(range(20))
    assert len(usable(good)) == 19
    assert isinstance(last, BadSample)
    assert last.cause == "cut short"


def test_is_not_imported_for_other_data(tmp_path):
    code = "import sys, clip_jax.data.spec as s; s.open_table('synthetic:5').read([0])\n"
    code += "print([name for name in ('tensorflow', 'tensorflow_datasets', 'array_record') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
