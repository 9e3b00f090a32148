"""Looking a host or a pod over before a run: checks that depend on each other, none of which can stop the others.

Each check is a function that returns a Finding. `examine` runs them in order, gives each so many seconds, turns
whatever it raises into a finding, and leaves out those that need one that failed.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from clip_jax.errors import UserError

Status = Literal["ok", "skipped", "warning", "failed"]
STATUSES: tuple[Status, ...] = ("ok", "skipped", "warning", "failed")  # from the best to the worst
LONGEST = 1_000  # characters of what another process has seen
GRACE = 30  # seconds that processes may be apart
Gather = Callable[[str], list[str]]
"""Takes a text, and returns those of all processes in their order; all call it together."""
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """What a check saw, and what to do about it. `figures` go into JSON, `found` to the checks that need this one."""

    status: Status
    seen: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    found: Any = None


@dataclass(frozen=True)
class Check:
    """A finding with the name of its check and the seconds that it took."""

    name: str
    finding: Finding
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As --json has it; `seconds` is what the check took."""
        one = self.finding
        figures = {"figures": dict(one.figures)} if one.figures else {}
        head = {"name": self.name, "status": one.status, "seen": one.seen, "advice": one.advice}
        return head | {"seconds": round(self.seconds, 3)} | figures


@dataclass(frozen=True)
class Examination:
    """A check to come. `look` is given what the checks of `needs` and `wants` found.

    Without those that it needs it is skipped; of those that it wants, what failed is None. `if_late` is what to do
    where it takes longer than `seconds`. Where it `joins` the processes, it finds the Gather by which they tell each
    other of all checks.
    """

    name: str
    look: Callable[..., Finding]
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    seconds: int | float = 60
    if_late: str = "a disk or another machine that does not answer may be the cause"
    joins: bool = False


@dataclass(frozen=True)
class Report:
    """All checks. `hangs`: one has not come back, so that this process cannot end in the usual way.

    `joined`: the processes have told each other of their findings, so that one of them can tell the user of all.
    """

    checks: tuple[Check, ...]
    hangs: bool = False
    joined: bool = False

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(check.finding.status == "failed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """As --json has it."""
        return {"failed": self.failed, "checks": [check.to_dict() for check in self.checks]}


class Late(Exception):
    """A check has not come back in time; not TimeoutError, which a check itself may raise."""


def examine(examinations: Sequence[Examination], say: Callable[[Check], None]) -> Report:
    """Runs the checks one after the other; `say` is told of each.

    From the one that joins the processes on, the finding of a check is the worst of all of them, so that all go on
    alike. One that hangs then ends the examination, as the others wait for this process where they need it.
    """
    checks: dict[str, Check] = {}
    gather: Gather | None = None
    several = hangs = False
    for one in examinations:
        if hangs and several:
            checks[one.name] = Check(one.name, Finding("skipped", "an earlier check has not come back"))
            continue
        started = time.monotonic()
        finding, timed_out = _look(one, checks)
        if one.joins and finding.found is not None:
            gather, several = finding.found, True
            for name, before in list(checks.items()):
                checks[name] = replace(before, finding=_agree(before.finding, finding.found, GRACE)[0])
        elif gather is not None and not timed_out:
            finding, timed_out = _agree(finding, gather, one.seconds + GRACE)
        hangs = hangs or timed_out
        several = several or (one.joins and timed_out)
        checks[one.name] = Check(one.name, finding, time.monotonic() - started)
        say(checks[one.name])
    return Report(tuple(checks.values()), hangs, joined=gather is not None)


def within(seconds: int | float, action: Callable[[], T]) -> T:
    """What `action` returns or raises, in a thread of its own. Raises Late where it takes longer."""
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((action(), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise Late from None
    if error is not None:
        raise error
    return result  # pyright: ignore[reportReturnType]


def failure(error: BaseException) -> Finding:
    """An exception as a finding; of a UserError, what follows the semicolon is what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        seen, _, advice = text.partition("; ")
        return Finding("failed", seen, advice)
    return Finding("failed", f"{type(error).__name__}: {text}"[:LONGEST])


def agreed(finding: Finding, gather: Gather) -> Finding:
    """The worst of all processes' findings, the same on each of them but for figures and what was found."""
    told = [finding.status, finding.seen[:LONGEST], finding.advice[:LONGEST]]
    findings = [json.loads(text) for text in gather(json.dumps(told))]
    worst = max((status for status, _, _ in findings), key=STATUSES.index)
    those = [place for place, (status, _, _) in enumerate(findings) if status == worst]
    _, seen, advice = findings[those[0]]
    if worst != "ok" and len(those) < len(findings):
        others = f" and {len(those) - 1} more" if len(those) > 1 else ""
        seen = f"process {those[0]}{others}: {seen}"
    return replace(finding, status=worst, seen=seen, advice=advice)


def _look(one: Examination, checks: Mapping[str, Check]) -> tuple[Finding, bool]:
    """The finding, and whether the check has not come back."""
    for name in one.needs:
        status = checks[name].finding.status
        if status in ("failed", "skipped"):
            return Finding(
                "skipped", f"it needs '{name}', which {'failed' if status == 'failed' else 'was skipped'}"
            ), False
    given = [checks[name].finding.found if name in checks else None for name in (*one.needs, *one.wants)]
    try:
        return within(one.seconds, lambda: one.look(*given)), False
    except Late:
        return Finding("failed", f"it has not come to an end in {one.seconds:g} s", one.if_late), True
    except (Exception, SystemExit) as error:  # a config file may hold anything
        return failure(error), False


def _agree(finding: Finding, gather: Gather, seconds: int | float) -> tuple[Finding, bool]:
    try:
        return within(seconds, lambda: agreed(finding, gather)), False
    except Late:
        return Finding("failed", "another process does not answer any more", "look at what the others print"), True
    except Exception as error:
        return failure(error), True
