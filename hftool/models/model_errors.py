"""Turn what transformers, and a model's own code, raise into errors of one line.

An error in hftool's own code is a bug: it passes unchanged, and keeps its traceback.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hftool.errors import HftoolError, is_little_memory, raised_by_us


@contextmanager
def memory_errors() -> Iterator[None]:
    """Report that the memory does not suffice in one line; pass all other errors on.

    Raises:
        HftoolError: with what would help.
    """
    try:
        yield
    except Exception as error:
        if is_little_memory(error):
            raise HftoolError(
                "not enough memory for the model",
                "try --dtype bfloat16, a shorter text, a smaller --batch-size or a smaller model",
            ) from error
        raise


@contextmanager
def model_errors() -> Iterator[None]:
    """Report what a model's code raises while it computes, in one line.

    The classes of transformers raise errors of any kind if config.json and the weights contradict
    each other.

    Raises:
        HftoolError: with the cause, or as `memory_errors`.
    """
    try:
        with memory_errors():
            yield
    except HftoolError:
        raise
    except Exception as error:
        if raised_by_us(error):
            raise
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise HftoolError(
            f"the model fails: {cause[:300]}", "its config.json may not fit its weights"
        ) from error


@contextmanager
def loading_errors(folder: Path) -> Iterator[None]:
    """Report what transformers raises while it loads broken or unknown files, in one line.

    Raises:
        HftoolError: with the cause, or as `memory_errors`.
    """
    try:
        with memory_errors():
            yield
    except HftoolError:
        raise
    except SafetensorError as error:
        raise HftoolError(f"cannot read the weights in {folder}: {error}") from None
    except pickle.UnpicklingError as error:
        raise HftoolError(
            f"cannot read the pickled weights in {folder}: they are broken, or more than weights",
            "use a safetensors copy of the model",
        ) from error
    except Exception as error:  # a wrong value in config.json can raise anything
        if raised_by_us(error) and not isinstance(error, OSError):
            raise
        cause = " ".join(str(error).split())
        hint = None
        if not isinstance(error, OSError | ValueError | RuntimeError | ImportError):
            cause = f"{type(error).__name__}: {cause}"
        if "trust_remote_code" in cause:
            cause = "it needs the repository's own code"
            hint = "--trust-remote-code runs that code; read it first"
        raise HftoolError(f"cannot load {folder}: {cause[:300]}", hint) from error
