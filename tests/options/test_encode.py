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
    "--explain": ({"explain": True}, "explain"),
}


def test_without_options_the_tokens_are_written() -> None:
    assert EncodeOptions().mode == EncodeOptions(special=True).mode == "tokens"


@pytest.mark.parametrize("name", CHOSEN)
def test_each_option_has_its_mode(name: str) -> None:
    options, mode = CHOSEN[name]
    assert EncodeOptions(**options).mode == mode


PAIRS = [{*pair} for pair in itertools.combinations(CHOSEN, 2)]


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != {"--count", "--compare"}])
def test_two_of_them_exclude_each_other(pair: set[str]) -> None:
    options = {name: value for each in pair for name, value in CHOSEN[each][0].items()}
    with pytest.raises(UsageError) as caught:
        EncodeOptions(**options)
    first, second = caught.value.message.split(" excludes ")
    assert {first, second} == pair


def test_tokenizers_are_compared_by_counts() -> None:
    assert EncodeOptions(count=True, compare="minilm-sst2").mode == "compare_counts"
