"""The commands of pages: their words by bash itself, what their parsers make of them, and running them."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.markdown import ROOT, Block

from clip_jax.cli.arguments import Parser
from clip_jax.cli.config_arguments import overrides_of
from clip_jax.cli.main import COMMANDS, main

OTHERS = ("pip", "pytest", "tar", "mkdir", "gcloud", "ssh-keygen", "ssh-add")  # programs of others that the pages name
WITH_CONFIG = ("train", "plan", "doctor")


def words(blocks: Sequence[Block], folder: Path, real: Sequence[str] = ()) -> list[list[str]]:
    """The program and the arguments of each command in bash blocks that follow each other in one shell in `folder`.

    The programs themselves are functions that tell their arguments, but for those in `real`, which run and are not
    told; any other makes bash fail.
    """
    tell = "{ printf '%s\\0' \"$FUNCNAME\" \"$@\" >&3; printf '\\0' >&3; }"
    stubs = "".join(f"{name}() {tell}\n" for name in ("clip-jax", *OTHERS) if name not in real)
    stubs += "".join(f'{name}() {{ {shutil.which(name)} "$@"; }}\n' for name in real)
    script = f"set -eu\nPATH=/nowhere\n{stubs}" + "".join(block.text for block in blocks)
    read, write = os.pipe()
    bash = shutil.which("bash")
    assert bash
    with os.fdopen(read, "rb") as told:
        done = subprocess.run(
            [bash, "-c", f"exec 3>&{write}\n{script}"], cwd=folder, pass_fds=[write], capture_output=True, text=True
        )
        os.close(write)
        content = told.read().decode()
    assert done.returncode == 0, (blocks[0].name, done.stderr)
    return [command.split("\0") for command in content.split("\0\0")[:-1]]


def check(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Raises, or exits with a mistake, where a command would not take its flags, config file or config keys."""
    arguments = list(arguments)
    assert arguments[0] in COMMANDS, arguments
    if arguments[0] == "launch" and "--" in arguments:
        if "--dry-run" not in arguments:
            arguments.insert(1, "--dry-run")
        return run(arguments, capsys)
    parser, given = parser_of(arguments, monkeypatch, capsys)
    options, rest = parser.parse_known_args(given)
    if arguments[0] not in WITH_CONFIG:
        assert not rest, (arguments, rest)
    elif options.config:
        from clip_jax.training.config_file import load_config

        load_config(options.config, overrides_of(parser, rest), needs_data=arguments[0] == "train")
    return None


def check_flags(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Raises where there is no such command, or it has not these flags; its other words may stand for something."""
    plain = re.sub(r"\.\.\.|[][]", "", command.partition(" -- ")[0].replace("TASK", "zero-shot"))
    parser, given = parser_of(shlex.split(plain)[1:], monkeypatch, capsys)
    flags = {word.partition("=")[0] for word in given if word.startswith("--") and not word.startswith("--config.")}
    assert flags <= parser._option_string_actions.keys(), command


def parser_of(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> tuple[Parser, list[str]]:
    """The parser to which a command gives its arguments, and these, not read yet."""
    found: list[tuple[Parser, list[str]]] = []

    def stop(parser: Parser, given: Sequence[str]) -> Any:
        found.append((parser, [*given]))
        raise SystemExit(0)

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_known_args", stop)
        patch.setattr(Parser, "parse_args", stop)
        run(arguments, capsys)
    [one] = found
    return one


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture) -> None:
    """Runs a clip-jax command in this process, which must end well."""
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert not code, (shlex.join(arguments), capsys.readouterr().err)


def run_steps(steps: Sequence[dict[str, Any]], folder: Path) -> str:
    """Runs commands and Python blocks in a process in `folder`, with one device, and gives what they print."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_NUMPY"))}
    environment |= {"PYTHONPATH": str(ROOT / "tests"), "XDG_CACHE_HOME": str(folder / "cache")}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiling is most of what short runs do
    program = [sys.executable, str(Path(__file__).with_name("run_page.py"))]
    done = subprocess.run(
        program, input=json.dumps(steps), cwd=folder, env=environment, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def furnish(folder: Path) -> None:
    """The parts of the repository that the commands name, as they stand in its folder."""
    for name in ("configs", "experiments", "setup.py"):
        (folder / name).symlink_to(ROOT / name)


def setup_extras() -> set[str]:
    """The names of the package's extras, by setup.py itself."""
    import setuptools

    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: found.update(options))
        runpy.run_path(str(ROOT / "setup.py"))
    return {*found["extras_require"]}
