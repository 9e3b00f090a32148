"""`clip-jax embed`: from the command line, killed, by several processes, and given what it cannot take."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import ended, finish, free_port
from support.tars import write_tar

from clip_jax.cli import embed as command
from clip_jax.cli.main import main
from clip_jax.clip import create, load, save


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(create("tiny"), folder)
    return str(folder)


def picture(number: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 48)).save(content, "jpeg")
    return content.getvalue()


def shards(folder: Path, count: int, a_tar: int) -> str:
    """Tars of `count` pictures; one in 500 is broken."""
    for start in range(0, count, a_tar):
        members = []
        for number in range(start, min(start + a_tar, count)):
            members += [(f"{number:06d}.jpg", picture(number) if number % 500 != 7 else b"broken")]
            members += [(f"{number:06d}.txt", f"picture {number}".encode())]
        write_tar(folder / f"{start // a_tar:05d}.tar", members)
    return f"tar:{folder}"


def digests(folder: Path, name: str) -> dict[str, str]:
    """Of every file that belongs to the set."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if name in path.name}


# A process in the background of a shell ignores SIGINT, and so would those that it starts.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from clip_jax.cli.main import main
{more}
main()
"""
KILLED_AT = """
replace, left = os.replace, [{rename}]
def deadly(*paths):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = deadly
"""


def start(*arguments: str, more: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM.format(more=more), "embed", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_once_there_are(process: subprocess.Popen, folder: Path, files: int) -> None:
    """Kills it as soon as that many shards are complete."""
    until = time.monotonic() + 300
    while len(list(folder.glob("0*.npy"))) < files:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def check_the_same(folder: Path) -> None:
    whole = digests(folder / "whole", "a.npy")
    assert digests(folder, "a.npy") == whole
    assert set(whole) == {"a.npy", "a.npy.json", "a.npy.keys.jsonl", "a.npy.bad.jsonl"}


def test_killed_twice_and_resumed(model, tmp_path):
    options = [shards(tmp_path / "data", 100, 40), "--model", model, "--shard", "4"]
    main(["embed", *options, "--out", str(tmp_path / "whole/a.npy")])
    for rename in (12, 20):
        process = start(*options, "--out", str(tmp_path / "a.npy"), more=KILLED_AT.format(rename=rename))
        _, errors = process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL, errors
    assert 1 < len(list((tmp_path / "a.npy.partial").glob("0*.npy"))) < 25
    main(["embed", *options, "--out", str(tmp_path / "a.npy")])
    check_the_same(tmp_path)


@pytest.mark.slow
def test_killed_twice_in_ten_thousand_images(model, tmp_path):
    options = [shards(tmp_path / "data", 10_000, 2000), "--model", model, "--shard", "128"]
    finish(start(*options, "--out", str(tmp_path / "whole/a.npy")))
    for there in (3, 40):
        kill_once_there_are(start(*options, "--out", str(tmp_path / "a.npy")), tmp_path / "a.npy.partial", there)
    assert not (tmp_path / "a.npy").exists()
    finish(start(*options, "--out", str(tmp_path / "a.npy")))
    check_the_same(tmp_path)
    told = json.loads((tmp_path / "a.npy.json").read_text())
    assert (told["rows"], told["left_out"]) == (9980, {"bad image": 20})
    rows = np.load(tmp_path / "a.npy", mmap_mode="r")
    keys = [json.loads(line) for line in (tmp_path / "a.npy.keys.jsonl").read_text().splitlines()]
    assert len(rows) == len(keys)
    some = [0, 7, 5000, 9979]  # row 7 is of picture 8, since 7 is broken
    assert [keys[row]["key"] for row in some[:2]] == ["00000/000000", "00000/000008"]
    pictures = [picture(keys[row]["sample"]) for row in some]
    np.testing.assert_allclose(rows[some], load(model).encode_image(pictures, normalize=True), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("texts", [[], ["--texts"]])
@pytest.mark.parametrize("out", ["a.npy", "folder"])
def test_two_processes_make_the_same(model, tmp_path, out, texts):
    options = [shards(tmp_path / "data", 700, 200), "--model", model, "--shard", "64", *texts]
    finish(start(*options, "--out", str(tmp_path / "one" / out)))
    together = [f"--coordinator=localhost:{free_port()}", "--processes=2", "--out", str(tmp_path / "two" / out)]
    finish(*(start(*options, *together, f"--process={number}") for number in range(2)))
    place = tmp_path / "one" / ("folder" if out == "folder" else "")
    assert digests(tmp_path / "two" / place.relative_to(tmp_path / "one"), "") == digests(place, "")


@pytest.mark.slow
def test_a_place_that_one_process_does_not_see(model, tmp_path):
    options = [shards(tmp_path / "data", 40, 40), "--model", model, "--shard", "8"]
    options += [f"--coordinator=localhost:{free_port()}", "--processes=2"]
    both = [start(*options, f"--process={i}", "--out", str(tmp_path / f"{i}/a.npy")) for i in range(2)]
    told = [errors for _, errors in ended(*both)]
    assert both[1].returncode == 2
    assert "is not there on process 1; --out must be a place that all see" in told[1]
    assert both[0].returncode != 0


def test_ctrl_c_says_how_to_go_on(model, tmp_path):
    process = start("synthetic:6000?size=32", "--model", model, "--shard=4", "--out", str(tmp_path / "a.npy"))
    while not list((tmp_path / "a.npy.partial").glob("0*.npy")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = [line for line in errors.splitlines() if line.startswith("clip-jax: ")]
    assert "of 1,500 shards are kept, and the same command goes on from there" in line
    assert "Traceback" not in errors


def test_everything_is_told(model, tmp_path, capsys):
    spec = shards(tmp_path / "data", 30, 20)
    out = tmp_path / "deep/a.npy"
    arguments = ["embed", spec, "--model", model, "--out", str(out), "--json", str(tmp_path / "told.json")]
    main(arguments)
    shown = capsys.readouterr().out
    assert f"{out}: 29 x 128 float32; 30 samples in" in shown
    assert "left out: 1 of 30 (bad image: 1)\n  00000/000007: image bytes is not an image" in shown
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["rows"], told["samples"], told["of"], told["out"]) == (29, 30, "images", str(out))
    assert [one["key"] for one in told["bad"]] == ["00000/000007"]
    assert told["model"] == model
    assert told["data"] == spec
    main(arguments)
    assert "29 x 128 float32, as before" in capsys.readouterr().out


def test_a_place_without_a_suffix_is_a_folder_unless_told(model, tmp_path, capsys):
    data = "scenes:train?images=5"
    main(["embed", data, "--model", model, "--out", str(tmp_path / "a")])
    assert np.load(tmp_path / "a/00000.npy").shape == (5, 128)
    main(["embed", data, "--model", model, "--out", str(tmp_path / "b"), "--format", "npy", "--dtype", "float16"])
    assert np.load(tmp_path / "b").dtype == np.float16


def test_names_that_are_not_utf_8_are_printed_as_escapes(model, tmp_path, capsys):
    folder = os.fsencode(tmp_path / "data")
    os.mkdir(folder)
    for number, content in enumerate([picture(0), b"broken"]):
        with open(os.path.join(folder, b"\xff%d.jpg" % number), "wb") as file:
            file.write(content)
    main(["embed", f"{tmp_path}/data", "--model", model, "--out", os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.npy")])
    shown = capsys.readouterr().out
    shown.encode()
    assert r"\udce9.npy: 1 x 128 float32" in shown
    assert r"  \udcff1.jpg: image bytes is not an image" in shown


def test_parquet_without_pyarrow(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit) as ended:
        main(["embed", "scenes:train?images=5", "--model", model, "--out", str(tmp_path / "a.parquet")])
    assert ended.value.code == 2
    assert "Parquet needs the package pyarrow; pip install '.[parquet]'" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


SEEN = "scenes:train?images=5"
WRONG = {
    "no data": (["{tmp}/nowhere", "--out", "{tmp}/a.npy"], "there is no file or folder {tmp}/nowhere"),
    "empty folder": (["{tmp}/empty", "--out", "{tmp}/a.npy"], "has no images in it"),
    "kind": (["tars:x", "--out", "{tmp}/a.npy"], "there is no data of kind 'tars'; did you mean 'tar'?"),
    "suffix": ([SEEN, "--out", "{tmp}/a.h5"], "a set ends in .npy or .parquet, or is a folder; --format says which"),
    "format": ([SEEN, "--out", "{tmp}/a.npy", "--format", "parquet"], "but --format is parquet; let them agree"),
    "nameless parquet": ([SEEN, "--out", "{tmp}/b", "--format", "parquet"], "so let it end in .parquet"),
    "url": ([SEEN, "--out", "gs://bucket/a.npy"], "is a URL; give a path"),
    "folder": ([SEEN, "--out", "{tmp}/d.npy"], "d.npy is a folder; name a file in it"),
    "unwritable": ([SEEN, "--out", "{tmp}/t.txt/a.npy"], "cannot write to {tmp}/t.txt/a.npy.partial: Not a directory"),
    "batch": ([SEEN, "--out", "{tmp}/a.npy", "--batch-size", "0"], "--batch-size 0: it must be at least 1"),
    "shard": ([SEEN, "--out", "{tmp}/a.npy", "--shard", "0"], "--shard 0: it must be at least 1"),
    "text file": (["{tmp}/t.txt", "--out", "{tmp}/a.npy"], "t.txt is a text file; --texts embeds its lines"),
    "no captions": (["{tmp}/pictures", "--texts", "--out", "{tmp}/a.npy"], "none can be used, the first is 1.png"),
    "processes": ([SEEN, "--out", "{tmp}/a.npy", "--process", "1"], "give all three of --coordinator"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_get_one_line(model, tmp_path, capsys, mistake):
    for name in ("empty", "d.npy", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.txt").write_text("a text\n")
    (tmp_path / "pictures/1.png").write_bytes(picture(1))
    arguments, message = WRONG[mistake]
    with pytest.raises(SystemExit) as ended:
        main(["embed", "--model", model, *(one.replace("{tmp}", str(tmp_path)) for one in arguments)])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("clip-jax: ")
    assert shown.err.count("\n") == 1
    assert message.replace("{tmp}", str(tmp_path)) in shown.err
    assert not (tmp_path / "a.npy").exists()


def test_the_help_says_how_it_is_scaled(capsys):
    with pytest.raises(SystemExit):
        command.run(["--help"])
    assert "A row has length one unless --raw is given" in capsys.readouterr().out
