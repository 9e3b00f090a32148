"""A slice for as long as a launch needs it: asked for, waited for, asked for again when it is lost, and deleted."""

from collections.abc import Callable

from clip_jax.errors import UserError
from clip_jax.tpu.launch import commands
from clip_jax.tpu.launch.request import Request
from clip_jax.tpu.launch.runner import Runner, cause_of
from clip_jax.tpu.launch.state import Condition, Sighting, look

LOOK_SECONDS = 30  # between two looks at a slice that is not ready
PATIENCE = 20  # looks in a row that gcloud or a worker leaves unanswered
LONGEST_WAIT = 16 * 60  # between two attempts


class HeldSlice:
    """The slice of a request. `sleep` takes seconds, `say` gets lines for the user.

    `attempts` is how often a slice that was lost is asked for again where Google refuses it outright.
    """

    def __init__(
        self,
        request: Request,
        attempts: int,
        runner: Runner,
        sleep: Callable[[float], None],
        say: Callable[[str], None],
    ) -> None:
        self.request, self.name = request, request.slice.name
        self.there = False
        """Whether the slice may be there, and cost."""
        self._was_there = False
        self._attempts, self._runner, self._sleep, self._say = attempts, runner, sleep, say

    def look(self) -> Sighting:
        """How the slice is. Raises UserError for one that is not ours, and for what waiting does not mend.

        Once there was a slice, nothing is beyond waiting: a login that has run out can be renewed meanwhile.
        """
        try:
            sighting = look(self.request.slice, self._runner)[1]
        except UserError as error:
            if not self._was_there:
                raise
            return Sighting("unknown", reason=str(error))
        if sighting.condition == "absent":
            self.there = False
        elif sighting.condition != "unknown":
            if sighting.label != self.request.label:
                made = f"clip-jax launch made it as {sighting.label}" if sighting.label else "launch did not make it"
                raise UserError(
                    f"{self.name} is there already, and {made}, not as {self.request.label}; choose another --name"
                )
            self.there = self._was_there = True
        return sighting

    def is_lost(self) -> bool:
        """Whether the slice is gone, or about to be."""
        gone: tuple[Condition, ...] = ("lost", "absent", "failed")
        sighting = self.look()
        return sighting.condition in gone or sighting.word in ("SUSPENDING", "STOPPING", "DELETING")

    def acquire(self, again: bool) -> bool:
        """Waits until the slice is ready; whether it was there before. What is lost is deleted and asked for again.

        The first time there is somebody to read what went wrong; `again`, the run must go on and waits for capacity.
        Raises UserError where waiting does not help.
        """
        created = False
        tries = refusals = unanswered = 0
        word = ""
        while True:
            sighting = self.look()
            unanswered = unanswered + 1 if sighting.condition == "unknown" else 0
            if unanswered > (PATIENCE if again or created or word else 0):
                raise UserError(f"gcloud does not say how {self.name} is: {sighting.reason}")
            if sighting.condition == "ready":
                return not created
            if sighting.word not in ("", word):
                word = sighting.word
                self._say(f"{self.name} is {word}")
            failure = None
            if sighting.condition == "absent":
                failure = self._create(again, created)
                if failure is None and not created:
                    created = True
                    continue
            elif sighting.condition == "failed":
                failure = UserError(f"Google refused {self.name}: {sighting.reason or 'no reason given'}")
                refusals += cause_of(sighting.reason) != "capacity"
                if not again or refusals >= self._attempts:
                    raise failure
                self.remove()
            elif sighting.condition == "lost":
                self.remove()
            if failure is not None:
                tries += 1
                self._say(f"not yet: {failure}; again in {wait(tries) / 60:g} min")
            self._sleep(LOOK_SECONDS if failure is None else wait(tries))

    def remove(self) -> None:
        """Deletes the slice, which costs for as long as it is there. Raises UserError where gcloud does not do it."""
        for left in reversed(range(PATIENCE)):
            result = self._runner.run(commands.delete(self.request.slice))
            if result.code == 0 or result.cause == "not found":
                self.there = False
                return
            failure = result.explained(f"cannot delete {self.name}, which goes on to cost")
            if result.cause is not None or left == 0:
                raise failure
            self._say(f"{failure}; trying again")
            self._sleep(LOOK_SECONDS)

    def _create(self, again: bool, created: bool) -> UserError | None:
        """Asks for the slice. The failure where capacity may come, or where gcloud failed and nothing is there."""
        self.there = self._was_there = True  # from here on, even where this is interrupted
        result = self._runner.run(commands.create(self.request))
        if result.code == 0 or (created and result.cause == "exists"):
            return None
        failure = result.explained(f"cannot create {self.name}")
        if result.cause is None:  # gcloud itself may have failed, having asked
            condition = self.look().condition
            if condition not in ("absent", "unknown"):
                self._say(f"{failure}; but it is there")
                return None
        else:
            self.there = False
        if not again or result.cause not in (None, "capacity"):
            raise failure
        return failure


def wait(tries: int) -> float:
    """Seconds before another attempt: 1, 2, 4, ... minutes."""
    return float(min(60 * 2 ** (tries - 1), LONGEST_WAIT))
