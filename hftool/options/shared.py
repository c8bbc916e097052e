"""What the declarations of options share."""

from typing import Any

import typer


def panel_option(*names: str, panel: str | None, **settings: Any) -> Any:
    """An option that help shows under a heading."""
    return typer.Option(*names, rich_help_panel=panel, **settings)
