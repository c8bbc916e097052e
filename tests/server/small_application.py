"""A small application in place of hftool's own: `python -m tests.server.small_application SOCKET`
is a daemon that runs it."""

import functools
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from hftool.server.daemon import Daemon

app = typer.Typer()


def _fail(value: bool) -> None:
    if value:
        raise RuntimeError("a bug in an option")


# The client sends these names to the daemon.
@app.command("encode")
def encode(
    text: str, status: int = 0, bug: Annotated[bool, typer.Option(callback=_fail)] = False
) -> None:
    """Print a text in capitals, and exit with a status."""
    print(text.upper())
    raise typer.Exit(status)


@app.command("decode")
def decode(text: str) -> None:
    """Fail."""
    raise RuntimeError(f"cannot decode {text}")


class _Commands(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        if name == "chat":
            raise RuntimeError("a bug in the daemon")
        return super().__getitem__(name)


def main() -> None:
    """Be the daemon at the socket that the command line names."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    root.commands = _Commands(root.commands)
    run = functools.partial(root, prog_name="small")
    Daemon(Path(sys.argv[1]), root, run, idle=None, memory_limit=None).serve()


if __name__ == "__main__":
    main()
