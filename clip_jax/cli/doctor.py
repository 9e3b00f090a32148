"""`clip-jax doctor`: is this host, or this pod, ready for a run."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.config_arguments import joined, overrides_of
from clip_jax.cli.process_arguments import add_process_arguments
from clip_jax.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Looks the machine over and prints a table; exits with 1 where a check failed."""
    parser = Parser(
        "doctor",
        "Look a host or a pod over before a run: packages, devices, hosts, disk, workdir, config, data and its speed,\n"
        "and two updates of the real train step on made-up images. Each check is ok, warning, failed or skipped, with\n"
        "what was seen and what to do. Exit code 1 where a check failed. Without --config it checks what needs none.\n"
        "Nothing but indexes of data is left behind. --config.KEY=VALUE overrides any key of the config.",
        "clip-jax doctor --config=configs/scenes.py --workdir=runs/scenes",
    )
    parser.add_argument("--config", metavar="FILE[:ARG]", help="the config that train would be given")
    parser.add_argument("--workdir", metavar="DIR", help="the folder or gs://BUCKET/FOLDER that train would be given")
    parser.add_argument(
        "--no-step", action="store_true", help="leave out the train step, which may compile for minutes"
    )
    add_process_arguments(parser, "As for train; each of them runs this command.")
    options, rest = parser.parse_known_args(joined(arguments))
    overrides = overrides_of(parser, rest)
    if options.config is None and overrides:
        raise UserError(f"--config.{overrides[0][0]} overrides a config; give --config=FILE too")
    if options.config is not None and options.workdir is None:
        raise UserError("with --config, give the --workdir that train would be given")
    if options.config is not None and not Path(options.config.partition(":")[0]).is_file():
        raise UserError(f"there is no config file {options.config.partition(':')[0]}; configs/scenes.py is one")

    import jax

    from clip_jax.processes import is_first
    from clip_jax.tpu.doctor.checks import Request, examinations
    from clip_jax.tpu.doctor.examination import Check, examine
    from clip_jax.tpu.doctor.text import progress_line, report_text
    from clip_jax.training.distributed import check_given, has_tpu, together

    given = (options.coordinator, options.processes, options.process)
    check_given(*given)
    request = Request(options.config, overrides, options.workdir, *given, not options.no_step, has_tpu())

    def say(check: Check) -> None:
        if not options.process:
            print(progress_line(check), file=sys.stderr, flush=True)

    with together():
        report = examine(examinations(request), say)
        if not report.joined or is_first():  # who has not met the others tells of itself
            print(report_text(report, shutil.get_terminal_size().columns))
            write_json(options.json, report.to_dict())
        if report.hangs or (jax.distributed.is_initialized() and not report.joined):
            # A thread that waits for a device or for another host would keep this process from its end.
            sys.stdout.flush()
            os._exit(1)
    if report.failed:
        sys.exit(1)
