"""The columns of the input in records that have results beside them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from hftool.output.view import Beside, Row, View


class InputShape(Protocol):
    """What a view needs to know about the table that the texts are from."""

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns, as csv and tsv write them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The same names, each of them once."""

    @property
    def schema(self) -> Callable[[], Any]:
        """A function that returns the columns' types (`pyarrow.Schema`)."""

    @property
    def nulls(self) -> Mapping[str, str]:
        """How csv and tsv write a missing value, by format."""


class InputColumns:
    """The input's columns, under their own names: one that is called as a result is becomes
    `input_NAME`.

    Attributes:
        columns: their names in records, and after them the results.
        header: the same, as csv and tsv write them.
    """

    def __init__(
        self, given: InputShape, results: Sequence[str], reserved: Collection[str] = ()
    ) -> None:
        """Name the columns of `given` beside `results`; `reserved` are names that records have
        besides."""
        self._given, self._results = given, results
        self._reserved = {*results, *reserved}
        self._new_names = names_in_records(given.names, self._reserved)
        self._old_names = {new: name for name, new in self._new_names.items()}
        new_header = names_in_records(given.header, self._reserved)
        self.columns = (*self._new_names.values(), *results)
        self.header = (*(new_header[name] for name in given.header), *results)

    def named(self, columns: Mapping[str, Any]) -> Row:
        """Return the columns of a record by their new names."""
        # A record of JSON from stdin may have columns that the first one lacks.
        known = columns.keys() <= self._new_names.keys()
        names = self._new_names if known else names_in_records([*columns], self._reserved)
        return {names[name]: value for name, value in columns.items()}

    def beside(self, columns: Mapping[str, Any], results: Mapping[str, Any]) -> Row:
        """Return a row of the columns of a record, which are looked up as needed, and results."""
        return Beside(columns, self._old_names, results)

    def view(self, *, bom: bool, **functions: Any) -> View:
        """Return a view of records with these columns.

        Args:
            bom: whether csv begins with a byte-order mark.
            functions: what makes text, records, rows and tables of them, as `View` gets it.
        """
        return View(
            columns=self.columns,
            header=self.header,
            nulls=self._given.nulls,
            bom=bom,
            schema=self.schema,
            **functions,
        )

    def schema(self) -> Any:
        """Return the types of the columns and of the results (`pyarrow.Schema`)."""
        from hftool.output.parquet import results_schema

        return results_schema(self._given.schema(), self._new_names, self._results)


def names_in_records(names: Sequence[str], reserved: Collection[str]) -> dict[str, str]:
    """Return the names of the input's columns in the records, by those in the input.

    They stay the same, but one that is `reserved` for the results becomes `input_NAME`.
    """
    renamed: dict[str, str] = {}
    for name in names:
        new = name
        while new in reserved or (new != name and new in names):
            new = f"input_{new}"
        renamed[name] = new
    return renamed
