"""A process with one model in memory, from which commands that use it are forked."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from hftool.options.model import ClassifierOptions, LoadOptions, ModelOptions
from hftool.server import command_process, protocol
from hftool.server.records import ModelKind

RequestedModel = ClassifierOptions | LoadOptions | ModelOptions  # of the last the tokenizer alone
MODEL_KINDS: dict[type, ModelKind] = {
    ClassifierOptions: "classifier",
    LoadOptions: "language-model",
    ModelOptions: "tokenizer",
}
READY = b"."


def start(asked: RequestedModel, threads: int) -> tuple[int, socket.socket]:
    """Fork a process that takes requests for one model from a socket; it writes a byte to it when
    the model is loaded.

    Returns: the process and the socket.
    """
    ours, its = socket.socketpair()
    process = os.fork()
    if process:
        its.close()
        return process, ours
    protocol.close_others({its.fileno()})
    with contextlib.suppress(OSError, KeyboardInterrupt):  # the server is gone
        _serve_model(its, _loader(asked), threads)
    os._exit(0)


def _serve_model(server: socket.socket, load: Callable[[], Any], threads: int) -> None:
    """Load the model, then fork a command for each request.

    Nothing is computed here: threads don't survive a fork, and there must be none of OpenMP's.
    """
    import torch

    from hftool.models.resident import enable_cache

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the server
    enable_cache()
    with contextlib.suppress(Exception):
        load()
    server.sendall(READY)
    while True:
        request, files = protocol.receive_request(server)
        connection = socket.socket(fileno=files[0])
        with connection, contextlib.suppress(OSError):
            command_process.adopt_environment(request)
            with contextlib.suppress(Exception):  # the command meets the error again, and shows it
                load()  # again only where its files were changed
            torch.set_num_threads(threads)
            command_process.start(connection, request)
            torch.set_num_threads(1)


def _loader(asked: RequestedModel) -> Callable[[], Any]:
    from hftool.models import load, local_files

    if isinstance(asked, ClassifierOptions):
        return lambda: load.load_classifier(asked)
    if isinstance(asked, LoadOptions):
        return lambda: _language_model(asked)
    return lambda: local_files.load_tokenizer(asked.model, asked)


def _language_model(asked: LoadOptions) -> Any:
    from transformers.generation import logits_process  # noqa: F401  once, not in each command

    from hftool.models import load

    return load.load_language_model(asked)
