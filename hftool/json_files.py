"""Read JSON files, and recognise what is not the file that it should be."""

import json
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError

START_BYTES = 64  # of a file, by which it is recognised
LFS_POINTER = "it is only a Git LFS pointer to the file", "run `git lfs pull` in its folder"
WEB_PAGE = "it is a web page, not the file", "download the file again"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one if the file does not exist.

    Raises:
        HftoolError: the file can't be read, is not JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        cause, hint = not_the_file(path) or (error, None)
        raise HftoolError(f"cannot read {path}: {cause}", hint) from None
    if not isinstance(content, dict):
        raise HftoolError(f"cannot read {path}: it is not a JSON object")
    return content


def not_the_file(path: Path) -> tuple[str, str] | None:
    """Return what a file is instead of a model's file, with a hint; None if it is not known."""
    try:
        with path.open("rb") as file:
            return not_data(file.read(START_BYTES))
    except OSError:
        return None


def not_data(start: bytes) -> tuple[str, str] | None:
    """Return what a file that begins so is instead of data, with a hint; None if it is not known.

    A repository that was cloned without Git LFS has pointers, and a download that was refused is a
    web page.
    """
    start = start.lstrip()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return LFS_POINTER
    return WEB_PAGE if start.lower().startswith((b"<!doctype html", b"<html")) else None
