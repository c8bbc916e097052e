"""A process with one model in memory, from which commands that use it are forked."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Literal

from hftool.options import ClassifierOptions, LoadOptions, ModelOptions
from hftool.serving import runner, wire

Kind = Literal["language-model", "classifier", "tokenizer"]
ModelAsked = ClassifierOptions | LoadOptions | ModelOptions  # of the last the tokenizer alone
KINDS: dict[type, Kind] = {
    ClassifierOptions: "classifier",
    LoadOptions: "language-model",
    ModelOptions: "tokenizer",
}
READY = b"."


def start(asked: ModelAsked, threads: int) -> tuple[int, socket.socket]:
    """Fork a process that takes requests for one model from a socket; it writes a byte to it when
    the model is loaded.

    Returns: the process and the socket.
    """
    ours, its = socket.socketpair()
    process = os.fork()
    if process:
        its.close()
        return process, ours
    wire.close_others({its.fileno()})
    with contextlib.suppress(OSError, KeyboardInterrupt):  # the server is gone
        _hold(its, _loader(asked), threads)
    os._exit(0)


def _hold(server: socket.socket, load: Callable[[], Any], threads: int) -> None:
    """Load the model, then fork a command for each request.

    Nothing is computed here: threads don't survive a fork, and there must be none of OpenMP's.
    """
    import torch

    from hftool.models.kept import keep_from_now_on

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the server
    keep_from_now_on()
    with contextlib.suppress(Exception):
        load()
    server.sendall(READY)
    while True:
        request, files = wire.receive_request(server)
        connection = socket.socket(fileno=files[0])
        with connection, contextlib.suppress(OSError):
            runner.enter(request)
            with contextlib.suppress(Exception):  # the command meets the error again, and shows it
                load()  # again only where its files were changed
            torch.set_num_threads(threads)
            runner.start(connection, request)
            torch.set_num_threads(1)


def _loader(asked: ModelAsked) -> Callable[[], Any]:
    from hftool.models import load, locate

    if isinstance(asked, ClassifierOptions):
        return lambda: load.load_classifier(asked)
    if isinstance(asked, LoadOptions):
        return lambda: _language_model(asked)
    return lambda: locate.load_tokenizer(asked.model, asked)


def _language_model(asked: LoadOptions) -> Any:
    from transformers.generation import logits_process  # noqa: F401  once, not in each command

    from hftool.models import load

    return load.load_language_model(asked)
