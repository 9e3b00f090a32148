"""The exceptions that end a command with one line: a user's mistakes, and what is nobody's."""

import os
import re


class UserError(Exception):
    """A mistake in what the user gave: a path, a name, a config key, a label.

    The message is one line that says what was wrong and what would be right. The command line prints
    it without a traceback and exits with code 2.
    """

    exit_code = 2


class LostProcess(UserError):
    """Nobody's mistake: another process of the run has gone. The same command may well go on from its checkpoint."""

    exit_code = 1


class IOFailure(UserError):
    """A disk, a bucket or the network failed a run. The same command may well go on, once it answers again."""

    exit_code = 74  # EX_IOERR of sysexits.h


class Interrupted(UserError):
    """Ctrl-C, where there is something to say about it: how to go on."""

    exit_code = 130  # 128 and the number of SIGINT


def reason(error: BaseException) -> str:
    """Why something failed, in a few words: what the system said, or the first line of the first error."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:  # one that is raised twice is its own cause
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if told := [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]:
        return told[0]
    error = chain[-1]
    if code := re.search(r"os_error_code='?(\d+)", str(error)):  # of TensorStore's errors
        return os.strerror(int(code[1]))
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__
