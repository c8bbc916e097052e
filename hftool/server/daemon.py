"""The daemon: accepts requests and hands each to the process that has its model in memory."""

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from typer.core import TyperGroup

from hftool.options.model import DEFAULT_CLASSIFIER
from hftool.server import command_process, protocol
from hftool.server.children import Children
from hftool.server.command_process import RunCommandLine
from hftool.server.listener import listen
from hftool.server.log import log
from hftool.server.model_process import READY, start
from hftool.server.preload import import_what_commands_need
from hftool.server.records import LoadedModel
from hftool.server.requested_model import MODEL_KINDS, RequestedModel, requested_model

REQUEST_SECONDS = 10.0  # for a request to arrive as a whole
SEND_SECONDS = 1.0  # for a request to reach a process that is ready for it
PAUSE_SECONDS = 0.1  # after an error, so that one that recurs does not keep a core busy


@dataclass
class ModelProcess:
    """A process with one model in memory, and the requests that wait until the model is loaded.

    `name` is the model's reference, `last_used` a time of the monotonic clock in seconds,
    `requests` the number of requests so far; `waiting` holds each request with its connection.
    `is_ready` is whether the model is loaded, `takes_requests` whether the process waits for one.
    """

    name: str
    process: int
    channel: socket.socket
    last_used: float
    is_ready: bool = False
    takes_requests: bool = False
    requests: int = 0
    waiting: list[tuple[dict[str, Any], socket.socket]] = field(default_factory=list)


@dataclass(frozen=True)
class Client:
    """A client whose request has not arrived as a whole; `deadline` is a time of the monotonic
    clock in seconds."""

    request: protocol.IncomingRequest
    deadline: float


