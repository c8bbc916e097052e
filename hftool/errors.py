"""The errors that hftool shows as one line. Any other error is a bug and keeps its traceback."""

import re
import resource
from collections.abc import Mapping


class HftoolError(Exception):
    """A failure whose cause a user can understand.

    `message` names the cause in one line; `hint`, if any, is something that the user can do.
    `status` is the exit status.
    """

    status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(HftoolError):
    """The data does not satisfy `--check`."""

    status = 3


class NoCacheError(HftoolError):
    """A model can't go on from the tokens that it has seen."""


class UsageError(HftoolError):
    """A wrong command line."""

    status = 2


def exclude(given: Mapping[str, bool]) -> None:
    """Check that at most one of several options was given.

    Raises:
        UsageError: more than one was; the message names the first two.
    """
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise UsageError(f"{names[0]} excludes {names[1]}")


def is_little_memory(error: BaseException) -> bool:
    """Return whether an allocation that failed is behind an error; libraries raise many kinds."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    if named or _LITTLE_MEMORY.search(str(error)):
        return True
    is_vague = isinstance(error, SystemError) or _MAYBE_LITTLE_MEMORY.search(str(error))
    if is_vague and address_space_limit() is not None:
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_little_memory(cause)


def address_space_limit() -> int | None:
    """Return how many bytes of memory this process may map (`ulimit -v`), None without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


_LITTLE_MEMORY = re.compile(
    "an(not|'t) allocate memory|failed to map segment|bad_alloc|can't start new thread"
    "|Resource temporarily unavailable"
)
# Messages of oneDNN and `inspect` under a limit on memory; without a limit they mean a bug.
_MAYBE_LITTLE_MEMORY = re.compile("could not create a primitive|could not get source code")


_MODEL_CODE = ("transformers", "transformers_modules")  # the second: code of model repositories


def raised_by_us(error: BaseException) -> bool:
    """Return whether an error is a bug of hftool: whether it was raised by hftool's own code, or by
    a library that hftool's code called directly.

    It is not if code of transformers, or of a model's repository, was in between.
    """
    ours = False
    traceback = error.__traceback__
    while traceback is not None:  # from the outermost call to the innermost
        module: str = traceback.tb_frame.f_globals.get("__name__", "")
        package = module.partition(".")[0]
        if package == "hftool" or package in _MODEL_CODE:
            ours = package == "hftool"
        traceback = traceback.tb_next
    return ours
