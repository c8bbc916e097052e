"""Read JSON files."""

import json
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no such file.

    Raises:
        HftoolError: the file can't be read as JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise HftoolError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise HftoolError(f"cannot read {path}: it holds no JSON object")
    return content
