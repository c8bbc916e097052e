"""The options of `encode`: what each asks for, and which exclude each other."""

import itertools
from typing import Any

import pytest

from hftool.errors import UsageError
from hftool.options.encode import EncodeMode, EncodeOptions

CHOSEN: dict[str, tuple[dict[str, Any], EncodeMode]] = {
    "--show-template": ({"show_template": True}, "template"),
    "--count": ({"count": True}, "count"),
    "--roundtrip": ({"roundtrip": True}, "roundtrip"),
    "--compare": ({"compare": "minilm-sst2"}, "compare"),
    "--max-tokens": ({"max_tokens": 0}, "tokens"),
}


def test_without_options_the_tokens_are_written() -> None:
    assert EncodeOptions().mode == EncodeOptions(special=True).mode == "tokens"


@pytest.mark.parametrize("name", CHOSEN)
def test_each_option_has_its_mode(name: str) -> None:
    options, mode = CHOSEN[name]
    assert EncodeOptions(**options).mode == mode


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(CHOSEN, 2)))
def test_two_of_them_exclude_each_other(first: str, second: str) -> None:
    with pytest.raises(UsageError, match=f"^{first} excludes {second}$"):
        EncodeOptions(**CHOSEN[first][0], **CHOSEN[second][0])
