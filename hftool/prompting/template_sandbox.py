"""Render chat templates, which are programs by somebody unknown, within limits on time and memory.

Jinja's sandbox denies a template files and Python's internals. To limit time and memory, one forked
process renders all templates: the limits are its own, so what computes meanwhile in other threads
of this process is not affected.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import resource
import signal
import threading
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

SECONDS = 10.0
MAX_SOURCE = 1_000_000  # characters
MEMORY = 2**30  # bytes, in addition to those that the process has when it is forked
MAX_ADDED = 1_000_000  # characters that a template may add to the chat
MAX_REPEATS = 10  # times that a template may repeat the chat


class OutOfBounds(Exception):
    """A template exceeded a limit."""


class TemplateError(Exception):
    """A template failed; the text says why."""


def render(source: str, messages: Sequence[Any], variables: dict[str, Any]) -> str:
    """Render a template as transformers' `render_jinja_template` does.

    Raises:
        OutOfBounds: the template takes too long or too much memory (if the system can limit that).
        TemplateError: the template fails.
    """
    return str(_result(source, "render", list(messages), variables))


def variables_of(source: str) -> dict[str, list[str]]:
    """Return the variables that a template reads without setting them itself, each with the texts
    it is compared with.

    Raises: as `render`.
    """
    variables: dict[str, list[str]] = _result(source, "variables")
    return variables


def literals_of(source: str) -> str:
    """Return all text in a template that it may write itself. Raises: as `render`."""
    return str(_result(source, "literals"))


def _result(source: str, *request: Any) -> Any:
    if len(source) > MAX_SOURCE:
        raise OutOfBounds(f"it has more than {MAX_SOURCE:,} characters")
    with _lock:
        answer = _answer(json.dumps([source, *request]).encode())
    if "error" in answer:
        raise (OutOfBounds if answer["out_of_bounds"] else TemplateError)(answer["error"])
    return answer["result"]


def _answer(request: bytes) -> dict[str, Any]:
    global _worker
    worker = _worker = _worker or _Worker()
    try:
        worker.connection.send_bytes(request)
        if not worker.connection.poll(SECONDS):
            raise OutOfBounds(f"it takes longer than {SECONDS:g} seconds")
        answer: dict[str, Any] = json.loads(worker.connection.recv_bytes())
    except BaseException as error:
        worker.end()
        _worker = None
        if isinstance(error, EOFError | ConnectionError):
            raise OutOfBounds(
                "the process that renders it was ended, as if out of memory"
            ) from None
        raise
    return answer


class _Worker:
    """The process that renders, and the connection to it. It ends when its parent does."""

    def __init__(self) -> None:
        # Imported before the fork, so that each new process has them already.
        import jinja2.debug
        import jinja2.meta  # noqa: F401
        import transformers.utils.chat_template_utils  # noqa: F401

        memory = _memory() + MEMORY
        self.connection, theirs = multiprocessing.Pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads: the child runs none of their code.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            try:
                _prepare_process(theirs, memory)
                _serve(theirs)
            finally:
                os._exit(0)  # none of the parent's cleaning up
        theirs.close()

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: nothing to wait for
            os.waitpid(self._pid, 0)


_worker: _Worker | None = None
_lock = threading.Lock()


def _forget_worker() -> None:
    """Leave the worker to the process that forked it."""
    global _worker, _lock
    if _worker is not None:
        _worker.connection.close()
    _worker, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_worker)


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().vms)


# In the worker


def _prepare_process(connection: Connection, memory: int) -> None:
    """Give the process its limits, and let go of what it inherited."""
    gc.freeze()  # whatever has a finalizer here is the parent's to finalize
    for handled in signal.valid_signals():
        if callable(signal.getsignal(handled)):
            signal.signal(handled, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal goes to all processes
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    with contextlib.suppress(FileNotFoundError):  # the system does not list what is open
        for number in map(int, os.listdir("/dev/fd")):
            # A socket or a pipe that stays open here would not end at its other end.
            if number > 2 and number != connection.fileno():
                with contextlib.suppress(OSError):
                    os.close(number)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [memory, *(given for given in (soft, hard) if given != resource.RLIM_INFINITY)]
    with contextlib.suppress(ValueError, OSError):  # the system does not support this limit
        resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))


def _serve(connection: Connection) -> None:
    """Answer requests until the other end is closed."""
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, OSError):
            return
        # Ends this process if the parent was killed and can't end it. After that no limit is left.
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
        connection.send_bytes(json.dumps(_computed(request)).encode())
        signal.setitimer(signal.ITIMER_REAL, 0)


def _computed(request: bytes) -> dict[str, Any]:
    try:
        source, operation, *arguments = json.loads(request)
        if operation != "render":
            return {"result": (_variables if operation == "variables" else _literals)(source)}
        text = _rendered(source, *arguments)
        if len(text) > MAX_ADDED + MAX_REPEATS * len(request):
            raise OutOfBounds(f"it makes {len(text):,} characters of the chat")
        text.encode()  # tokenizers reject half of a surrogate pair
        return {"result": text}
    except MemoryError:
        cause = f"it takes more than {MEMORY // 2**20} MiB of memory"
        return {"error": cause, "out_of_bounds": True}
    except Exception as error:  # the template is a program, which can fail in any way
        return {"error": _cause(error), "out_of_bounds": isinstance(error, OutOfBounds)}


def _rendered(source: str, messages: list[Any], variables: dict[str, Any]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template(
        conversations=[messages], chat_template=source, **variables
    )
    return str(rendered[0][0])


def _syntax_tree(source: str) -> Any:
    from transformers.utils import chat_template_utils

    compiled: Any = chat_template_utils._compile_jinja_template(source)
    return compiled.environment.parse(source)


def _literals(source: str) -> str:
    from jinja2 import nodes

    tree = _syntax_tree(source)
    texts = [data.data for data in tree.find_all(nodes.TemplateData)]
    return "\0".join(texts + [c.value for c in tree.find_all(nodes.Const) if type(c.value) is str])


def _variables(source: str) -> dict[str, list[str]]:
    from jinja2 import meta, nodes

    tree = _syntax_tree(source)
    compared: dict[str, list[str]] = {name: [] for name in meta.find_undeclared_variables(tree)}
    for comparison in tree.find_all(nodes.Compare):
        if isinstance(comparison.expr, nodes.Name) and comparison.expr.name in compared:
            constants = (c for o in comparison.ops for c in o.find_all(nodes.Const))
            compared[comparison.expr.name] += [c.value for c in constants if type(c.value) is str]
    return compared


def _cause(error: Exception) -> str:
    """Return what an error says, and the line of the template that raised it."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    cause = str(error)[:300] or type(error).__name__
    return cause if line is None else f"{cause} (line {line})"
