"""Packages that only some features need."""

import xml.dom.minidom

import pytest

from hftool.errors import HftoolError
from hftool.extras import import_extra


def test_the_package_of_a_module_is_returned() -> None:
    package = import_extra("xml.dom.minidom", needed_for="XML", extra="xml")
    assert package is xml
    assert package.dom.minidom is xml.dom.minidom


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.deep.inside"])
def test_a_missing_package_is_an_error_with_what_to_install(module: str) -> None:
    with pytest.raises(HftoolError) as caught:
        import_extra(module, needed_for="Parquet", extra="parquet")
    assert caught.value.message == (
        "Parquet needs the package no_such_package, which is not installed"
    )
    assert caught.value.hint == "pip install 'hftool-cli[parquet]'"
