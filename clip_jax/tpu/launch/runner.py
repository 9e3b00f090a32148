"""The one place where `clip-jax launch` runs commands, and what gcloud's failures mean in one line."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clip_jax.errors import UserError

LONGEST = 1800  # seconds; creating a large slice and installing take minutes, all else seconds
# What gcloud adds to the words of a 401, 403 or 404 (528.0.0: CredentialInfo in core/credentials/store.py).
CREDENTIALS = re.compile(r"\.?\s*This command is (un)?authenticated .*")
STATUS = r"ERROR: \(\S+\) "  # before the API's own word for what went wrong, as in ERROR: (gcloud.x) NOT_FOUND: ...
# What gcloud says of a failure, the first that fits: a short name for it, and what to do.
CAUSES = (
    ("not found", rf"{STATUS}NOT_FOUND", "there is no such slice, or type of slice, in the zone"),
    (
        "login",
        rf"{STATUS}UNAUTHENTICATED|do(es)? not (currently )?have (an active account|any\s+valid credentials)"
        r"|refreshing (your current )?auth tokens|[Rr]eauthenticat|invalid_grant",
        "gcloud has no login; gcloud auth login",
    ),
    (
        "project",
        r"required property \[(core/)?project\]|Failed to find attribute \[project\]"
        r"|Permission denied on resource project|CONSUMER_INVALID",
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
    ("exists", rf"{STATUS}ALREADY_EXISTS|already exists", "there is something of that name; choose another --name"),
    (
        "permission",
        rf"{STATUS}PERMISSION_DENIED|does not have permission",
        "this account may not do that in the project, or there is no such zone; roles/tpu.admin is the role that may",
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
        return cause_of(self.err)

    def explained(self, what: str) -> UserError:
        """The failure as one line: what failed, what to do where that is known, and gcloud's own words."""
        text = CREDENTIALS.sub("", self.err)
        lines = [line.strip() for line in f"{self.out}\n{text}".splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {self.code}"
        said = " ".join(text[text.rindex("ERROR") :].split() if "ERROR" in text else [last])[:300]
        advice = next((text for name, _, text in CAUSES if name == self.cause), None)
        return UserError(f"{what}: {advice} ({said})" if advice else f"{what}: {said}")


def cause_of(text: str) -> str | None:
    """A short name for what a failure's text tells of; None where it is of no known kind."""
    text = CREDENTIALS.sub("", text)
    return next((name for name, pattern, _ in CAUSES if re.search(pattern, text)), None)


@runtime_checkable
class Runner(Protocol):
    """Runs commands. `run` returns what they wrote, `show` lets them write to the terminal and returns their code."""

    def run(self, command: Sequence[str]) -> Result:
        """Runs a command to its end, nothing shown, and gives its output and exit code."""
        ...

    def show(self, command: Sequence[str]) -> int:
        """Runs a command whose output the user sees, and gives its exit code."""
        ...


class Shell:
    """Runs commands on this machine. Raises UserError for a program that is not installed."""

    def run(self, command: Sequence[str]) -> Result:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=LONGEST,
            )
        except FileNotFoundError as error:
            raise _missing(command[0]) from error
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{command[0]} did not end within {LONGEST / 60:g} minutes")
        return Result(done.returncode, done.stdout, done.stderr)

    def show(self, command: Sequence[str]) -> int:
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL).returncode
        except FileNotFoundError as error:
            raise _missing(command[0]) from error


def _missing(program: str) -> UserError:
    where = "https://cloud.google.com/sdk/docs/install has it" if program == "gcloud" else "install it"
    return UserError(f"the program {program} is not on this machine; {where}")
