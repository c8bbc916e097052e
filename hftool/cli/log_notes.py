"""Notes on stderr: the messages that the core logs under the name `hftool`."""

import logging
import os
import warnings

from hftool.terminal import one_line, show_on_stderr

_PREFIX = {logging.WARNING: "Warning: ", logging.ERROR: "Error: "}


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        show_on_stderr(_PREFIX.get(record.levelno, "") + one_line(record.getMessage()))


def configure(*, quiet: bool, verbose: bool) -> None:
    """Choose what is shown: errors only (`quiet`), notes as well, or everything (`verbose`).

    Messages of other libraries are shown only with `verbose`.
    """
    log = logging.getLogger("hftool")
    log.handlers = [_Notes()]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    # Without it, tokenizers 0.23 uses one core.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not verbose:
        # The libraries read these when they are imported.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        warnings.simplefilter("ignore")
