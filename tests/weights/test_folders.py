"""Folders that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from clip_jax import UserError
from clip_jax.weights.folders import inside, written_whole

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_a_new_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "deep" / "model"
    with written_whole(target, overwrite=False) as folder:
        fill(folder, model_bin="weights", config_json="config")
        assert not target.exists()
    assert contents(tmp_path) == {"deep/model/model.bin": "weights", "deep/model/config.json": "config"}
    assert target.stat().st_mode == (tmp_path / "deep").stat().st_mode  # not that of a private temporary folder


def test_an_empty_folder_is_filled(tmp_path):
    target = fill(tmp_path / "model")
    with written_whole(target, overwrite=False) as folder:
        fill(folder, model_bin="weights")
        assert contents(target) == {}
    assert contents(tmp_path) == {"model/model.bin": "weights"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), UserError("x")])
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_of_a_failure(tmp_path, overwrite, error, exists):
    target = (
        fill(tmp_path / "model", **({"model_bin": "old"} if exists and overwrite else {}))
        if exists
        else tmp_path / "model"
    )
    before = contents(tmp_path)

    def write() -> None:
        with written_whole(target, overwrite, ("*",)) as folder:
            fill(folder, model_bin="new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if exists else [])


def test_a_full_disk_is_the_users_to_mend(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write to \S+/model: No space left"),
        written_whole(tmp_path / "model", False),
    ):
        raise OSError(28, "No space left on device")
    assert contents(tmp_path) == {}


def test_overwriting_keeps_what_is_no_models(tmp_path):
    target = fill(tmp_path / "model", model_bin="old", old_safetensors="old", config_json="old", README_md="mine")
    fill(target / "runs", config_json="mine")
    fill(target / "keep.safetensors", x_txt="mine")  # a folder, though its name fits
    with written_whole(target, True, ("*.safetensors", "config.json")) as folder:
        fill(folder, model_bin="new", clip_json="new")
        assert contents(target)["model.bin"] == "old"
    assert contents(tmp_path) == {
        "model/model.bin": "new",
        "model/clip.json": "new",
        "model/README.md": "mine",
        "model/runs/config.json": "mine",
        "model/keep.safetensors/x.txt": "mine",
    }


def test_descriptions_go_first_and_come_last(tmp_path, monkeypatch):
    target = fill(tmp_path / "model", model_bin="old", clip_json="old", config_json="old", a_bin="old")
    steps = []
    unlink, rename = Path.unlink, Path.rename
    monkeypatch.setattr(
        Path, "unlink", lambda path, **options: (steps.append(contents(target)), unlink(path, **options))
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: (steps.append(contents(target)), rename(path, to))[1])
    with written_whole(target, True, ("config.json", "a.bin")) as folder:
        fill(folder, model_bin="new", clip_json="new", b_bin="new")
    steps.append(contents(target))
    assert len(steps) == 4 + 3 + 1
    for step in steps:  # whatever the moment of a crash: no description, or one with all of its weights
        described = {step[name] for name in ("clip.json", "config.json") if name in step}
        assert described in (set(), {"old"}, {"new"})
        if described == {"old"}:
            assert (step["model.bin"], step["a.bin"]) == ("old", "old")
        if described == {"new"}:
            assert step == {"model.bin": "new", "b.bin": "new", "clip.json": "new"}


@pytest.mark.parametrize("name", ["README_md", "model_bin"])
def test_refuses_a_folder_that_is_not_empty(tmp_path, name):
    target = fill(tmp_path / "model", **{name: "mine"})
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match=r"model exists already; pass --overwrite to replace it"),
        written_whole(target, False),
    ):
        raise AssertionError
    assert contents(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_refuses_a_file(tmp_path, overwrite):
    (tmp_path / "model").write_text("mine")
    with (
        pytest.raises(UserError, match="model exists already and is a file; give a folder"),
        written_whole(tmp_path / "model", overwrite),
    ):
        raise AssertionError
    with (
        pytest.raises(UserError, match=r"cannot write to \S+/model/out: "),
        written_whole(tmp_path / "model" / "out", overwrite),
    ):
        raise AssertionError
    assert contents(tmp_path) == {"model": "mine"}


def test_refuses_a_folder_in_the_place_of_a_file(tmp_path):
    target = fill(tmp_path / "model", old_json="old")
    fill(target / "model.bin", x_txt="mine")
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match=r"has a folder model\.bin where a file is to be written"),
        written_whole(target, True, ("*",)) as folder,
    ):
        fill(folder, model_bin="new")
    assert contents(tmp_path) == before


@needs_permissions
def test_refuses_where_nothing_can_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(UserError, match=r"cannot write to .*: Permission denied"),
            written_whole(tmp_path / "x", False),
        ):
            raise AssertionError
    finally:
        tmp_path.chmod(0o700)


def test_a_link_to_a_folder_stays_one(tmp_path):
    fill(tmp_path / "real", model_bin="old")
    (tmp_path / "link").symlink_to("real")
    with written_whole(tmp_path / "link", True) as folder:
        fill(folder, model_bin="new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "model.bin").read_text() == "new"


def test_a_mount_point_is_filled_from_inside(tmp_path, monkeypatch):
    target = fill(tmp_path / "model", README_md="mine")
    monkeypatch.setattr(Path, "is_mount", lambda path: path == target)
    with written_whole(target, True) as folder:
        assert folder.parent == target
        fill(folder, model_bin="new")
    assert contents(tmp_path) == {"model/model.bin": "new", "model/README.md": "mine"}
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "model.bin"]


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", ".hidden", "..x", "a b", "größe"])
def test_inside(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a/../../b", "a\\b", "C:\\x", "x\0.bin"])
def test_inside_refuses_other_places(tmp_path, name):
    with pytest.raises(UserError, match="is no plain file name") as caught:
        inside(tmp_path, name)
    assert "\0" not in str(caught.value)