class Daemon:
    """Answers requests on a Unix socket in a folder that only the user can enter.

    Args:
        path: the socket's path.
        root: the application's group of commands, with which command lines are parsed.
        run: runs the command line in `sys.argv` in its process; called in forked processes only.
        idle: seconds without a request after which the daemon ends; None: never.
        memory_limit: bytes that the models may use; beyond that, the least recently used ones are
            unloaded. None: no limit.

    Raises:
        HftoolError: the socket's folder cannot be created or is open to others, or a daemon is
            running.
    """

    def __init__(
        self,
        path: Path,
        root: TyperGroup,
        run: RunCommandLine,
        *,
        idle: float | None,
        memory_limit: float | None,
    ) -> None:
        import torch

        from hftool.models.device import choose_device
        from hftool.nn.threads import limit_to_quota

        import_what_commands_need()
        self._path, self._root, self._run_command_line = path, root, run
        self._idle, self._memory_limit = idle, memory_limit
        limit_to_quota()
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads don't survive a fork
        # CUDA's own check of its devices sets up a state that does not survive a fork either.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        self._has_accelerator = choose_device("auto").type != "cpu"
        self._model_processes: dict[RequestedModel, ModelProcess] = {}
        self._clients: dict[socket.socket, Client] = {}
        self._children = Children()
        self._identity = protocol.identity()
        self._is_stopped = False
        self._selector = selectors.DefaultSelector()
        self._listener = listen(path)

    def serve(self) -> None:
        """Answer requests until a request or a signal ends the daemon, or until it was idle."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            last_used = time.monotonic()
            while not self._is_stopped:
                ready = self._selector.select(self._seconds_to_wait(last_used))
                now = time.monotonic()
                if ready:
                    last_used = now
                elif self._idle is not None and now - last_used >= self._idle:
                    return
                for key, _ in ready:
                    self._handle(key.data)
                self._drop_late_clients(now)
        except KeyboardInterrupt:
            pass
        finally:
            self._path.unlink(missing_ok=True)
            for model_process in self._model_processes.values():
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(model_process.process, signal.SIGTERM)

    def _seconds_to_wait(self, last_used: float) -> float | None:
        """Return the seconds until the daemon was idle for too long, or a client is late."""
        times = [client.deadline for client in self._clients.values()]
        if self._idle is not None:
            times.append(last_used + self._idle)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle(self, ready: RequestedModel | Client | None) -> None:
        """Handle what is ready: the process of a model, a client, or (None) a new connection.

        An unexpected error is logged, and does not end the daemon.
        """
        try:
            if ready is None:
                self._accept()
            elif isinstance(ready, Client):
                self._receive(ready)
            else:
                self._on_model_ready(ready)
        except Exception:
            log.exception("an unexpected error")
            time.sleep(PAUSE_SECONDS)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if not protocol.is_own_user(connection):
            log.warning("a connection of another user was refused")
            connection.close()
            return
        connection.setblocking(False)
        request = protocol.IncomingRequest(connection)
        client = Client(request, time.monotonic() + REQUEST_SECONDS)
        self._clients[connection] = client
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _receive(self, client: Client) -> None:
        """Receive what a client has sent, and answer its request once that is whole."""
        connection = client.request.connection
        try:
            request = client.request.receive()
        except BlockingIOError:
            return  # nothing has arrived after all
        except (ConnectionError, ValueError) as error:
            if isinstance(error, ValueError):
                log.exception("a request is broken")
            self._forget(client)
            return
        if request is None:
            return
        try:
            connection.settimeout(SEND_SECONDS)
            self._answer(connection, request)
        except ConnectionError:
            pass  # the client has ended, or has closed the connection
        except (ValueError, KeyError, TypeError):
            log.exception("a request is broken")
        finally:
            self._forget(client)

    def _forget(self, client: Client) -> None:
        connection = client.request.connection
        del self._clients[connection]
        self._selector.unregister(connection)
        connection.close()

    def _drop_late_clients(self, now: float) -> None:
        for client in [c for c in self._clients.values() if c.deadline <= now]:
            log.warning("a request did not arrive in %.0f s", REQUEST_SECONDS)
            self._forget(client)

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if "run" in request:
            self._run(connection, request["run"])
        elif request["ask"] == "stop":
            self._is_stopped = True
            protocol.send_answer(connection, stopping=os.getpid())
        else:
            models = [vars(model) for model in self._loaded_models()]
            protocol.send_answer(connection, process=os.getpid(), models=models)

    def _run(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if request["identity"] != self._identity:
            protocol.send_answer(connection, declined="it is of another version or environment")
            return
        try:
            command_process.adopt_environment(request)
        except OSError as error:  # the client's folder is gone; the client runs the command
            log.warning("a command was not started: %s", error)
            return
        requested = requested_model(self._root, request["arguments"])
        device = getattr(requested, "device", "cpu")
        if device != "cpu" and (self._has_accelerator or device != "auto"):
            protocol.send_answer(connection, declined="it only computes on the CPU")
        elif requested is None:
            run = self._run_command_line
            self._children.add(command_process.start(connection, request, run))
        else:
            protocol.send_answer(connection, loading=True)
            self._pass_on(requested, request, connection)

    def _pass_on(
        self, requested: RequestedModel, request: dict[str, Any], connection: socket.socket
    ) -> None:
        """Send a request to the process that has its model, once the model is loaded."""
        model_process = self._model_processes.get(requested)
        if model_process is None:
            process, channel = start(requested, self._threads, self._run_command_line)
            self._children.add(process)
            channel.settimeout(SEND_SECONDS)
            name = requested.model or DEFAULT_CLASSIFIER
            model_process = ModelProcess(name, process, channel, time.monotonic())
            self._model_processes[requested] = model_process
            self._selector.register(channel, selectors.EVENT_READ, requested)
        model_process.last_used = time.monotonic()
        model_process.requests += 1
        model_process.waiting.append((request, connection.dup()))
        self._send_next(requested)

    def _on_model_ready(self, requested: RequestedModel) -> None:
        """Send the waiting requests to a process whose model is loaded; forget one that ended."""
        model_process = self._model_processes.get(requested)
        if model_process is None:
            return  # unloaded since it became ready
        try:
            model_process.takes_requests = model_process.channel.recv(1) == READY
        except ConnectionError:
            model_process.takes_requests = False
        if not model_process.takes_requests:
            log.warning("the process of %s has ended", model_process.name)
            self._unload(requested)
            return
        self._send_next(requested)
        if not model_process.is_ready:
            model_process.is_ready = True
            self._unload_beyond_limit()

    def _send_next(self, requested: RequestedModel) -> None:
        """Send a waiting request to a process that waits for one; never wait for the process."""
        model_process = self._model_processes[requested]
        if not (model_process.takes_requests and model_process.waiting):
            return
        model_process.takes_requests = False
        request, connection = model_process.waiting.pop(0)
        with connection:
            try:
                protocol.send_request(model_process.channel, request, [connection.fileno()])
            except ConnectionError:
                pass  # the process has ended, which `_on_model_ready` handles
            except TimeoutError:
                log.warning("the process of %s does not take a request", model_process.name)
                self._unload(requested)

    def _unload(self, requested: RequestedModel) -> None:
        model_process = self._model_processes.pop(requested)
        self._selector.unregister(model_process.channel)
        model_process.channel.close()  # ends the process; commands that it started go on
        for _, connection in model_process.waiting:
            connection.close()

    def _unload_beyond_limit(self) -> None:
        if self._memory_limit is None:
            return
        processes = self._model_processes
        by_use = sorted(processes, key=lambda requested: processes[requested].last_used)
        sizes = {requested: _own_memory(processes[requested].process) for requested in by_use}
        for requested in by_use:
            if sum(sizes.values()) <= self._memory_limit:
                return
            if processes[requested].is_ready and not processes[requested].waiting:
                self._unload(requested)
                del sizes[requested]

    def _loaded_models(self) -> Iterator[LoadedModel]:
        now = time.monotonic()
        for requested, model_process in self._model_processes.items():
            yield LoadedModel(
                model=model_process.name,
                kind=MODEL_KINDS[type(requested)],
                state="ready" if model_process.is_ready else "loading",
                memory=_own_memory(model_process.process),
                requests=model_process.requests,
                idle=now - model_process.last_used,
                process=model_process.process,
            )


def _own_memory(process: int) -> int:
    """Return the bytes that a process does not share with others, 0 if it has ended."""
    try:
        return int(psutil.Process(process).memory_full_info().uss)
    except psutil.Error:
        return 0
