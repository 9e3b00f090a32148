"""The one place where `clip-jax launch` runs commands, and what gcloud's failures mean in one line."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clip_jax.errors import UserError

# What gcloud says of a failure, the first that fits: a short name for it, and what to do.
CAUSES = (
    ("login", r"auth login|active account|[Rr]eauthentication|invalid_grant", "gcloud has no login; gcloud auth login"),
    (
        "project",
        r"required property \[(core/)?project\]|[Pp]roject.*(not found|does not exist)",
        "gcloud knows no such project; give --project, or gcloud config set project PROJECT",
    ),
    (
        "api",
        r"SERVICE_DISABLED|has not been used in project|API .*not enabled",
        "the project's Cloud TPU API is off; gcloud services enable tpu.googleapis.com",
    ),
    (
        "quota",
        r"[Qq]uota\b.*(exceeded|limit)|QUOTA_EXCEEDED",
        "the project's quota is too small; ask for more at https://console.cloud.google.com/iam-admin/quotas",
    ),
    (
        "capacity",
        r"no more capacity|[Ii]nsufficient (reserved )?capacity|[Oo]ut of capacity|POOL_EXHAUSTED|[Ss]tockout",
        "the zone has no capacity for it now; --queued waits for some, or try --spot or another zone",
    ),
    ("exists", r"ALREADY_EXISTS|already exists", "there is something of that name; choose another --name"),
    (
        "permission",
        r"PERMISSION_DENIED|does not have permission|IAM_PERMISSION_DENIED",
        "this account may not do that in the project; roles/tpu.admin is the role that may",
    ),
    (
        "not found",
        r"NOT_FOUND|was not found|could not be found",
        "there is no such slice, or type of slice, in the zone",
    ),
)


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit code and all that it wrote."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def cause(self) -> str | None:
        """A short name for why gcloud failed; None where that is not known."""
        return next((name for name, pattern, _ in CAUSES if re.search(pattern, self.err)), None)

    def explained(self, what: str) -> UserError:
        """The failure as one line: what failed, what to do where that is known, and gcloud's own words."""
        lines = [line.strip() for line in f"{self.out}\n{self.err}".splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        said = (errors or lines or [f"exit code {self.code}"])[-1][:300]
        advice = next((text for name, _, text in CAUSES if name == self.cause), None)
        return UserError(f"{what}: {advice} ({said})" if advice else f"{what}: {said}")


@runtime_checkable
class Runner(Protocol):
    """Runs commands. `run` returns what they wrote, `show` lets them write to the terminal and returns their code."""

    def run(self, command: Sequence[str]) -> Result: ...

    def show(self, command: Sequence[str]) -> int: ...


class Shell:
    """Runs commands on this machine. Raises UserError for a program that is not installed."""

    def run(self, command: Sequence[str]) -> Result:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
            )
        except FileNotFoundError as error:
            raise _missing(command[0]) from error
        return Result(done.returncode, done.stdout, done.stderr)

    def show(self, command: Sequence[str]) -> int:
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL).returncode
        except FileNotFoundError as error:
            raise _missing(command[0]) from error


def _missing(program: str) -> UserError:
    where = "https://cloud.google.com/sdk/docs/install has it" if program == "gcloud" else "install it"
    return UserError(f"the program {program} is not on this machine; {where}")
