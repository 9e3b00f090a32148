"""Features of a table: what they are, that they are kept, and that nothing else is taken for them."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image
from support.tables import ListTable
from support.tars import simple_shard

from clip_jax.clip import create
from clip_jax.data.fingerprint import fingerprint
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, usable
from clip_jax.errors import UserError
from clip_jax.evaluation import features as module
from clip_jax.evaluation.feature_store import FeatureStore
from clip_jax.evaluation.features import NO_LABEL, embed_classes, embed_table, embed_texts
from clip_jax.sharding import MeshConfig, make_mesh


@pytest.fixture(scope="module")
def tiny():
    return create("tiny")


@pytest.fixture
def counted(monkeypatch):
    """How many images were encoded."""
    seen = []
    encode = module.Clip.image_features
    monkeypatch.setattr(module.Clip, "image_features", lambda self, x, n: seen.append(len(x)) or encode(self, x, n))
    return seen


def test_features_are_those_of_the_model(tiny):
    table = ScenesTable("held_out", 20)
    found = embed_table(tiny, table, batch_size=8)
    samples = usable(table.read(range(20)))
    images = [sample.image for sample in samples]
    np.testing.assert_allclose(found.embeddings, tiny.encode_image(images, normalize=True), atol=2e-6)
    _, named = tiny.apply_image(tiny.params, jnp.asarray(tiny.preprocess(images)), intermediates=True)
    np.testing.assert_allclose(found.pre_projection, named["pre_projection"], atol=2e-5)
    assert found.labels.tolist() == [sample.label for sample in samples]
    assert found.captions == tuple(sample.captions for sample in samples)
    assert (found.rows.tolist(), found.keys) == (list(range(20)), tuple(sample.key for sample in samples))
    assert (found.class_names, found.several, found.bad) == (table.class_names, None, ())


def test_a_second_time_nothing_is_encoded(tiny, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    table = ListTable([*ScenesTable("held_out", 19).read(range(19)), BadSample("x", "no image", "it is gone")])
    with pytest.warns(UserWarning, match="of 20 images 1 cannot be used"):
        first = embed_table(tiny, table, 8, tmp_path, "spec")
    assert sum(counted) == 19
    with pytest.warns(UserWarning, match="of 20 images 1 cannot be used"):
        again = embed_table(tiny, table, 8, tmp_path, "spec")
    assert sum(counted) == 19
    for name in ("embeddings", "pre_projection", "labels", "rows"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert (again.keys, again.captions, again.bad) == (first.keys, first.captions, first.bad)


def test_what_was_stopped_half_way_goes_on(tiny, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    table = ScenesTable("held_out", 24)
    expected = embed_table(tiny, table, 8, tmp_path, "spec")
    parts = sorted(tmp_path.glob("*/*.npz"))
    assert len(parts) == 3
    parts[1].write_bytes(parts[1].read_bytes()[:1000])
    parts[2].unlink()
    counted.clear()
    np.testing.assert_array_equal(embed_table(tiny, table, 8, tmp_path, "spec").embeddings, expected.embeddings)
    assert sum(counted) == 16


def test_another_model_or_other_data_is_not_mistaken(tiny, tmp_path, counted):
    table = ScenesTable("held_out", 8)
    embed_table(tiny, table, 8, tmp_path, "scenes")
    for clip, spec in (
        (create("tiny", seed=1), "scenes"),
        (replace(tiny, compute=replace(tiny.compute, dtype="bfloat16")), "scenes"),
        (replace(tiny, config=replace(tiny.config, preprocess=replace(tiny.config.preprocess, fill=9))), "scenes"),
        (tiny, "scenes?size=32"),
    ):
        counted.clear()
        embed_table(clip, table, 8, tmp_path, spec)
        assert sum(counted) == 8
    text = tiny.params["text"] | {"projection": tiny.params["text"]["projection"] + 1}
    counted.clear()
    embed_table(replace(tiny, params=tiny.params | {"text": text}), table, 8, tmp_path, "scenes")
    assert sum(counted) == 0  # the image tower is the same


def picture(path: Path, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, 8)).save(path)


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        ("folder:{}/pets", lambda root: picture(root / "pets/b/1.png", 9)),
        ("folder:{}/pets", lambda root: (root / "pets/a/2.png").rename(root / "pets/a/3.png")),
        ("folder:{}/pets", lambda root: (root / "pets/aa").mkdir()),
        ("folder:{}/pets", lambda root: write(root / "pets/classnames.txt", "one\ntwo\n")),
        ("folder:{}/told", lambda root: write(root / "told/1.txt", "another")),
        ("csv:{}/list.csv", lambda root: write(root / "list.csv", "image,label\npets/b/1.png,b\npets/a/1.png,b\n")),
        ("csv:{}/list.csv", lambda root: write(root / "classnames.txt", "b\na\n")),
        ("csv:{}/list.csv", lambda root: picture(root / "pets/b/1.png", 9)),
        ("tar:{}/test/0.tar", lambda root: write(root / "classnames.txt", "b\na\n")),
        ("tar:{}/test/0.tar", lambda root: write(root / "dataset_type.txt", "retrieval")),
        ("tar:{}/test/0.tar", lambda root: simple_shard(root / "test/0.tar", 0, 3)),
    ],
)
def test_data_that_changed_is_noticed(tmp_path, spec, change):
    for name in ("pets/a/1.png", "pets/a/2.png", "pets/b/1.png", "told/1.png"):
        picture(tmp_path / name)
    write(tmp_path / "told/1.txt", "a caption")
    write(tmp_path / "list.csv", "image,label\npets/b/1.png,b\npets/a/1.png,a\n")
    simple_shard(tmp_path / "test/0.tar", 0, 2)

    def found() -> str:
        return fingerprint(open_table(spec.format(tmp_path)), "")

    before = found()
    assert found() == before
    change(tmp_path)
    assert found() != before


def test_a_cache_needs_the_datas_name(tiny, tmp_path):
    with pytest.raises(ValueError, match="a cache needs the data spec"):
        embed_table(tiny, ScenesTable("held_out", 2), cache=tmp_path)
    assert fingerprint(ScenesTable("held_out", 2), "a") != fingerprint(ScenesTable("held_out", 2), "b")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_embeddings_that_are_no_numbers_are_refused(tiny, value):
    visual = tiny.params["visual"] | {"projection": tiny.params["visual"]["projection"] * value}
    clip = replace(tiny, params=tiny.params | {"visual": visual})
    with pytest.raises(UserError, match="the model's embedding of held_out-0000000 is zero or not finite"):
        embed_table(clip, ScenesTable("held_out", 2))


def test_labels_of_all_kinds(tiny):
    samples = usable(ScenesTable("held_out", 4).read(range(4)))
    one = embed_table(tiny, ListTable([samples[0], replace(samples[1], label=None)]))
    assert one.labels.tolist() == [samples[0].label, NO_LABEL]
    table = ListTable([replace(sample, label=None, labels=(i, 2)[:i]) for i, sample in enumerate(samples[:3])])
    table.class_names = ("a", "b", "c", "d")
    several = embed_table(tiny, table).several
    assert several is not None
    assert several.tolist() == [[False] * 4, [False, True, False, False], [False, False, True, False]]


def test_texts_and_classes_are_kept(tiny, tmp_path, monkeypatch):
    texts, classes = ["a red star", "a blue ring"], [("star", "asterisk"), ("ring",)]
    first = embed_texts(tiny, texts, cache=tmp_path), embed_classes(tiny, classes, ["a {}.", "the {}."], tmp_path)
    np.testing.assert_array_equal(first[0], tiny.encode_text(texts, normalize=True))
    prompts = [f"{a} {name}." for name in ("star", "asterisk") for a in ("a", "the")]
    mean = tiny.encode_text(prompts, normalize=True).mean(axis=0)
    np.testing.assert_allclose(first[1][0], mean / np.linalg.norm(mean), atol=1e-6)
    monkeypatch.setattr(module.Clip, "_encode", None)  # no text can be encoded from here on
    again = embed_texts(tiny, texts, cache=tmp_path), embed_classes(tiny, classes, ["a {}.", "the {}."], tmp_path)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError):
        embed_classes(tiny, [("star asterisk",), ("ring",)], ["a {}.", "the {}."], tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot keep features in .*file.*--no-cache keeps none"):
        embed_table(tiny, ScenesTable("held_out", 2), cache=tmp_path / "file", spec="spec")
    store = FeatureStore(tmp_path, tiny, "visual", "data")
    assert store.read(0) is None


def test_a_device_alone_gives_the_same(tiny):
    table = ScenesTable("held_out", 20)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    one = replace(tiny, params=jax.device_put(tiny.params, NamedSharding(mesh, PartitionSpec())))
    np.testing.assert_allclose(
        embed_table(one, table, 4).embeddings, embed_table(tiny, table, 16).embeddings, atol=2e-6
    )
