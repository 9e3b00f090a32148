"""What `clip-jax launch` needs of this machine, asked before there is a slice that costs."""

from pathlib import Path

from clip_jax.errors import UserError
from clip_jax.tpu.launch import commands
from clip_jax.tpu.launch.job import Job, wandb_key
from clip_jax.tpu.launch.runner import Runner
from clip_jax.tpu.launch.slice_types import has_several_workers
from clip_jax.tpu.topology import Topology


def check_tree() -> None:
    """Raises UserError elsewhere than in the repository's folder, whose tree is packed."""
    if not Path("setup.py").is_file() or not Path("experiments/tpu/worker.sh").is_file():
        raise UserError(f"launch packs the source tree: run it in the repository's folder, not in {Path.cwd()}")


def check_tracked(config_file: str, runner: Runner) -> None:
    """Raises UserError where the config would not be packed."""
    if runner.run(commands.is_tracked(config_file)).code:
        raise UserError(f"git does not track {config_file} here, so it would not reach the workers; git add it")


def check_agent(topology: Topology, runner: Runner) -> None:
    """Raises UserError where gcloud would not connect: with an ssh-agent, it wants its key there for several workers.

    528.0.0: VerifyKeyInAgent in command_lib/compute/tpus/tpu_vm/ssh.py.
    """
    if not has_several_workers(topology):
        return
    agent = runner.run(commands.agent_keys())
    if agent.code:  # no agent, or none with keys: gcloud then goes without
        return
    key = runner.run(commands.fingerprint())
    if key.code or key.out.split()[1] not in agent.out:
        make = f"ssh-keygen -t rsa -f {commands.SSH_KEY} && " if key.code else ""
        raise UserError(
            "your ssh-agent has not got gcloud's key, without which gcloud does not connect to several workers; "
            f"{make}ssh-add {commands.SSH_KEY}"
        )


def make_folder(job: Job) -> None:
    """Makes the folder of what is copied, with the key of Weights & Biases where the job needs it. Raises UserError."""
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        if job.wandb:
            path = job.folder / commands.WANDB_KEY
            path.touch(mode=0o600)
            path.write_text(wandb_key())
    except OSError as error:
        raise UserError(f"cannot make the folder {job.folder}: {error.strerror}") from error
