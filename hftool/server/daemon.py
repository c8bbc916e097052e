"""The server: takes requests, and lets each command run where its model is in memory."""

import contextlib
import inspect
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import psutil

from hftool.errors import HftoolError
from hftool.options.model import DEFAULT_CLASSIFIER
from hftool.server import command_process, protocol
from hftool.server.model_process import MODEL_KINDS, READY, RequestedModel, start
from hftool.server.records import LoadedModel

REQUEST_SECONDS = 2.0  # for a request to arrive whole
BACKLOG = 128
# What commands would import each time.
IMPORTED = (
    *(
        "hftool.cli.app",
        "hftool.generation.next_token",
        "hftool.generation.steps",
        "hftool.generation.trace",
        "hftool.generation.strategies",
    ),
    *(
        "hftool.generation.batch",
        "hftool.generation.requests",
        "hftool.chat.conversation",
        "hftool.chat.slash_commands",
    ),
    *(
        "hftool.classification.scorers",
        "hftool.inputs.tables",
        "hftool.tokenization.encode",
        "hftool.tokenization.vocabulary",
        "hftool.models.load",
    ),
    *(
        "hftool.output.formats",
        "hftool.output.views.tokens",
        "hftool.output.tables.tokens",
        "rich.console",
    ),
)


@dataclass
class ModelProcess:
    """A model in a process of its own, and the requests that wait for it to be loaded."""

    name: str
    process: int
    channel: socket.socket
    used: float
    ready: bool = False
    requests: int = 0
    waiting: list[tuple[dict[str, Any], socket.socket]] = field(default_factory=list)


