"""The one exception type for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave: a path, a name, a config key, a label.

    The message is one line that says what was wrong and what would be right. The command line prints
    it without a traceback and exits with code 2.
    """

    exit_code = 2


class LostProcess(UserError):
    """Nobody's mistake: another process of the run has gone. The same command may well go on from its checkpoint."""

    exit_code = 1
