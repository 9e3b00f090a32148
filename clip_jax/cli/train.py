"""`clip-jax train`: a training run from a config file and overrides."""

from collections.abc import Sequence

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.config_arguments import joined, overrides_of
from clip_jax.cli.process_arguments import add_process_arguments


def run(arguments: Sequence[str]) -> None:
    """Trains, or resumes what the workdir holds, and prints the last figures. Exits with 75 where it was stopped."""
    parser = Parser(
        "train",
        "Train a model, or resume what the workdir holds: the same command goes on where a run was stopped.\n"
        "SIGTERM, or Ctrl-C, lets the running step end and saves it; the exit code is then 75, by which a scheduler\n"
        "knows to queue the run again. A second signal ends it at once, and it goes on from its last checkpoint.\n"
        "--config.KEY=VALUE overrides any key of the config, as in --config.optimizer.learning_rate=3e-4.",
        "clip-jax train --config=configs/scenes.py --workdir=runs/scenes --config.seed=1",
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="a Python file whose get_config(ARG) returns the config"
    )
    parser.add_argument("--workdir", required=True, help="the folder of the run, or gs://BUCKET/FOLDER")
    add_process_arguments(
        parser,
        "Each runs this command with the same config and a workdir that all see. The hosts of a TPU pod find each "
        "other, by GKE's variables or the metadata server; elsewhere, and on one host, give all three:",
    )
    options, rest = parser.parse_known_args(joined(arguments))
    overrides = overrides_of(parser, rest)

    from clip_jax.processes import is_first
    from clip_jax.training.config_file import load_config
    from clip_jax.training.distributed import initialise, together
    from clip_jax.training.loop import train
    from clip_jax.training.metrics import read_metrics
    from clip_jax.training.preemption import Stopped
    from clip_jax.training.workdir import as_workdir

    workdir = as_workdir(options.workdir)
    config = load_config(options.config, overrides)
    initialise(options.coordinator, options.processes, options.process)
    stopped = None
    with together():
        try:
            train(config, workdir)
        except Stopped as reason:  # as all processes were, which part as they do at the end
            stopped = reason
    if stopped:
        raise stopped
    if not is_first():
        return
    last: dict = {"step": config.steps}
    for line in read_metrics(workdir):
        last |= line
    print(f"trained to step {config.steps} in {workdir}")
    for name, value in last.items():
        if name == "loss" or name.startswith("eval/"):
            print(f"  {name:40} {value:.4f}")
    write_json(options.json, last)
