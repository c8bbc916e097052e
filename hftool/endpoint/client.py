"""HTTP to an endpoint: the key, retries, limits on what a server may send, and errors in words."""

import json
import logging
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from hftool.errors import HftoolError
from hftool.options.endpoint import KEY_VARIABLES, EndpointOptions
from hftool.redaction import masked

log = logging.getLogger("hftool")

T = TypeVar("T")

CONNECT_SECONDS = 10.0
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt
MOST_PATIENCE = 120.0  # seconds: a server that asks for a longer pause is not waited for
BUSY = (408, 429, 500, 502, 503, 504)
MAX_ANSWER = 1 << 26  # bytes of an answer
MAX_EVENT = 1 << 23  # bytes of an event in a stream
SHOWN = 300  # characters of what a server says about an error
TRANSIENT = (
    *(httpx2.ConnectError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError),
    *(httpx2.RemoteProtocolError, httpx2.ConnectTimeout),
)


class HttpError(HftoolError):
    """An answer with a status that is an error.

    Attributes:
        http_status: the status.
    """

    def __init__(self, http_status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.http_status = http_status


class Client:
    """Requests to one server, from any number of threads.

    A request that the server is too busy for, or that fails on the way, is sent again after a
    pause. Redirects are not followed: they could take the key to another server.

    Args:
        url: what the paths of requests are added to, such as "http://localhost:8000/v1".
    """

    def __init__(self, url: str, options: EndpointOptions, connections: int = 1) -> None:
        self._url = url
        self._key = api_key(options)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._timeout = options.timeout
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(options.timeout, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=connections + 1),
        )
        self._was_reached = False
        weakref.finalize(self, self._client.close)

    @property
    def server(self) -> str:
        """The server's host and port, for messages."""
        return urlsplit(self._url).netloc

    def get(self, url: str) -> Any:
        """Return the JSON at an address.

        Raises: as `post`.
        """
        return self._json(self._client.build_request("GET", url))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON that answers a request.

        Raises:
            HttpError: the server answers with an error.
            HftoolError: it can't be reached, or answers with something else.
        """
        return self._json(self._client.build_request("POST", f"{self._url}/{path}", json=body))

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the JSON of each server-sent event that answers a request.

        Raises: as `post`. A stream that breaks off is not begun again.
        """
        request = self._client.build_request("POST", f"{self._url}/{path}", json=body)
        with self._errors():
            response = self._tried(request, lambda response: response)
            try:
                if "event-stream" not in response.headers.get("content-type", ""):
                    yield self._parsed(_whole(response))  # a server that does not stream
                    return
                for data in events(response.iter_bytes()):
                    if data == "[DONE]":
                        return
                    yield self._parsed(data)
            finally:
                response.close()

    def _json(self, request: httpx2.Request) -> Any:
        with self._errors():
            return self._parsed(self._tried(request, _whole))

    def _tried(self, request: httpx2.Request, read: Callable[[httpx2.Response], T]) -> T:
        """Return what `read` makes of the answer to a request, which is sent again after a pause
        where that may help."""
        for attempt in range(len(PAUSES) + 1):
            last = attempt == len(PAUSES)
            try:
                response = self._client.send(request, stream=True)
                self._was_reached = True
                if response.status_code == 200:
                    return read(response)
            except TRANSIENT as error:
                if last or not self._was_reached:
                    raise
                self._pause(attempt, self._cause(error))
                continue
            asked = _retry_after(response.headers.get("retry-after"))
            if response.status_code not in BUSY or last or asked > MOST_PATIENCE:
                raise self._http_error(response, asked)
            response.close()
            self._pause(attempt, f"{self.server} answered {response.status_code}", asked)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int, cause: str, at_least: float = 0.0) -> None:
        seconds = max(at_least, PAUSES[attempt] * random.uniform(0.75, 1.25))
        log.info("%s: trying again in %.0f s", self._clean(cause), seconds)
        time.sleep(seconds)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ReadTimeout:
            raise HftoolError(
                f"{self.server} sent nothing for {self._timeout:g} seconds",
                "--timeout SECONDS",
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise HftoolError(self._clean(self._cause(error))) from None

    def _cause(self, error: Exception) -> str:
        said = str(error) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return f"cannot reach {self.server}: {said}"
        return f"the answer of {self.server} broke off: {said}"

    def _http_error(self, response: httpx2.Response, asked: float) -> HttpError:
        status = response.status_code
        try:
            said = _said(_whole(response))
        except httpx2.HTTPError:
            said = ""
        hint = None
        if 300 <= status < 400:
            said = f"it is at {response.headers.get('location', 'another address')}"
            hint = "redirects could take the key elsewhere: give that address"
        elif status in (401, 403):
            hint = f"the key is that of --api-key or {KEY_VARIABLES[0]}"
        elif status == 404:
            hint = "the address of most servers ends in /v1, as in http://localhost:8000/v1#NAME"
        elif asked > MOST_PATIENCE:
            hint = f"it asks for a pause of {asked:.0f} seconds"
        words = f"{self.server} answered {status} {response.reason_phrase}".rstrip()
        return HttpError(status, self._clean(f"{words}: {said}" if said else words), hint)

    def _parsed(self, text: str | bytes) -> Any:
        try:
            return json.loads(text)
        except UnicodeDecodeError:
            raise HftoolError(f"{self.server} sends something else than UTF-8") from None
        except (ValueError, RecursionError):
            start = text[:SHOWN] if isinstance(text, str) else text[:SHOWN].decode(errors="replace")
            if start.lstrip().startswith(("{", "[")):
                raise HftoolError(
                    self._clean(f"{self.server} answered with broken JSON: '{start[:40]}'")
                ) from None
            kind = "a web page" if start.lstrip().startswith("<") else f"'{start[:40]}'"
            raise HftoolError(
                self._clean(f"{self.server} answered with {kind} instead of JSON"),
                "the address of most servers ends in /v1, as in http://localhost:8000/v1#NAME",
            ) from None

    def _clean(self, message: str) -> str:
        """Return a message without the key, which a server may have repeated."""
        return masked(message, [self._key])


def api_key(options: EndpointOptions) -> str:
    """Return the key for the endpoint, "" if there is none."""
    found = options.api_key or next(filter(None, map(os.environ.get, KEY_VARIABLES)), "")
    if not found.isascii() or not found.isprintable():
        raise HftoolError("the key for the endpoint has characters that no key has")
    return found


def events(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event.

    Raises:
        HftoolError: an event is too long, or not UTF-8.
    """
    rest, data = b"", list[str]()
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) + sum(map(len, data)) > MAX_EVENT:
            raise HftoolError("the server sends an event without end")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                data.append(_text(line[5:].removeprefix(b" ")))
            elif not line and data:
                yield "\n".join(data)
                data.clear()
    if rest.startswith(b"data:"):
        data.append(_text(rest[5:].strip()))
    if data:
        yield "\n".join(data)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HftoolError("the server sends something else than UTF-8") from None


def _whole(response: httpx2.Response) -> bytes:
    body = bytearray()
    with closing(response):
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER:
                raise HftoolError(f"the server's answer has more than {MAX_ANSWER >> 20} MiB")
    return bytes(body)


def _said(body: bytes) -> str:
    """Return what a server says about an error, which each kind of server writes in its way."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(name):
            said = said[name]
    words = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}…"


def _retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, 0 if there is none."""
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
