"""A training on the workers of a slice: started or found there, followed, and told how it ended."""

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from clip_jax.errors import UserError
from clip_jax.tpu.launch import commands
from clip_jax.tpu.launch.held_slice import LOOK_SECONDS, PATIENCE, HeldSlice
from clip_jax.tpu.launch.job import Job
from clip_jax.tpu.launch.runner import Result, Runner
from clip_jax.tpu.launch.state import Ending, verdict, workers

WATCH_SECONDS = 10  # between two looks at the log
LAST_LINES = 30
GOES_ON = re.compile(r"is at step (\d+) of")  # what `train` says where it goes on from a checkpoint

Attempt: TypeAlias = Ending | Literal["lost", "unreachable"]


class RemoteTraining:
    """The training of a job on a slice; `sleep` takes seconds, `say` gets lines for the user."""

    def __init__(
        self, job: Job, held: HeldSlice, runner: Runner, sleep: Callable[[float], None], say: Callable[[str], None]
    ) -> None:
        self.reached = 0
        """The step of the newest checkpoint that an attempt began from, as far as the log was seen."""
        self._job, self._held, self._runner, self._sleep, self._say = job, held, runner, sleep, say
        self._slice = held.request.slice

    def attend(self, goes_on: bool) -> Attempt:
        """Starts the training, or where it may go on already finds the one that runs, and follows it to its end."""
        runs = self._runs_already() if goes_on else False
        if runs is None:
            return "lost"
        if runs:
            self._say(f"{self._held.name} is at work on it already; following")
        else:
            failure = self._start()
            if failure is not None:
                self._say(str(failure.explained("that failed")))
                return "lost" if self._held.is_lost() else "crashed"
        if not self._follow():
            return "lost" if self._held.is_lost() else "unreachable"
        ending = self._ending()
        if ending in ("done", "stopped"):
            return ending
        # A slice that is taken away ends its workers in many ways, and Google says so a little later.
        self._sleep(LOOK_SECONDS)
        return "lost" if self._held.is_lost() else ending

    def show_last(self) -> None:
        """Says the last lines of each log that ended in a failure."""
        text = self._runner.run(commands.ssh(self._slice, commands.last(LAST_LINES))).out.rstrip()
        if text:
            self._say(f"the last lines of the workers that failed:\n{text}")

    def _runs_already(self) -> bool | None:
        """Whether this very training is active; None where the slice is lost meanwhile.

        Raises UserError where another one is active, and where not all workers say: to start one ends what runs.
        """
        result = Result(0)
        for _ in range(PATIENCE):
            result = self._runner.run(commands.ssh(self._slice, commands.state()))
            if result.code == 0:
                break
            if self._held.is_lost():
                return None
            self._sleep(LOOK_SECONDS)
        else:
            raise result.explained(f"{self._held.name} does not answer, so training may or may not run on it")
        active = {worker.run for worker in workers(result.out) if worker.state == "active"}
        if active - {self._job.run}:
            raise UserError(f"{self._held.name} is at work on something else; clip-jax launch stop ends that")
        return bool(active)

    def _start(self) -> Result | None:
        """Copies, installs and starts; the failure where there is one."""
        job, where = self._job, self._slice
        for words, command in (
            ("copying the source tree to all workers", commands.copy(where, job.files)),
            ("installing it on all workers, minutes the first time", commands.ssh(where, commands.install(job.extras))),
            ("starting the training", commands.ssh(where, commands.start(job.training))),
        ):
            self._say(words)
            result = self._runner.run(command)
            if result.code:
                return result
        return None

    def _follow(self) -> bool:
        """Says what worker 0 logs until it ends; False where it can no longer be reached."""
        offset, unanswered = -1, 0
        while True:
            result = self._runner.run(commands.ssh(self._slice, commands.watch(offset), worker="0"))
            match = re.search(r"^state (\S+) (\d+)\n", result.out, re.MULTILINE)
            if result.code == 0 and match:
                unanswered, offset = 0, int(match[2])
                if text := result.out[match.end() :].rstrip("\n"):
                    self._say(text)
                    self.reached = max(self.reached, *map(int, GOES_ON.findall(text)), 0)
                if match[1] != "active":
                    return True
                self._sleep(WATCH_SECONDS)
                continue
            if unanswered == 0:
                self._say("worker 0 does not answer; training goes on without us, trying again")
            unanswered += 1
            if unanswered > PATIENCE or self._held.is_lost():
                return False
            self._sleep(LOOK_SECONDS)

    def _ending(self) -> Ending:
        """How all workers ended; the others of a crash end within minutes. Only answers of all of them count."""
        states: list[str] = []
        for _ in range(PATIENCE):
            result = self._runner.run(commands.ssh(self._slice, commands.state()))
            if result.code == 0:
                states = [worker.state for worker in workers(result.out)]
                if states and "active" not in states:
                    break
            elif self._held.is_lost():
                return "crashed"
            self._sleep(WATCH_SECONDS)
        return verdict(states)
