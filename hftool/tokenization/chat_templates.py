"""Read the chat templates in a model's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError

DEFAULT = "default"


def read_chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return a model's chat templates (Jinja) by name; one without a name is called "default".

    As for transformers, `chat_template.jinja` and `additional_chat_templates/NAME.jinja` replace
    those in tokenizer_config.json.

    Raises:
        HftoolError: one of them can't be read, or is not a text.
    """
    own = folder / "chat_template.jinja"
    others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    files = {**({DEFAULT: own} if own.is_file() else {}), **{path.stem: path for path in others}}
    if files:
        return {name: read_template(file) for name, file in files.items()}
    template = config.get("chat_template")
    try:
        if isinstance(template, list):
            template = {item["name"]: item["template"] for item in template}
    except (KeyError, TypeError) as error:
        cause = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise _unreadable(folder / "tokenizer_config.json", cause) from None
    templates = template if isinstance(template, dict) else {DEFAULT: template}
    for name, text in templates.items():
        if not isinstance(name, str) or not isinstance(text, str | None):
            raise _unreadable(folder / "tokenizer_config.json", "it is not a text")
    return {name: text for name, text in templates.items() if text}


def read_template(file: Path) -> str:
    """Return the template in a file.

    Raises:
        HftoolError: it can't be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _unreadable(file, str(cause)) from None


def _unreadable(file: Path, cause: str) -> HftoolError:
    return HftoolError(f"cannot read the chat template in {file}: {cause}")
