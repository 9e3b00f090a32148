"""The commands of a page's blocks: their words by bash itself, what their parsers make of them, and running them."""

import json
import os
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

OTHERS = ("pip", "pytest", "gcloud", "ssh-keygen", "ssh-add")  # programs of others that the pages name
WITH_CONFIG = ("train", "plan", "doctor")


def words(blocks: Sequence[Block], folder: Path) -> list[list[str]]:
    """The program and the arguments of each command in bash blocks that follow each other in one shell in `folder`.

    The programs themselves are functions that tell their arguments; any other makes bash fail.
    """
    tell = "{ printf '%s\\0' \"$FUNCNAME\" \"$@\" >&3; printf '\\0' >&3; }"
    stubs = "".join(f"{name}() {tell}\n" for name in ("clip-jax", *OTHERS))
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
    parsed: list[tuple[Parser, Any, list[str]]] = []
    parse = Parser.parse_known_args

    def stop(parser: Parser, given: Sequence[str]) -> Any:
        parsed.append((parser, *parse(parser, given)))
        raise SystemExit(0)

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_known_args", stop)
        patch.setattr(Parser, "parse_args", stop)
        run(arguments, capsys)
    [(parser, options, rest)] = parsed
    if arguments[0] not in WITH_CONFIG:
        assert not rest, (arguments, rest)
    elif options.config:
        from clip_jax.training.config_file import load_config

        load_config(options.config, overrides_of(parser, rest), needs_data=arguments[0] == "train")
    return None


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
    done = subprocess.run(program, input=json.dumps(steps), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def furnish(folder: Path) -> None:
    """The parts of the repository that the commands name, as they stand in its folder."""
    for name in ("configs", "experiments", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
