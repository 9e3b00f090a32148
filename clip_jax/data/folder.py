"""Images in folders: a folder per class, or images with a text file of the same name beside each."""

import os
from collections import Counter
from pathlib import Path

from clip_jax.data import files
from clip_jax.data.beside import read_class_names
from clip_jax.data.table import BadSample, Indices, Sample, check_indices
from clip_jax.errors import UserError
from clip_jax.inputs.images import EXTENSIONS


class FolderTable:
    """The images below `root`, in sorted order; a sample's key is its path from there.

    With a folder per class, the label is the class's place among the sorted folder names, and `classnames.txt` in
    the root, one name a line in that order, renames the classes. Otherwise the images lie in the root itself, and
    `NAME.txt` beside `NAME.jpg` holds its caption. Names that begin with a dot are passed over. Raises UserError
    where the folder is missing, holds no images, or mixes both layouts.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"{root} is not a folder; a folder of images, or of one folder per class, would be")
        folders = sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.name.startswith("."))
        loose = sorted(p.name for p in self.root.iterdir() if p.is_file() and _is_image(p.name))
        per_class = [_images_below(self.root, name) for name in folders]
        if loose and any(per_class):
            raise UserError(f"{root} holds both images and folders of images; give a folder that has one or the other")
        if not loose and not any(per_class):
            endings = ", ".join(f".{extension}" for extension in EXTENSIONS)
            raise UserError(f"{root} has no images in it or in its folders; images end in {endings}")
        self._paths = loose or [path for paths in per_class for path in paths]
        self._labels = None if loose else [label for label, paths in enumerate(per_class) for _ in paths]
        self.class_names = () if loose else _class_names(self.root, folders)

    @property
    def parts(self) -> dict[str, int]:
        if self._labels is None:
            return {str(self.root): len(self)}
        return dict(Counter(str(self.root / path.split("/")[0]) for path in self._paths))

    @property
    def is_remote(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._paths)

    def keys(self, indices: Indices) -> list[str]:
        return [self._paths[i] for i in check_indices(indices, len(self))]

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        return [self._read(i) for i in check_indices(indices, len(self)).tolist()]

    def _read(self, index: int) -> Sample | BadSample:
        key = self._paths[index]
        path, text = str(self.root / key), str((self.root / key).with_suffix(".txt"))
        image = files.read_files([path])[path]
        if not isinstance(image, bytes) or not image:
            return BadSample(key, "no image", str(image or f"{path} is an empty file"))
        if self._labels is not None:
            return Sample(key, image, (), self._labels[index])
        if not os.path.lexists(text):
            return Sample(key, image, ())
        content = files.read_files([text])[text]
        if not isinstance(content, bytes):
            return BadSample(key, "bad caption", str(content))
        try:
            caption = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return BadSample(key, "bad caption", f"the caption in {text} is not UTF-8 text")
        return Sample(key, image, (caption,) if caption else ())


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower()[1:] in EXTENSIONS


def _images_below(root: Path, folder: str) -> list[str]:
    paths = []
    for parent, folders, names in os.walk(root / folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name).relative_to(root).as_posix() for name in names if _is_image(name)]
    return sorted(paths)


def _class_names(root: Path, folders: list[str]) -> tuple[str, ...]:
    path = root / "classnames.txt"
    if not path.exists():
        return tuple(folders)
    names = read_class_names(path)
    if len(names) != len(folders):
        raise UserError(f"{path} names {len(names)} classes, but {root} has {len(folders)} folders; one line a folder")
    return names
