"""`clip-jax launch`: a training run on a Cloud TPU slice, from nothing to nothing left."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from clip_jax.cli.arguments import Parser, StrictParser, write_json
from clip_jax.cli.config_arguments import joined, overrides_of
from clip_jax.errors import UserError
from clip_jax.tpu import launch_commands as commands
from clip_jax.tpu.launch_commands import Request, Slice
from clip_jax.tpu.launch_runner import Runner, Shell

ACTIONS = ("run", "status", "logs", "stop", "delete")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")  # 63 at most, with what Google appends
ZONE = re.compile(r"[a-z]+(-[a-z]+)+\d+-[a-z0-9]+")
PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
ARCHIVES = Path("~/.cache/clip-jax")


def run(arguments: Sequence[str], runner: Runner | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Does one of the actions; `run` exits with 1 where training did not come to its end, 2 for a user's mistake."""
    arguments = list(arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:at])
    training = tuple(arguments[at + 1 :])
    where = _slice(options)
    runner = runner or Shell()
    if options.action != "run" and training:
        raise UserError(f"{options.action} takes no command after --; run does")
    if options.action == "run":
        _run(options, where, training, runner, sleep)
    elif options.action == "delete":
        _delete(options, where, runner)
    else:
        _look_or_stop(options, where, runner)


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
        "--attempts", type=int, default=3, metavar="N", help="crashes in a row before giving up (default: 3)"
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


def _slice(options: argparse.Namespace) -> Slice:
    if not NAME.fullmatch(options.name):
        raise UserError(
            f"--name {options.name}: a slice's name is of a-z, 0-9 and -, begins with a letter, does not end with - "
            "and has 50 characters at most, as in my-run"
        )
    if not ZONE.fullmatch(options.zone):
        raise UserError(f"--zone {options.zone} is no zone; us-west4-a is one, of the region us-west4")
    if options.project and not PROJECT.fullmatch(options.project):
        raise UserError(
            f"--project {options.project} is no project's ID (6 to 30 of a-z, 0-9 and -); gcloud projects list"
        )
    if options.slices < 1:
        raise UserError(f"--slices {options.slices}: there is at least one slice")
    queued = options.queued or options.slices > 1
    return Slice(options.name, options.zone, options.project, queued=queued, nodes=options.slices)


def _run(
    options: argparse.Namespace,
    where: Slice,
    training: tuple[str, ...],
    runner: Runner,
    sleep: Callable[[float], None],
) -> None:
    from clip_jax.tpu.launch import Launcher, steps
    from clip_jax.tpu.launch_prices import cost
    from clip_jax.tpu.launch_types import generation
    from clip_jax.tpu.topology import parse_topology

    if not options.topology:
        raise UserError("run needs --topology, as in --topology v5e:16x16; clip-jax plan tells what a config needs")
    if options.attempts < 1:
        raise UserError(f"--attempts {options.attempts}: there is at least one attempt")
    topology = parse_topology(options.topology, where.nodes)
    request = Request(where, topology, options.spot, options.image, options.service_account)
    commands.create(request)  # a shape that Google does not have is told of first
    config = _check_training(training)
    if not Path("setup.py").is_file() or not Path("experiments/tpu/worker.sh").is_file():
        raise UserError(f"launch packs the source tree: run it in the repository's folder, not in {Path.cwd()}")
    archive = ARCHIVES.expanduser() / f"{where.name}.tar.gz"
    estimate = cost(topology, where.zone, options.spot)
    said = f"{topology} as {where.name} in {where.zone}: {estimate.sentence}"
    if generation(topology) == "tpu7x":
        said += "\n# Google documents TPU7x for GKE and Compute Engine; the Cloud TPU API has it for some projects only"
    if options.dry_run:
        print(f"# {said}")
        listed = steps(request, training, str(archive))
        listed = listed[:-1] if options.keep else listed
        for words, command in listed:
            print((f"\n# {words}\n" if words else "") + commands.shown(command))
        write_json(options.json, {"dollars_an_hour": estimate.hour, "commands": [list(c) for _, c in listed]})
        return
    if runner.run(commands.is_tracked(config)).code:
        raise UserError(f"git does not track {config} here, so it would not reach the workers; git add {config}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {archive.parent}: {error.strerror}") from error
    print(said, flush=True)
    launcher = Launcher(
        request, training, str(archive), options.attempts, runner, sleep, time.monotonic, lambda s: print(s, flush=True)
    )
    again = f"clip-jax launch {{}} --name {where.name} --zone {where.zone}" + (
        f" --project {where.project}" if where.project else ""
    )
    try:
        report = launcher.supervise()
    except KeyboardInterrupt:
        print(
            f"\ndetached: what runs on {where.name} goes on and costs, but nobody begins again after a preemption.\n"
            f"The same command comes back to it; {again.format('delete')} ends it.",
            file=sys.stderr,
        )
        sys.exit(130)
    write_json(options.json, {"name": where.name, "dollars_an_hour": estimate.hour, **asdict(report)})
    times = f"{report.preemptions} preemptions, {report.crashes} crashes on the way"
    if report.outcome == "done" and not options.keep:
        print(f"training is done ({times})", flush=True)
        launcher.remove()
        print(f"{where.name} is deleted")
        return
    words = {
        "done": "training is done",
        "mistake": "training stopped at a mistake, which only you can mend",
        "crashed": "training crashed again and again",
        "stopped": "training was stopped",
        "unreachable": f"{where.name} does not answer; training may go on there",
    }
    an_hour = "" if estimate.hour is None else f", about ${estimate.hour:,.2f} an hour"
    print(f"{words[report.outcome]} ({times}). {where.name} is still there and costs{an_hour}.")
    print(f"The same command begins again on it; {again.format('delete')} ends it.")
    if report.outcome != "done":
        sys.exit(2 if report.outcome == "mistake" else 1)


