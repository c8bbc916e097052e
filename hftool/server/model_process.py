"""A process with one model in memory, from which the commands that use the model are forked."""

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from hftool.options.model import ClassifierOptions, LoadOptions
from hftool.server import command_process, protocol
from hftool.server.children import Children
from hftool.server.command_process import RunCommandLine
from hftool.server.log import log
from hftool.server.requested_model import RequestedModel

READY = b"."


def start(
    requested: RequestedModel, threads: int, run: RunCommandLine
) -> tuple[int, socket.socket]:
    """Fork a process that loads a model, and then runs the command lines that it receives.

    It sends `READY` once it has loaded the model, and again after each request: only then does it
    take the next one. It ends when the daemon closes the socket.

    Returns:
        The process id, and the socket to the process.
    """
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process:
        theirs.close()
        return process, ours
    try:  # nothing may get past this block: the caller's code is the daemon's
        _handle_signals()
        protocol.close_others({theirs.fileno()})
        _serve_model(theirs, _loader(requested), threads, run)
    except ConnectionError:
        pass  # the daemon has closed the socket, or has ended
    except BaseException:
        log.exception("the process of a model failed")
    finally:
        os._exit(0)


def _handle_signals() -> None:
    """Ignore Ctrl-C, after which the daemon ends this process; die silently of other signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _serve_model(
    daemon: socket.socket, load: Callable[[], Any], threads: int, run: RunCommandLine
) -> None:
    """Load the model, then fork a process for each command line.

    Nothing is computed in this process: OpenMP's threads do not survive a fork, so none may start.

    Raises:
        ConnectionError: the daemon has closed the socket.
    """
    import torch

    from hftool.models.resident import enable_cache

    enable_cache()
    commands = Children()
    _try(load)
    while True:
        daemon.sendall(READY)
        request, files = protocol.receive_request(daemon)
        with socket.socket(fileno=files[0]) as client:
            try:
                command_process.adopt_environment(request)
            except OSError as error:  # the client's folder is gone; the client runs the command
                log.warning("a command was not started: %s", error)
                continue
            _try(load)  # loads again only if the model's files have changed
            torch.set_num_threads(threads)
            commands.add(command_process.start(client, request, run))
            torch.set_num_threads(1)


def _try(load: Callable[[], Any]) -> None:
    """Load a model; if that fails, the command will fail in the same way and report it."""
    try:
        load()
    except Exception:
        log.exception("a model was not loaded")


def _loader(requested: RequestedModel) -> Callable[[], Any]:
    from hftool.models import load, local_files

    if isinstance(requested, ClassifierOptions):
        return lambda: load.load_classifier(requested)
    if isinstance(requested, LoadOptions):
        return lambda: _load_language_model(requested)
    return lambda: local_files.load_tokenizer(requested.model, requested)


def _load_language_model(requested: LoadOptions) -> Any:
    # Imported here once, instead of in every command.
    from transformers.generation import logits_process  # noqa: F401

    from hftool.models import load

    return load.load_language_model(requested)
