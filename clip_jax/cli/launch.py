"""`clip-jax launch`: a training run on a Cloud TPU slice, from nothing to nothing left."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from clip_jax.cli.arguments import Parser, StrictParser, write_json
from clip_jax.cli.config_arguments import joined, overrides_of
from clip_jax.errors import UserError
from clip_jax.tpu.launch import commands
from clip_jax.tpu.launch.request import Request, Slice
from clip_jax.tpu.launch.runner import Runner, Shell
from clip_jax.tpu.launch.state import find, workers

ACTIONS = ("run", "status", "logs", "stop", "delete")
CACHE = Path("~/.cache/clip-jax")  # what goes to the workers, in a folder of each slice


def run(arguments: Sequence[str], runner: Runner | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Does one of the actions; `run` exits with 1 where training did not come to its end, 2 for a user's mistake."""
    arguments = list(arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:at])
    training = tuple(arguments[at + 1 :])
    queued = options.queued or options.slices > 1
    where = Slice(options.name, options.zone, options.project, queued=queued, nodes=options.slices)
    runner = runner or Shell()
    if options.action != "run" and training:
        raise UserError(f"{options.action} takes no command after --; run does")
    match options.action:
        case "run":
            _run(options, where, training, runner, sleep)
        case "status":
            _status(options, where, runner)
        case "logs":
            _logs(options, where, runner)
        case "stop":
            _stop(where, runner)
        case "delete":
            _delete(options, where, runner)


def _parser() -> Parser:
    parser = Parser(
        "launch",
        "Train on a Cloud TPU slice, by the gcloud of this machine. run (the default) creates the slice, installs\n"
        "this source tree on all its workers, starts the training so that it outlives the connection, follows its\n"
        "log, asks for the slice again when it is preempted, and deletes it when training is done. Ctrl-C leaves the\n"
        "training running; the same command comes back to it. --dry-run prints the commands instead.\n"
        "  status   how the slice and its workers are\n"
        "  logs     a worker's log, as it comes\n"
        "  stop     end the training, with a last checkpoint; the slice stays, and costs\n"
        "  delete   delete the slice\n"
        "experiments/tpu/README.md begins with an empty cloud project.",
        "clip-jax launch --name my-run --topology v5e:16x16 --zone us-west4-a --spot -- \\\n"
        "      train --config=configs/openai_vit_b32.py --workdir=gs://bucket/run",
    )
    parser.add_argument(
        "action", nargs="?", choices=ACTIONS, default="run", help="one of run, status, logs, stop, delete"
    )
    parser.add_argument("--name", required=True, help="of the slice; the same one finds it again")
    parser.add_argument("--zone", required=True, help="such as us-west4-a")
    parser.add_argument("--project", help="the cloud project (default: gcloud's)")
    begin = parser.add_argument_group("run")
    begin.add_argument("--topology", metavar="NAME", help="as in clip-jax plan: v5e:16x16, v4:4x4x4, v6e:8x16")
    begin.add_argument("--slices", type=int, default=1, metavar="N", help="that many slices of it, queued (default: 1)")
    begin.add_argument("--spot", action="store_true", help="cheaper, and taken away when others pay more")
    begin.add_argument("--queued", action="store_true", help="wait in Google's queue until there is capacity")
    begin.add_argument(
        "--attempts",
        type=int,
        default=3,
        metavar="N",
        help="how many in a row may come to no newer checkpoint (default: 3)",
    )
    begin.add_argument("--keep", action="store_true", help="leave the slice when training is done; it goes on to cost")
    begin.add_argument("--image", metavar="VERSION", help="another runtime image for the workers")
    begin.add_argument("--service-account", metavar="EMAIL", help="whom the workers act as, towards the bucket")
    begin.add_argument("--dry-run", action="store_true", help="print the commands, ready to paste, and run none")
    other = parser.add_argument_group("logs and delete")
    other.add_argument("--worker", default="0", metavar="I", help="whose log (default: 0)")
    other.add_argument("--lines", type=int, default=50, metavar="N", help="how much of the log before (default: 50)")
    other.add_argument("--yes", action="store_true", help="delete without asking")
    return parser


