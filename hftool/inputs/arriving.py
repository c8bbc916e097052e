"""A file of another machine: read as it arrives, and kept for the next time."""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from hftool.atomic_files import atomic_path
from hftool.errors import HftoolError

log = logging.getLogger("hftool")

TIMEOUT = 30.0  # seconds without a byte
SPARE = 1 << 30  # bytes of the disk that a download leaves free


def answer_with_file(url: str, shown: str, headers: Mapping[str, str]) -> Any:
    """Return the beginning of an answer with a file, or the answer that the known one is current.

    Raises:
        HftoolError: there is no such file, or it is a web page.
    """
    import httpx2

    with _download_errors(shown):
        client = httpx2.Client(follow_redirects=True, timeout=TIMEOUT)
        response = client.send(client.build_request("GET", url, headers=headers), stream=True)
    if response.status_code not in (200, 304):
        response.close()
        raise HftoolError(f"the server responded with {response.status_code} for {shown}")
    if response.status_code == 200 and "text/html" in response.headers.get("content-type", ""):
        response.close()
        raise HftoolError(f"{shown} is a web page", "name the file itself")
    return response


@contextmanager
def _download_errors(shown: str) -> Iterator[None]:
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        cause = str(error) or type(error).__name__
        raise HftoolError(f"cannot download {shown}: {cause}") from None


class ArrivingFile(RawIOBase):
    """A file that is read as it arrives, and kept once it was read to its end.

    Args:
        response: the answer with the file.
        kept: where it is kept.
        mark: a file for what identifies the content: its tag, else its hash.
    """

    def __init__(self, response: Any, shown: str, kept: Path, mark: Path | None = None) -> None:
        log.info("downloading %s", shown)
        self._response, self._chunks, self._rest = response, response.iter_bytes(), b""
        self._shown, self._kept, self._mark = shown, kept, mark
        self._sums = hashlib.sha256()
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._left = shutil.disk_usage(kept.parent).free - SPARE
        self._ending = ExitStack()
        self._ending.callback(response.close)
        self._copy = (self._ending.enter_context(atomic_path(kept))).open("wb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as much as the buffer holds, which is less only at the end: what begins a file
        tells its encoding, for example.

        Raises:
            HftoolError: it breaks off, or the disk is full.
        """
        while len(self._rest) < len(buffer) and not self._copy.closed:
            with _download_errors(self._shown):
                chunk = next(self._chunks, None)
            if chunk is None:
                self._finish()
                break
            self._left -= len(chunk)
            if self._left < 0:
                raise HftoolError(f"{self._shown} is larger than the free space of the disk")
            self._sums.update(chunk)
            self._copy.write(chunk)
            self._rest += chunk
        read, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(read)] = read
        return len(read)

    def _finish(self) -> None:
        self._copy.close()
        self._ending.close()
        if self._mark is not None:
            tag = self._response.headers.get("etag") or self._sums.hexdigest()
            self._mark.write_text(tag, encoding="utf-8")

    def close(self) -> None:
        """Forget what was read, unless it was all."""
        if not self._copy.closed:
            self._copy.close()
            with suppress(_Unread), self._ending:
                raise _Unread
        super().close()


class _Unread(Exception):
    """A file was not read to its end."""
