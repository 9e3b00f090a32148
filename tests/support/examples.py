"""tf.train.Examples, written through TensorFlow."""

from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")


def example(**features: Any) -> bytes:
    """A record of features: whole numbers, or bytes and texts; two underscores stand for a slash in a name."""

    def feature(value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        if any(isinstance(v, float) for v in values):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if any(isinstance(v, int) for v in values):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        encoded = [v.encode() if isinstance(v, str) else v for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write_tfrecord(path: Path, records: list[bytes], compression: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return path
