"""The errors that hftool shows as one line; anything else is a bug and keeps its traceback."""

import re
from collections.abc import Mapping


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


def exclude(given: Mapping[str, bool]) -> None:
    """Raise where more than one of several options, by name, was given.

    Raises:
        UsageError: with the first two.
    """
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise UsageError(f"{names[0]} excludes {names[1]}")


def is_little_memory(error: BaseException) -> bool:
    """Whether an error, or what it came from, is one of the many that libraries make of an
    allocation that failed."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    if named or _LITTLE_MEMORY.search(str(error)):
        return True
    vague = isinstance(error, SystemError) or _MAYBE.search(str(error))
    if vague and address_space_limit() is not None:
        return True
    earlier = error.__cause__ or error.__context__
    return earlier is not None and is_little_memory(earlier)


def address_space_limit() -> int | None:
    """The bytes of memory this process may map (`ulimit -v`), None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


_LITTLE_MEMORY = re.compile(
    "an(not|'t) allocate memory|failed to map segment|bad_alloc|can't start new thread"
    "|Resource temporarily unavailable"
)
# What oneDNN and `inspect` say then; without a limit it is a bug.
_MAYBE = re.compile("could not create a primitive|could not get source code")


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
