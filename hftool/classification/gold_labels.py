"""The right labels of texts, which a column of the input has."""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hftool.classification.classify import Classification
from hftool.errors import HftoolError, UsageError
from hftool.inputs.columns import MISSING, did_you_mean, value_in

log = logging.getLogger("hftool")

ROWS_WITHOUT = 100  # rows to read before a column is taken for missing


class GoldLabels:
    """Finds the labels that a row's value in a column means."""

    def __init__(self, labels: Sequence[str], column: str, *, several: bool) -> None:
        self._column = column
        self._several = several
        self._labels = labels
        self._by_name = {label: label for label in labels}
        folded = Counter(label.casefold() for label in labels)
        self._by_folded = {x.casefold(): x for x in labels if folded[x.casefold()] == 1}
        self._by_number = {str(i): label for i, label in enumerate(labels)}
        self._numbered: bool | None = None  # whether the column has the labels' numbers
        self._found = False
        self._without = 0  # rows without a value, before the first one with a value
        self._columns: dict[str, Any] = {}  # those of these rows

    def missing(self) -> HftoolError:
        """Return the error of an input in which no row has a right label."""
        if self._column in self._columns or self._found:
            return HftoolError(f"no row has a label in the column '{self._column}'")
        if not self._columns:
            return UsageError(
                "--gold needs a table with a column of labels", "as in -f reviews.csv"
            )
        names = ", ".join(f"'{name}'" for name in self._columns)
        return UsageError(
            f"--gold: there is no column '{self._column}'; there are {names}",
            did_you_mean([*self._columns], self._column),
        )

    def of(self, classification: Classification) -> set[str] | None:
        """Return the right labels of a text, None if the row does not tell. If a text can have
        several, the value is a list, or names with a comma, a semicolon or a bar between them, of
        which the empty text has none.

        Raises:
            UsageError: there is no such column or no such label.
        """
        value = value_in(classification.columns, self._column)
        value = None if value is MISSING else value
        if value is None and not self._found:
            self._columns.update(classification.columns)
            self._without += 1
            if self._without == ROWS_WITHOUT and self._column not in self._columns:
                raise self.missing()
            return None
        self._found = True
        if value is None:
            return None
        if self._several:
            names = map(_name, value) if isinstance(value, list) else self._split(_name(value))
            return {self._label(name) for name in names if name}
        name = _name(value)
        return {self._label(name)} if name else None

    def _split(self, text: str) -> list[str]:
        return [text] if text in self._by_name else re.split(r"\s*[,;|]\s*", text)

    def _label(self, name: str) -> str:
        label = self._by_name.get(name) or self._by_folded.get(name.casefold())
        number = re.sub(r"\.0+$", "", name)  # pandas writes 1.0 to CSV where rows lack a number
        label = label or self._by_name.get(number)
        if label is None and self._numbered is not False:
            label = self._by_number.get(number)
            if label is not None and self._numbered is None:
                numbers = ", ".join(f"{i} is {x}" for i, x in enumerate(self._labels))
                log.info("--gold: the column has the numbers of the labels: %s", numbers)
            self._numbered = label is not None
        elif label is not None and self._numbered is None:
            self._numbered = False
        if label is None:
            listed = ", ".join(self._labels)
            raise UsageError(
                f"--gold: '{name}' is not one of the labels: {listed}",
                "rename the values of the column, or leave those rows out",
            )
        return label


def _name(value: Any) -> str:
    """Return a value of a column as the name of a label: 1.0 of pandas is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float) and math.isnan(value):
        return ""
    return str(value).strip()
