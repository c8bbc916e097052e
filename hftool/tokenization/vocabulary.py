"""List, select and count the tokens of a vocabulary."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from hftool.errors import HftoolError, UsageError
from hftool.json_files import read_json
from hftool.options.vocabulary import TokenKind, VocabularyOptions
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

LONGEST_LISTED = 10  # tokens listed in the statistics
MAX_IDS = 10_000_000  # more ids are in a broken or a hostile file

SCRIPT_OF = {"chinese": "Han", "russian": "Cyrillic", "korean": "Hangul", "hindi": "Devanagari"}
"""The script of a language, for those whose names people give instead."""


@dataclass(slots=True)  # not frozen: making 250,000 of them would take several times longer
class VocabularyEntry:
    """A token by its id: as it is stored, its text when decoded by itself, its bytes in hex."""

    id: int
    token: str
    text: str
    bytes: str | None
    kind: TokenKind


@dataclass(frozen=True)
class VocabularyStats:
    """Sizes and counts of a vocabulary.

    `vocab_size` counts the tokens without the added ones, `size` all of them. `embedding_rows` is
    the vocabulary size in the model's config, None without a config. `kinds` and `scripts` count
    tokens, `longest` has the longest texts, `special_tokens` the special tokens by role.
    """

    vocab_size: int
    size: int
    embedding_rows: int | None
    kinds: dict[str, int]
    scripts: dict[str, int]
    longest: tuple[str, ...]
    special_tokens: dict[str, str]


def vocabulary(
    tokenizer: Tokenizer, selection: VocabularyOptions | None = None
) -> Iterator[VocabularyEntry]:
    """Return the entries of a selection; by default one for each id of the tokenizer, ascending.

    An unused id below the highest one has an entry with empty texts, of the kind `unused`.
    Embedding rows after the last token have one only if the selection is of that kind.

    If the selected ids are all after the last token, a warning is logged.

    Raises:
        UsageError: an invalid regular expression, range of ids or script.
        HftoolError: the ids are higher than in any vocabulary.
    """
    selection = selection or VocabularyOptions()
    entries = _entries(tokenizer, selection.kind == "unused")
    for condition in _conditions(selection):
        entries = filter(condition, entries)
    if selection.ids is not None and selection.kind != "unused":
        if all(ids.start >= tokenizer.size for ids in parse_ranges(selection.ids)):
            log.warning("the ids of %s go from 0 to %d", tokenizer.name, tokenizer.size - 1)
    if selection.sort == "text":
        return iter(sorted(entries, key=lambda entry: entry.text))
    if selection.sort == "length":
        return iter(sorted(entries, key=lambda entry: (-len(entry.text), entry.id)))
    return entries


def _entries(tokenizer: Tokenizer, rows: bool) -> Iterator[VocabularyEntry]:
    size = max(tokenizer.size, embedding_rows(tokenizer) or 0) if rows else tokenizer.size
    if size > MAX_IDS:
        raise HftoolError(
            f"the ids of {tokenizer.name} go up to {size - 1:,}, higher than in any vocabulary"
        )
    for token_id in range(size):
        token, data, kind = tokenizer.describe(token_id)
        text = "" if kind == "unused" else tokenizer.single_text(token_id)
        yield VocabularyEntry(token_id, token, text, None if data is None else data.hex(), kind)


def _conditions(selection: VocabularyOptions) -> list[Callable[[VocabularyEntry], bool]]:
    """Return the conditions that an entry must fulfil.

    Raises:
        UsageError: an invalid regular expression, range of ids or script.
    """
    conditions: list[Callable[[VocabularyEntry], bool]] = []
    if selection.grep is not None:
        try:
            search = re.compile(selection.grep).search
        except re.error as error:
            raise UsageError(f"--grep: {error}", "it takes a regular expression") from None
        conditions.append(lambda entry: search(entry.text) is not None)
    if selection.kind is not None:
        conditions.append(lambda entry: entry.kind == selection.kind)
    if selection.ids is not None:
        ranges = parse_ranges(selection.ids)
        conditions.append(lambda entry: any(entry.id in ids for ids in ranges))
    if (shortest := selection.min_length) is not None:
        conditions.append(lambda entry: len(entry.text) >= shortest)
    if (longest := selection.max_length) is not None:
        conditions.append(lambda entry: len(entry.text) <= longest)
    if selection.script is not None:
        script = _script_name(selection.script)
        conditions.append(lambda entry: script_of(entry.text) == script)
    return conditions


def parse_ranges(text: str) -> list[range]:
    """Parse ids and ranges of ids, which include both ends: "0-5,100" -> 0 to 5, and 100.

    Raises:
        UsageError: a part of the text is neither.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part, re.ASCII)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(
                f"--ids: '{part[:40]}' is neither an id nor a range", "as in --ids 0-5,100"
            )
        ranges.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return ranges


def statistics(tokenizer: Tokenizer, selection: VocabularyOptions | None = None) -> VocabularyStats:
    """Count the entries of a selection.

    Raises: as `vocabulary`.
    """
    entries = list(vocabulary(tokenizer, selection))
    texts = [entry.text for entry in entries if entry.kind in ("normal", "added")]
    return VocabularyStats(
        vocab_size=tokenizer.backend.get_vocab_size(with_added_tokens=False),
        size=tokenizer.backend.get_vocab_size(with_added_tokens=True),
        embedding_rows=embedding_rows(tokenizer),
        kinds=dict(Counter(entry.kind for entry in entries).most_common()),
        scripts=dict(Counter(map(script_of, texts)).most_common()),
        longest=tuple(sorted(texts, key=len, reverse=True)[:LONGEST_LISTED]),
        special_tokens=tokenizer.special_tokens,
    )


def embedding_rows(tokenizer: Tokenizer) -> int | None:
    """Return the number of rows of the model's embedding by its config, None without a config.

    It may be larger than the number of tokens.
    """
    config = read_json(tokenizer.folder / "config.json")
    text_config = config.get("text_config")
    inner = text_config.get("vocab_size") if isinstance(text_config, dict) else None
    rows = config.get("vocab_size") or inner
    return rows if type(rows) is int else None


def script_of(text: str) -> str:
    """Return the Unicode script of a text's letters: "Latin", "Han", …; "Common" for a text without
    letters (digits, signs, spaces), "Mixed" for several scripts."""
    scripts = {_script(character) for character in text} - {"Common", "Inherited"}
    return "Common" if not scripts else scripts.pop() if len(scripts) == 1 else "Mixed"


@cache
def _script(character: str) -> str:
    from fontTools import unicodedata

    return str(unicodedata.script_name(unicodedata.script(character)))


def _script_name(text: str) -> str:
    """Return the name of a script that is given by its name, its code or a language that has it:
    "han", "Hani", "Chinese" -> "Han"."""
    from fontTools import unicodedata

    text = SCRIPT_OF.get(text.lower(), text)
    code = unicodedata.script_code(text, default=text.title())
    name = "Mixed" if text.lower() == "mixed" else unicodedata.script_name(code, default=None)
    if name is None:
        raise UsageError(f"--script: there is no script '{text}'", "as in --script Han")
    return str(name)