def _run(
    options: argparse.Namespace,
    where: Slice,
    training: tuple[str, ...],
    runner: Runner,
    sleep: Callable[[float], None],
) -> None:
    from clip_jax.tpu.launch import preflight
    from clip_jax.tpu.launch.held_slice import HeldSlice
    from clip_jax.tpu.launch.job import Job
    from clip_jax.tpu.launch.outcome import left_text, report_text
    from clip_jax.tpu.launch.prices import cost
    from clip_jax.tpu.launch.slice_types import generation
    from clip_jax.tpu.launch.supervisor import steps, supervise
    from clip_jax.tpu.topology import parse_topology

    if not options.topology:
        raise UserError("run needs --topology, as in --topology v5e:16x16; clip-jax plan tells what a config needs")
    if options.attempts < 1:
        raise UserError(f"--attempts {options.attempts}: there is at least one attempt")
    topology = parse_topology(options.topology, where.nodes)
    request = Request(where, topology, options.spot, options.image, options.service_account)
    commands.create(request)  # a shape that Google does not have is told of first
    config_file, with_wandb = _check_training(training)
    preflight.check_tree()
    job = Job(training, CACHE.expanduser() / where.folder, with_wandb)
    estimate = cost(topology, where.zone, options.spot)
    said = f"{topology} as {where.name} in {where.zone}: {estimate.sentence}"
    if generation(topology) == "tpu7x":
        said += "\n# Google documents TPU7x for GKE and Compute Engine; the Cloud TPU API has it for some projects only"
    if options.dry_run:
        print(f"# {said}")
        listed = steps(request, job)
        listed = listed[:-1] if options.keep else listed
        for words, command in listed:
            print((f"\n# {words}\n" if words else "") + commands.shown(command))
        write_json(options.json, {"dollars_an_hour": estimate.hour, "commands": [list(c) for _, c in listed]})
        return
    preflight.check_tracked(config_file, runner)
    preflight.check_agent(topology, runner)
    preflight.make_folder(job)
    _say(said)
    held = HeldSlice(request, options.attempts, runner, sleep, _say)
    try:
        report = supervise(job, held, options.attempts, runner, sleep, _say)
        is_over = report.outcome == "done" and not options.keep
        if is_over:
            held.remove()
    except (KeyboardInterrupt, UserError) as reason:
        if held.there:
            print(left_text(where, estimate.hour), file=sys.stderr)
        if isinstance(reason, UserError):
            raise
        sys.exit(130)
    _say(report_text(report, where, estimate.hour, deleted=is_over))
    write_json(options.json, {"name": where.name, "dollars_an_hour": estimate.hour, **asdict(report)})
    if report.outcome != "done":
        sys.exit(2 if report.outcome == "mistake" else 1)


def _say(text: str) -> None:
    """Prints at once. Where nobody reads on (a closed pipe, a full disk), the run is looked after all the same."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_training(training: tuple[str, ...]) -> tuple[str, bool]:
    """The config's file, and whether the run logs to Weights & Biases. Raises UserError for what fails on a slice."""
    if not training or training[0] != "train":
        raise UserError(
            "after -- comes the training command, as in -- train --config=configs/openai_vit_b32.py "
            "--workdir=gs://bucket/run"
        )
    from clip_jax.tpu.launch.job import check_reach, wandb_key
    from clip_jax.training.config_file import load_config

    parser = StrictParser(prog="clip-jax train", allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True)
    options, rest = parser.parse_known_args(joined(training[1:]))
    config = load_config(options.config, overrides_of(parser, rest))
    file = options.config.partition(":")[0]
    check_reach(file, config, options.workdir)
    if config.log.wandb is not None:
        wandb_key()  # a run without one is told of first
    return file, config.log.wandb is not None


def _status(options: argparse.Namespace, where: Slice, runner: Runner) -> None:
    where, sighting = find(where, runner)
    print(f"{where.name} is {sighting.word}" + (f": {sighting.reason}" if sighting.reason else ""))
    found = []
    if sighting.condition == "ready":
        found = workers(runner.run(commands.ssh(where, commands.state())).out)
        for worker in found:
            print(f"  {worker.host:40} {worker.state}")
    write_json(options.json, {"slice": sighting.word, "workers": {one.host: one.state for one in found}})


def _logs(options: argparse.Namespace, where: Slice, runner: Runner) -> None:
    if not re.fullmatch(r"\d+", options.worker):
        raise UserError(f"--worker {options.worker}: workers count from 0")
    where = _ready(where, runner)
    code = runner.show(commands.ssh(where, commands.follow(options.lines), worker=options.worker))
    if code:
        raise UserError(f"the log of worker {options.worker} ended with gcloud's exit code {code}")


def _stop(where: Slice, runner: Runner) -> None:
    where = _ready(where, runner)
    result = runner.run(commands.ssh(where, commands.stop()))
    if result.code:
        raise result.explained(f"cannot stop the training on {where.name}")
    print(f"training on {where.name} is stopped; the slice is still there and costs")


def _ready(where: Slice, runner: Runner) -> Slice:
    """The slice of that name, with its number of nodes. Raises UserError where it is not ready."""
    where, sighting = find(where, runner)
    if sighting.condition != "ready":
        raise UserError(f"{where.name} is {sighting.word}; nothing trains on it")
    return where


def _delete(options: argparse.Namespace, where: Slice, runner: Runner) -> None:
    where, sighting = find(where, runner)
    if not options.yes:
        try:
            typed = input(f"{where.name} is {sighting.word}. Type its name to delete it: ").strip()
        except EOFError as error:
            raise UserError("nobody is there to type the name; --yes deletes without asking") from error
        if typed != where.name:
            raise UserError(f"'{typed}' is not {where.name}; nothing is deleted")
    result = runner.run(commands.delete(where))
    if result.code:
        raise result.explained(f"cannot delete {where.name}")
    print(f"{where.name} is deleted")
