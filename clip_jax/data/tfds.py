"""Datasets that TensorFlow Datasets has prepared, read where they lie; nothing is ever downloaded."""

import os
from collections.abc import Iterator
from typing import Any

from clip_jax.data.arrayrecord import ArrayRecords
from clip_jax.data.examples import ExampleTable, Features
from clip_jax.data.lazy_tensorflow import tensorflow
from clip_jax.data.tfrecord import TFRecords
from clip_jax.errors import UserError
from clip_jax.schema import nearest

IMAGES, CAPTIONS, LABELS = ("image",), ("caption", "captions", "text"), ("label",)


def open_tfds(
    name: str,
    split: str = "train",
    data_dir: str | None = None,
    image: str | None = None,
    captions: str | None = None,
    label: str | None = None,
) -> ExampleTable:
    """A split of a prepared dataset, named as in tfds: NAME[/CONFIG][:VERSION] and `train`, `train[:10%]`, ...

    Images stay encoded. By default `image`, the texts in `caption`, `captions` or `text`, and `label` are taken; a text
    within another feature goes by its path, `captions/text`. `label` may name a sequence of labels: then images have
    several. Raises UserError where the dataset is not prepared.
    """
    builder = _builder(name, data_dir)
    leaves = dict(_leaves(builder.info.features))
    kinds = _tfds().features
    labels = _pick(leaves, LABELS, label, kinds.ClassLabel, name, "label")[:1]
    images = _pick(leaves, IMAGES, image, kinds.Image, name, "image")
    if not images:
        raise UserError(f"{name} has no feature 'image'; image=FEATURE names one of {', '.join(sorted(leaves))}")
    texts = _pick(leaves, CAPTIONS, captions, kinds.Text, name, "captions")
    several = bool(labels) and _is_several(builder.info.features, labels[0])
    features = Features(images[0], tuple(texts), labels[0] if labels else None, several)
    names = tuple(leaves[labels[0]].names or ()) if labels else ()
    return ExampleTable(_records(builder, name, split), features, names)


def _is_several(feature: Any, path: str) -> bool:
    """Whether the leaf at `path` lies in a sequence, so that an example has several of it."""
    for name in path.split("/"):
        if type(feature) is _tfds().features.Sequence:
            return True
        feature = feature[name]
    return type(feature) is _tfds().features.Sequence


def _builder(name: str, data_dir: str | None) -> Any:
    tfds = _tfds()
    where = os.path.expanduser(data_dir) if data_dir else None
    try:
        short, chosen = tfds.core.naming.parse_builder_name_kwargs(name, data_dir=where)
        return tfds.core.read_only_builder.builder_from_files(str(short), **chosen)
    except tfds.core.DatasetNotFoundError as error:
        place = f", data_dir='{data_dir}'" if data_dir else ""
        raise UserError(
            f"{name} is not prepared in {data_dir or 'the data folder of tfds'}; data_dir=FOLDER names another, and "
            f"tfds.builder('{name}'{place}, file_format='array_record').download_and_prepare() prepares it"
        ) from error
    except ValueError as error:
        raise UserError(f"cannot open tfds:{name}: {str(error).splitlines()[0]}") from error


def _records(builder: Any, name: str, split: str) -> TFRecords | ArrayRecords:
    try:
        instructions = builder.info.splits[split].file_instructions
    except (ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot take split={split} of {name}: {reason}") from error
    paths = [os.fspath(instruction.filename) for instruction in instructions]
    rows = [range(part.skip, part.skip + part.take) for part in instructions]
    taken: dict[str, int] = {}
    for path, part in sorted(zip(paths, rows, strict=True), key=lambda both: (both[0], both[1].start)):
        if part.start < taken.get(path, 0):
            raise UserError(f"split={split} of {name} takes samples more than once; give parts that do not overlap")
        taken[path] = part.stop
    kind = builder.info.file_format.value
    if not paths or kind not in ("tfrecord", "array_record"):
        raise UserError(
            f"split={split} of {name} has {len(paths)} files of kind {kind}; tfrecord or array_record would do"
        )
    return TFRecords(paths, rows) if kind == "tfrecord" else ArrayRecords(paths, rows)


def _leaves(feature: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The innermost features by the names that they have in a stored tf.train.Example."""
    kinds = _tfds().features
    if isinstance(feature, kinds.FeaturesDict):
        for name, inner in feature.items():
            yield from _leaves(inner, f"{path}/{name}" if path else name, depth)
    elif type(feature) is kinds.Sequence:
        yield from _leaves(feature.feature, path, depth + 1)
    else:
        yield f"{path}/ragged_flat_values" if depth > 1 else path, feature


def _pick(
    leaves: dict[str, Any], defaults: tuple[str, ...], given: str | None, kind: type, dataset: str, option: str
) -> list[str]:
    """The leaves that `given` names, by themselves or by what they lie in, else those of the first default."""
    if given:
        return [path for name in given.split(",") for path in _named(leaves, name, kind, dataset, option)]
    found = ([path for path in _below(leaves, name) if _is(leaves[path], kind)] for name in defaults)
    return next(filter(None, found), [])[:1]


def _named(leaves: dict[str, Any], name: str, kind: type, dataset: str, option: str) -> list[str]:
    below = _below(leaves, name)
    if not below:
        raise UserError(f"{dataset} has no feature '{name}' for {option}; {nearest(name, leaves)}")
    fitting = [path for path in below if _is(leaves[path], kind)]
    if not fitting:
        raise UserError(f"the feature '{name}' of {dataset} cannot be {option}; {kind.__name__} would be")
    return fitting[:1]


def _is(leaf: Any, kind: type) -> bool:
    """Whether a leaf is of a kind; strings of any name are text, as coco_captions has them."""
    kinds = _tfds().features
    is_string = isinstance(leaf, kinds.Tensor) and _tfds().core.utils.dtype_utils.is_string(leaf.np_dtype)
    return isinstance(leaf, kind) or (kind is kinds.Text and is_string)


def _below(leaves: dict[str, Any], name: str) -> list[str]:
    return [path for path in leaves if path == name or path.startswith(f"{name}/")]


def _tfds() -> Any:
    tensorflow()
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError("tfds: needs another package; pip install '.[train]' in the repository") from error
    return tensorflow_datasets
