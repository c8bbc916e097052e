"""The errors that hftool shows as one line; anything else is a bug and keeps its traceback."""


class HftoolError(Exception):
    """A failure with a cause a user can understand.

    `message` names the cause in one line, `hint` the way on where there is one.
    """

    status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(HftoolError):
    """What `--check` asks for does not hold of the data."""

    status = 3


class UsageError(HftoolError):
    """The command line itself is wrong."""

    status = 2