def _check_training(training: tuple[str, ...]) -> str:
    """The config's file, after a look at the command that saves an hour of a slice. Raises UserError."""
    if not training or training[0] != "train":
        raise UserError(
            "after -- comes the training command, as in -- train --config=configs/openai_vit_b32.py "
            "--workdir=gs://bucket/run"
        )
    from clip_jax.training.config_file import load_config

    parser = StrictParser(prog="clip-jax train", allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True)
    options, rest = parser.parse_known_args(joined(training[1:]))
    load_config(options.config, overrides_of(parser, rest))
    path = options.config.partition(":")[0]
    if Path(path).is_absolute():
        raise UserError(f"--config {path}: give the path within the repository, where the workers have it too")
    if not options.workdir.startswith(("gs://", "/")):
        raise UserError(
            f"--workdir {options.workdir} would lie on a worker's own disk, and go with it; "
            "gs://BUCKET/RUN stays, in the region of the slice"
        )
    return path


def _look_or_stop(options: argparse.Namespace, where: Slice, runner: Runner) -> None:
    from clip_jax.tpu.launch_state import find, workers

    where, sighting = find(where, runner)
    if sighting.condition in ("absent", "unknown"):
        raise UserError(sighting.reason or f"there is no slice {where.name} in {where.zone}")
    if options.action == "status":
        print(f"{where.name} is {sighting.word}" + (f": {sighting.reason}" if sighting.reason else ""))
        found = []
        if sighting.condition == "ready":
            found = workers(runner.run(commands.ssh(where, commands.state())).out)
            for worker in found:
                print(f"  {worker.host:40} {worker.state}")
        write_json(options.json, {"slice": sighting.word, "workers": {one.host: one.state for one in found}})
    elif sighting.condition != "ready":
        raise UserError(f"{where.name} is {sighting.word}; there is nothing to {options.action} on it")
    elif options.action == "logs":
        if not re.fullmatch(r"\d+", options.worker):
            raise UserError(f"--worker {options.worker}: workers count from 0")
        code = runner.show(commands.ssh(where, commands.follow(options.lines), worker=options.worker))
        if code:
            raise UserError(f"the log of worker {options.worker} ended with gcloud's exit code {code}")
    else:
        result = runner.run(commands.ssh(where, commands.stop()))
        if result.code:
            raise result.explained(f"cannot stop the training on {where.name}")
        print(f"training on {where.name} is stopped; the slice is still there and costs")


def _delete(options: argparse.Namespace, where: Slice, runner: Runner) -> None:
    from clip_jax.tpu.launch_state import find

    where, sighting = find(where, runner)
    if sighting.condition in ("absent", "unknown"):
        raise UserError(sighting.reason or f"there is no slice {where.name} in {where.zone}")
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
