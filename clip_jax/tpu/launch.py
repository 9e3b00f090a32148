"""The supervising loop of `clip-jax launch`: a slice, the training on it, and both again until the training is done."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from clip_jax.errors import UserError
from clip_jax.tpu import launch_commands as commands
from clip_jax.tpu.launch_commands import Request
from clip_jax.tpu.launch_runner import Result, Runner
from clip_jax.tpu.launch_state import Condition, Sighting, look, verdict, workers

LOOK_SECONDS = 30  # between two looks at a slice that is not ready
WATCH_SECONDS = 10  # between two looks at the log
PATIENCE = 20  # looks in a row that gcloud or a worker leaves unanswered
LONGEST_WAIT = 16 * 60  # between two attempts
LASTING = 3600  # a training of so many seconds was no crash at the start: crashes are counted anew
LAST_LINES = 30

Outcome: TypeAlias = Literal["done", "mistake", "crashed", "stopped", "unreachable"]


@dataclass(frozen=True)
class Report:
    """How a launch ended, and how often the slice was taken away and the training crashed on the way."""

    outcome: Outcome
    preemptions: int
    crashes: int


@dataclass(frozen=True)
class Launcher:
    """Trains on a slice: `training` is what follows `clip-jax`, as ('train', '--config=...').

    Commands run through `runner`; `sleep` takes seconds, `now` gives them, `say` gets lines for the user. `attempts` is
    how often a training that crashes is begun.
    """

    request: Request
    training: tuple[str, ...]
    archive: str
    attempts: int
    runner: Runner
    sleep: Callable[[float], None]
    now: Callable[[], float]
    say: Callable[[str], None]

    @property
    def name(self) -> str:
        return self.request.slice.name

    def supervise(self) -> Report:
        """Goes on until the training is done, or until waiting does not help. Raises UserError where nothing began.

        The source tree is packed once, so that the run stays the same one when it begins again.
        """
        packed = self.runner.run(commands.pack(self.archive))
        if packed.code:
            raise packed.explained("cannot pack the source tree")
        preemptions = crashes = in_a_row = 0
        goes_on = self._acquire(again=False)
        while True:
            began = self.now()
            ending = self._attend(goes_on)
            goes_on = False
            if ending == "lost":
                preemptions += 1
                self.say(f"{self.name} was taken away ({preemptions} so far); asking for it again")
            elif ending == "requeue":
                self.say("training was told to stop and saved a checkpoint; going on from it")
                self.sleep(LOOK_SECONDS)
            elif ending == "crashed":
                crashes += 1
                in_a_row = 1 if self.now() - began > LASTING else in_a_row + 1
                self._show_last()
                if in_a_row >= self.attempts:
                    self.say(f"training crashed {in_a_row} times in a row; that was the last attempt")
                    return Report("crashed", preemptions, crashes)
                wait = _wait(in_a_row)
                self.say(f"training crashed, {in_a_row} of {self.attempts} attempts; again in {wait / 60:g} min")
                self.sleep(wait)
            else:
                if ending == "mistake":
                    self._show_last()
                return Report(ending, preemptions, crashes)
            self._acquire(again=True)

    def remove(self) -> None:
        """Deletes the slice, which costs for as long as it is there. Raises UserError where gcloud does not do it."""
        for left in reversed(range(PATIENCE)):
            result = self.runner.run(commands.delete(self.request.slice))
            if result.code == 0 or result.cause == "not found":
                return
            failure = result.explained(f"cannot delete {self.name}, which goes on to cost")
            if result.cause is not None or left == 0:
                raise failure
            self.say(f"{failure}; trying again")
            self.sleep(LOOK_SECONDS)

    def _acquire(self, again: bool) -> bool:
        """Waits until the slice is ready; whether it was there before. What is lost is deleted and asked for again.

        The first time there is somebody to read what went wrong; `again`, the run must go on and waits for capacity.
        """
        created = False
        tries = unanswered = 0
        word = ""
        while True:
            sighting = self._look()
            unanswered = unanswered + 1 if sighting.condition == "unknown" else 0
            if unanswered > (PATIENCE if again or created or word else 0):
                raise UserError(f"gcloud does not say how {self.name} is: {sighting.reason}")
            if sighting.condition == "ready":
                return not created
            if sighting.word not in ("", word):
                word = sighting.word
                self.say(f"{self.name} is {word}")
            if sighting.condition == "failed" and not again:
                raise UserError(f"Google refused {self.name}: {sighting.reason or 'no reason given'}")
            if sighting.condition in ("lost", "failed"):
                self.remove()
            if sighting.condition == "absent":
                result = self.runner.run(commands.create(self.request))
                created = created or not result.code
                if result.code and (not again or result.cause not in (None, "capacity")):
                    raise result.explained(f"cannot create {self.name}")
                if result.code:
                    tries += 1
                    self.say(str(result.explained(f"not yet; again in {_wait(tries) / 60:g} min")))
                    self.sleep(_wait(tries))
                continue
            self.sleep(LOOK_SECONDS)

    def _attend(self, goes_on: bool) -> Literal["lost", "requeue"] | Outcome:
        """Starts the training, or finds the one that runs, and follows it to its end."""
        if goes_on and self._runs_already():
            self.say(f"{self.name} is at work on it already; following")
        else:
            failure = self._start()
            if failure is not None:
                return "lost" if self._is_lost() else self._say_failure(failure)
        if not self._follow():
            return "lost" if self._is_lost() else "unreachable"
        ending = self._verdict()
        if ending in ("done", "stopped"):
            return ending
        # A slice that is taken away ends its workers in many ways, and Google says so a little later.
        self.sleep(LOOK_SECONDS)
        return "lost" if self._is_lost() else ending

    def _start(self) -> Result | None:
        """Copies, installs and starts; the failure where there is one."""
        where = self.request.slice
        for words, command in (
            ("copying the source tree to all workers", commands.copy(where, self.archive)),
            ("installing it on all workers, minutes the first time", commands.ssh(where, commands.install())),
            ("starting the training", commands.ssh(where, commands.start(self.training))),
        ):
            self.say(words)
            result = self.runner.run(command)
            if result.code:
                return result
        return None

    def _runs_already(self) -> bool:
        """Whether this very training is active. Raises UserError where another one is."""
        found = workers(self.runner.run(commands.ssh(self.request.slice, commands.state())).out)
        active = {worker.run for worker in found if worker.state == "active"}
        if active - {run_of(self.training)}:
            raise UserError(f"{self.name} is at work on something else; clip-jax launch stop ends that")
        return bool(active)

    def _follow(self) -> bool:
        """Says what worker 0 logs until it ends; False where it can no longer be reached."""
        offset, unanswered = -1, 0
        while True:
            result = self.runner.run(commands.ssh(self.request.slice, commands.watch(offset), worker="0"))
            match = re.search(r"^state (\S+) (\d+)\n", result.out, re.MULTILINE)
            if result.code == 0 and match:
                unanswered, offset = 0, int(match[2])
                if text := result.out[match.end() :].rstrip("\n"):
                    self.say(text)
                if match[1] != "active":
                    return True
                self.sleep(WATCH_SECONDS)
                continue
            if unanswered == 0:
                self.say("worker 0 does not answer; training goes on without us, trying again")
            unanswered += 1
            if unanswered > PATIENCE or self._is_lost():
                return False
            self.sleep(LOOK_SECONDS)

    def _verdict(self) -> Literal["done", "requeue", "mistake", "crashed", "stopped"]:
        """How all workers ended; the others of a crash end within half a minute. Only answers of all of them count."""
        states: list[str] = []
        for _ in range(PATIENCE):
            result = self.runner.run(commands.ssh(self.request.slice, commands.state()))
            if result.code == 0:
                states = [worker.state for worker in workers(result.out)]
                if states and "active" not in states:
                    break
            elif self._is_lost():
                return "crashed"
            self.sleep(WATCH_SECONDS)
        return verdict(states)

    def _show_last(self) -> None:
        text = self.runner.run(commands.ssh(self.request.slice, commands.last(LAST_LINES))).out.rstrip()
        if text:
            self.say(f"the last lines of the workers that failed:\n{text}")

    def _say_failure(self, failure: Result) -> Literal["crashed"]:
        self.say(str(failure.explained("that failed")))
        return "crashed"

    def _look(self) -> Sighting:
        return look(self.request.slice, self.runner)[1]

    def _is_lost(self) -> bool:
        gone: tuple[Condition, ...] = ("lost", "absent", "failed")
        sighting = self._look()
        return sighting.condition in gone or sighting.word in ("SUSPENDING", "STOPPING", "DELETING")


def run_of(training: tuple[str, ...]) -> str:
    """What `worker.sh state` calls a training: the beginning of its command's SHA-256."""
    return hashlib.sha256(" ".join(training).encode()).hexdigest()[:12]


def steps(request: Request, training: tuple[str, ...], archive: str) -> list[tuple[str, list[str]]]:
    """What a launch runs where nothing goes wrong, in order, each with a word on what it is for."""
    where = request.slice
    return [
        ("the source tree", commands.pack(archive)),
        ("is there such a slice already?", commands.describe(where)),
        ("the slice", commands.create(request)),
        (f"every {LOOK_SECONDS} seconds until it is READY or ACTIVE", commands.describe(where)),
        ("the source tree on every worker", commands.copy(where, archive)),
        ("", commands.ssh(where, commands.install())),
        ("the training", commands.ssh(where, commands.start(training))),
        (f"its log and state, every {WATCH_SECONDS} seconds", commands.ssh(where, commands.watch(-1), worker="0")),
        ("how it ended, on every worker", commands.ssh(where, commands.state())),
        ("when it is done", commands.delete(where)),
    ]


def _wait(tries: int) -> float:
    """Seconds before another attempt: 1, 2, 4, ... minutes."""
    return float(min(60 * 2 ** (tries - 1), LONGEST_WAIT))
