"""What there is of a slice and of the training on it, read from gcloud's and the workers' answers."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from clip_jax.errors import UserError
from clip_jax.tpu.launch.commands import LABEL, describe
from clip_jax.tpu.launch.request import Slice
from clip_jax.tpu.launch.runner import Runner

# The API's own states: cloud.google.com/tpu/docs/reference/rest/v2, of nodes and of queued resources.
READY = {"READY", "ACTIVE"}
LOST = {"PREEMPTED", "TERMINATED", "STOPPED", "SUSPENDED"}
# Exit codes of `clip-jax train`: stopped with a checkpoint saved; a disk or bucket that failed; a user's mistake.
REQUEUE, IO_ERROR, MISTAKE = "75", "74", "2"

Condition: TypeAlias = Literal["absent", "waiting", "ready", "lost", "failed", "unknown"]
Ending: TypeAlias = Literal["done", "requeue", "mistake", "crashed", "stopped"]


@dataclass(frozen=True)
class Sighting:
    """A slice as gcloud describes it: its condition, the API's word for that, why it failed, and launch's label."""

    condition: Condition
    word: str = ""
    reason: str = ""
    label: str = ""


@dataclass(frozen=True)
class Worker:
    """A worker's host, the state of its training (an exit code, active, absent or stopped), and which run it is."""

    host: str
    state: str
    run: str


def look(where: Slice, runner: Runner) -> tuple[Slice, Sighting]:
    """How a slice is, and the slice with the number of its nodes. Raises UserError for what waiting does not mend."""
    result = runner.run(describe(where))
    if result.code:
        if result.cause == "not found":
            return where, Sighting("absent")
        if result.cause in ("login", "project", "api", "permission"):
            raise result.explained(f"cannot look at {where.name}")
        return where, Sighting("unknown", reason=str(result.explained("gcloud describe failed")))
    try:
        found = json.loads(result.out)
        state = found.get("state", "")
        word = state.get("state", "") if isinstance(state, dict) else state
        reason = state.get("failedData", {}).get("error", {}).get("message", "") if isinstance(state, dict) else ""
        spec = (found.get("tpu", {}).get("nodeSpec") or [{}])[0]
        nodes = int(spec.get("multisliceParams", {}).get("nodeCount", 1))
        label = (spec.get("node") or found).get("labels", {}).get(LABEL, "")
    except (ValueError, AttributeError):
        return where, Sighting("unknown", reason="gcloud described the slice in words that are no JSON of a slice")
    return replace(where, nodes=nodes), Sighting(_condition(word), word, reason, label)


def find(where: Slice, runner: Runner) -> tuple[Slice, Sighting]:
    """The slice of a name, be it a queued resource or a TPU VM. Raises UserError where there is none, or no answer."""
    for queued in (True, False):
        found, sighting = look(replace(where, queued=queued), runner)
        if sighting.condition == "unknown":
            raise UserError(sighting.reason)
        if sighting.condition != "absent":
            return found, sighting
    raise UserError(f"there is no slice {where.name} in {where.zone}")


def workers(text: str) -> list[Worker]:
    """The workers that answered `state`."""
    return [Worker(*match.groups()) for match in re.finditer(r"^worker (\S+) (\S+) (\S+)$", text, re.MULTILINE)]


def verdict(states: Collection[str]) -> Ending:
    """How a run ended, from its workers' states.

    One worker's mistake is the run's, as the others then end in some other way: they have lost it. But where a disk or
    a bucket failed on one of them, that may be all there is to it. One still active, or without a code, has been left
    behind by a crash.
    """
    if "stopped" in states:
        return "stopped"
    if REQUEUE in states:
        return "requeue"
    if set(states) == {"0"}:
        return "done"
    return "mistake" if MISTAKE in states and IO_ERROR not in states else "crashed"


def _condition(word: str) -> Condition:
    if word in READY:
        return "ready"
    if word in LOST:
        return "lost"
    if word == "FAILED":
        return "failed"
    return "waiting" if word else "unknown"