class Daemon:
    """Answers on a Unix socket in a folder that only the user can enter, until it is told to stop.

    Args:
        path: of the socket.
        idle: seconds without a request after which it ends; None: never.
        memory_limit: bytes the models may take; beyond, those not used for longest are unloaded.

    Raises:
        HftoolError: the folder can't be made, others can enter it, or a server is there.
    """

    def __init__(self, path: Path, *, idle: float | None, memory_limit: float | None) -> None:
        import torch

        from hftool.cli.app import command
        from hftool.models.device import choose_device

        for name in IMPORTED:
            import_module(name)
        command()
        self._path, self._idle, self._memory_limit = path, idle, memory_limit
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads don't survive a fork
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # nor does what CUDA's own check sets up
        self._accelerated = choose_device("auto").type != "cpu"
        self._held: dict[RequestedModel, ModelProcess] = {}
        self._identity = protocol.identity()
        self._stopped = False
        self._selector = selectors.DefaultSelector()
        self._listener = _listen(path)

    def serve(self) -> None:
        """Answer until told to stop, by a request, by a signal or by having nothing to do."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            while not self._stopped:
                ready = self._selector.select(self._idle)
                if not ready:
                    return
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._hear(key.data)
        except KeyboardInterrupt:
            pass
        finally:
            self._path.unlink(missing_ok=True)
            for held in self._held.values():
                os.kill(held.process, signal.SIGTERM)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            connection.settimeout(REQUEST_SECONDS)
            if not protocol.is_own_user(connection):
                return
            request, files = protocol.receive_request(connection)
            protocol.close(files)
            self._answer(connection, request)

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if "run" in request:
            self._run(connection, request["run"])
        elif request.get("ask") == "stop":
            self._stopped = True
            protocol.send_answer(connection, stopping=os.getpid())
        else:
            models = [vars(model) for model in self._models()]
            protocol.send_answer(connection, process=os.getpid(), models=models)

    def _run(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if request["identity"] != self._identity:
            protocol.send_answer(connection, declined="it is of another version or environment")
            return
        command_process.adopt_environment(request)
        asked = model_asked(request["arguments"])
        device = getattr(asked, "device", "cpu")
        if device != "cpu" and (self._accelerated or device != "auto"):
            protocol.send_answer(connection, declined="it computes on the CPU alone")
        elif asked is None:
            command_process.start(connection, request)
        else:
            protocol.send_answer(connection, loading=True)
            self._pass_on(asked, request, connection)

    def _pass_on(
        self, asked: RequestedModel, request: dict[str, Any], connection: socket.socket
    ) -> None:
        """Give a request to the process that holds its model, now or when that is loaded."""
        held = self._held.get(asked)
        if held is None:
            process, its_socket = start(asked, self._threads)
            name = asked.model or DEFAULT_CLASSIFIER
            held = ModelProcess(name, process, its_socket, time.monotonic())
            self._held[asked] = held
            self._selector.register(its_socket, selectors.EVENT_READ, asked)
        held.used = time.monotonic()
        held.requests += 1
        held.waiting.append((request, connection.dup()))
        if held.ready:
            self._send_waiting(held)

    def _hear(self, asked: RequestedModel) -> None:
        """A model is loaded, or the process that held it has ended."""
        held = self._held[asked]
        try:
            held.ready = held.channel.recv(1) == READY
        except OSError:
            held.ready = False
        if held.ready:
            self._send_waiting(held)
            self._unload_beyond_limit()
        else:
            self._unload(asked)

    def _send_waiting(self, held: ModelProcess) -> None:
        while held.waiting:
            request, connection = held.waiting.pop(0)
            with connection, contextlib.suppress(OSError):  # it has ended, as will be heard
                protocol.send_request(held.channel, request, [connection.fileno()])

    def _unload(self, asked: RequestedModel) -> None:
        held = self._held.pop(asked)
        self._selector.unregister(held.channel)
        held.channel.close()  # then it ends; commands that run go on
        for _, connection in held.waiting:
            connection.close()

    def _unload_beyond_limit(self) -> None:
        if self._memory_limit is None:
            return
        by_use = sorted(self._held, key=lambda asked: self._held[asked].used)
        sizes = {asked: _own_memory(self._held[asked].process) for asked in by_use}
        for asked in by_use:
            if sum(sizes.values()) <= self._memory_limit:
                return
            if self._held[asked].ready:
                self._unload(asked)
                del sizes[asked]

    def _models(self) -> Iterator[LoadedModel]:
        now = time.monotonic()
        for asked, held in self._held.items():
            memory, idle = _own_memory(held.process), now - held.used
            yield LoadedModel(
                held.name,
                MODEL_KINDS[type(asked)],
                "ready" if held.ready else "loading",
                memory,
                held.requests,
                idle,
                held.process,
            )


def model_asked(arguments: Sequence[str]) -> RequestedModel | None:
    """The model a command line needs, as far as it is on this machine; None where it needs none,
    or the command line is wrong."""
    from hftool import config
    from hftool.cli import app
    from hftool.models.local_files import local_folder
    from hftool.models.references import resolve_reference

    command = app.command().commands[arguments[0]]
    try:
        defaults = config.load().defaults.get(arguments[0])
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            context = command.make_context("hftool", list(arguments[1:]), default_map=defaults)
        asked = _model_options(command.callback, context.params)
        if asked is None or context.params.get("labels") is not None:
            return None
        source = resolve_reference(asked.model or DEFAULT_CLASSIFIER, asked.revision)
        return asked if local_folder(source, asked.trust_remote_code) else None
    except (Exception, SystemExit):  # the command meets it again, and shows it
        return None


def _model_options(command: Any, values: dict[str, Any]) -> RequestedModel | None:
    """The dataclass with the options of loading a model, out of a command's values."""
    for kind in get_type_hints(inspect.unwrap(command)).values():
        for options in get_args(RequestedModel):
            if isinstance(kind, type) and issubclass(kind, options):
                asked = options(**{item.name: values[item.name] for item in fields(options)})
                found: RequestedModel = replace(asked, offline=True, hub_token=None)  # it is here
                return found
    return None


def _listen(path: Path) -> socket.socket:
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not protocol.is_private(folder):
            raise HftoolError(f"others can enter {folder}", f"chmod 700 {folder}")
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # of a server that was killed
        else:
            raise HftoolError("a server is running", "`hftool serve --stop` ends it")
        listener.close()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        raise HftoolError(f"cannot listen at {path}: {error.strerror or error}") from None
    return listener


def _own_memory(process: int) -> int:
    """The bytes no other process shares, 0 where the process has ended."""
    try:
        return int(psutil.Process(process).memory_full_info().uss)
    except psutil.Error:
        return 0
