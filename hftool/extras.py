"""Packages that hftool needs for some features only: extras of `hftool-cli`."""

from importlib import import_module
from typing import Any

from hftool.errors import HftoolError


def import_extra(module: str, *, needed_for: str, extra: str) -> Any:
    """Import a module, and return the package it is in.

    Args:
        module: what to import, such as "pyarrow.parquet".
        needed_for: what the user wants to do, for the error.
        extra: the extra of `hftool-cli` that installs the package.

    Raises:
        HftoolError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        import_module(module)
        return import_module(package)
    except ImportError:
        raise HftoolError(
            f"{needed_for} needs the package {package}, which is not installed",
            f"pip install 'hftool-cli[{extra}]'",
        ) from None
