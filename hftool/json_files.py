"""Read JSON files."""

import json
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError


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
        raise HftoolError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise HftoolError(f"cannot read {path}: it is not a JSON object")
    return content
