"""Audit a vocabulary: tokens that no text gives, or that are not text, rows without a token."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from hftool.options.vocabulary import TokenKind, VocabularyOptions
from hftool.tokenization.token_bytes import BYTE_TOKEN, is_utf8
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.vocabulary import VocabularyEntry, embedding_rows, vocabulary

Problem = Literal["unreachable", "not-utf8", "duplicate", "no-token", "no-row"]
BATCH = 4096
# Where a token may occur: some tokens do not begin or end a text.
CONTEXTS = (
    "{}",
    " {}",
    "a{}",
    "{}a",
    "a{}a",
    "\n{}",
    ".{}",
    "1{}",
    "({}",
    "é{}",
    "{} ",
    "a {}",
    "Z{}z",
)


@dataclass(frozen=True)
class Finding:
    """Something about a token of a vocabulary that may be a fault.

    - `unreachable`: no text gives the token; `cause` says whether the model or what comes before it
      makes other tokens of the token's text.
    - `not-utf8`: its bytes are not a whole character.
    - `duplicate`: the token `same_as` has the same bytes.
    - `no-token`: the model's embedding has a row for an id without a token.
    - `no-row`: the embedding has no row for the token.
    """

    problem: Problem
    id: int
    token: str
    text: str
    bytes: str | None
    kind: TokenKind
    cause: str | None = field(default=None, metadata={"optional": True})
    same_as: int | None = field(default=None, metadata={"optional": True})


def audit_vocabulary(tokenizer: Tokenizer, selection: VocabularyOptions) -> Iterator[Finding]:
    """Yield possible defects of a vocabulary, by kind and then by id.

    Raises: as `vocabulary`.
    """
    entries = list(vocabulary(tokenizer, selection))
    yield from _unreachable(tokenizer, entries)
    for entry in entries:
        if entry.bytes is not None and not is_utf8(bytes.fromhex(entry.bytes)):
            yield _finding("not-utf8", entry)
    yield from _duplicates(tokenizer, entries)
    yield from _rows(tokenizer, entries, selection)


def _finding(problem: Problem, entry: VocabularyEntry, **more: Any) -> Finding:
    return Finding(problem, entry.id, entry.token, entry.text, entry.bytes, entry.kind, **more)


def _unreachable(tokenizer: Tokenizer, entries: list[VocabularyEntry]) -> Iterator[Finding]:
    listed = [e for e in entries if e.kind in ("normal", "byte") and e.id != tokenizer.unknown_id]
    for start in range(0, len(listed), BATCH):
        some = listed[start : start + BATCH]
        texts = [bytes.fromhex(e.bytes or "").decode("utf-8", "replace") for e in some]
        for entry, text, ids in zip(some, texts, _encoded(tokenizer, texts), strict=True):
            if entry.id not in ids and (cause := _cause(tokenizer, entry, text)):
                yield _finding("unreachable", entry, cause=cause)


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    try:
        encodings = tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)
    except Exception:  # one of them has a character without a token
        return (
            [[] for _ in texts] if len(texts) == 1 else [_encoded(tokenizer, [t])[0] for t in texts]
        )
    return [encoding.ids for encoding in encodings]


def _cause(tokenizer: Tokenizer, entry: VocabularyEntry, text: str) -> str | None:
    """Return why no text gives a token that its own text does not give; None if some text may."""
    data = bytes.fromhex(entry.bytes or "")
    if not _occurs_in_utf8(data):
        return "its bytes do not occur in UTF-8"
    if match := BYTE_TOKEN.fullmatch(entry.token):
        has_character = tokenizer.backend.token_to_id(chr(int(match[1], 16))) is not None
        is_ascii = int(match[1], 16) < 0x80
        return "its character has a token" if is_ascii and has_character else None
    if not is_utf8(data):
        return None if _is_whole(tokenizer, entry.token) else "the model makes other tokens of it"
    contexts = [context.format(text) for context in CONTEXTS]
    if any(entry.id in ids for context in contexts for ids in _encoded(tokenizer, [context])):
        return None
    if not any(_part(tokenizer, entry.token) in p for c in contexts for p in _parts(tokenizer, c)):
        return "the normalizer or the splitter changes its text"
    return None if _is_whole(tokenizer, entry.token) else "the model makes other tokens of it"


def _part(tokenizer: Tokenizer, token: str) -> str:
    """Return what of a token is in the text that the model gets."""
    model = tokenizer.backend.model
    prefix = getattr(model, "continuing_subword_prefix", None) or ""
    return token.removeprefix(prefix).removesuffix(getattr(model, "end_of_word_suffix", None) or "")


def _parts(tokenizer: Tokenizer, text: str) -> list[str]:
    normalizer, splitter = tokenizer.backend.normalizer, tokenizer.backend.pre_tokenizer
    normalized = normalizer.normalize_str(text) if normalizer else text
    return [part for part, _ in splitter.pre_tokenize_str(normalized)] if splitter else [normalized]


def _is_whole(tokenizer: Tokenizer, token: str) -> bool:
    """Return whether a model makes one token of a token's own characters; where it writes the ends
    or the insides of words in another way, that is not known, and taken for granted."""
    if _part(tokenizer, token) != token or getattr(
        tokenizer.backend.model, "end_of_word_suffix", None
    ):
        return True
    try:
        return [made.value for made in tokenizer.backend.model.tokenize(token)] == [token]
    except Exception:  # it has a character without a token
        return False


def _occurs_in_utf8(data: bytes) -> bool:
    """Return whether bytes may be a part of valid UTF-8, perhaps of characters cut at both ends."""
    rest = data.lstrip(bytes(range(0x80, 0xC0)))
    if len(data) - len(rest) > 3:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(rest)
    except UnicodeDecodeError:
        return False
    return True


def _duplicates(tokenizer: Tokenizer, entries: list[VocabularyEntry]) -> Iterator[Finding]:
    first: dict[tuple[str, bool], int] = {}
    for entry in entries:
        # Byte tokens stand in for characters without a token; they repeat others by design.
        if entry.bytes is None or BYTE_TOKEN.fullmatch(entry.token):
            continue
        key = (entry.bytes, _part(tokenizer, entry.token) != entry.token)
        if key in first:
            yield _finding("duplicate", entry, same_as=first[key])
        else:
            first[key] = entry.id


def _rows(
    tokenizer: Tokenizer, entries: list[VocabularyEntry], selection: VocabularyOptions
) -> Iterator[Finding]:
    rows = embedding_rows(tokenizer)
    if rows is None:
        return
    for entry in entries:
        if entry.kind == "unused" and entry.id < rows:
            yield _finding("no-token", entry)
        elif entry.kind != "unused" and entry.id >= rows:
            yield _finding("no-row", entry)
    if selection == VocabularyOptions():
        for token_id in range(tokenizer.size, rows):
            yield Finding("no-token", token_id, "", "", None, "unused")
