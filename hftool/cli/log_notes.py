"""Notes on stderr: what the core logs under the name `hftool`."""

import logging
import os
import warnings

from hftool.terminal import one_line, show_on_stderr

_PREFIX = {logging.WARNING: "Warning: ", logging.ERROR: "Error: "}


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        show_on_stderr(_PREFIX.get(record.levelno, "") + one_line(record.getMessage()))


def configure(*, quiet: bool, verbose: bool) -> None:
    """Choose which notes are shown; a library's own come only with `verbose`."""
    log = logging.getLogger("hftool")
    log.handlers = [_Notes()]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, 0.23 uses one core
    if not verbose:
        # Read by the libraries when they are imported.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        warnings.simplefilter("ignore")
