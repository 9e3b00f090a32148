"""The loop of `clip-jax launch`: a slice, the training on it, and both again until the training is done."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from clip_jax.tpu.launch import commands
from clip_jax.tpu.launch.held_slice import LOOK_SECONDS, HeldSlice, wait
from clip_jax.tpu.launch.job import Job
from clip_jax.tpu.launch.remote_training import WATCH_SECONDS, RemoteTraining
from clip_jax.tpu.launch.request import Request
from clip_jax.tpu.launch.runner import Runner

Outcome: TypeAlias = Literal["done", "mistake", "crashed", "stopped", "unreachable"]


@dataclass(frozen=True)
class Report:
    """How a launch ended, and how often the slice was taken away and the training crashed on the way."""

    outcome: Outcome
    preemptions: int
    crashes: int


def supervise(
    job: Job,
    held: HeldSlice,
    attempts: int,
    runner: Runner,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> Report:
    """Goes on until the training is done, or until waiting does not help; raises UserError where the slice fails.

    `attempts` is how often in a row a training is begun that comes to no newer checkpoint. The source tree is packed
    once, so that the run stays the same one when it begins again.
    """
    packed = runner.run(commands.pack(job.folder))
    if packed.code:
        raise packed.explained("cannot pack the source tree")
    training = RemoteTraining(job, held, runner, sleep, say)
    preemptions = crashes = fruitless = reached = 0
    goes_on = held.acquire(again=False)
    while True:
        ending = training.attend(goes_on)
        goes_on = False
        if ending == "lost":
            preemptions += 1
            say(f"{held.name} was taken away ({preemptions} so far); asking for it again")
        elif ending in ("crashed", "requeue"):
            if ending == "crashed":
                crashes += 1
                training.show_last()
            fruitless = 1 if training.reached > reached else fruitless + 1
            reached = training.reached
            said = "training crashed" if ending == "crashed" else "training was told to stop and saved a checkpoint"
            if fruitless >= attempts:
                say(f"{said}, {fruitless} attempts in a row without a newer checkpoint; that was the last one")
                return Report("crashed", preemptions, crashes)
            pause = wait(fruitless) if ending == "crashed" else LOOK_SECONDS
            say(f"{said}, {fruitless} of {attempts} attempts; again in {pause / 60:g} min")
            sleep(pause)
        else:
            if ending == "mistake":
                training.show_last()
            return Report(ending, preemptions, crashes)
        held.acquire(again=True)


def steps(request: Request, job: Job) -> list[tuple[str, list[str]]]:
    """What a launch runs where nothing goes wrong, in order, each with a word on what it is for."""
    where = request.slice
    return [
        ("the source tree", commands.pack(job.folder)),
        ("is there such a slice already?", commands.describe(where)),
        ("the slice", commands.create(request)),
        (f"every {LOOK_SECONDS} seconds until it is READY or ACTIVE", commands.describe(where)),
        ("the source tree on every worker", commands.copy(where, job.files)),
        ("", commands.ssh(where, commands.install(job.extras))),
        ("the training", commands.ssh(where, commands.start(job.training))),
        (f"its log and state, every {WATCH_SECONDS} seconds", commands.ssh(where, commands.watch(-1), worker="0")),
        ("how it ended, on every worker", commands.ssh(where, commands.state())),
        ("when it is done", commands.delete(where)),
    ]
