"""The bytes of a token, and how hftool shows them."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Step = Mapping[str, Any]
"""A step of a tokenizer's decoder: its `type` and its settings, as in tokenizer.json."""

# What the decoders WordPiece and CTC replace if their `cleanup` is set.
_CLEANUP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't")),
    *((" 'm", "'m"), (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


def bytes_of(token: str, steps: Sequence[Step]) -> bytes:
    """Return the bytes of a token inside a text: what the steps of the decoder make of it there.

    A WordPiece token is without the space that the decoder puts before a word.
    """
    if len(steps) == 1 and steps[0]["type"] == "ByteLevel" and token.isascii():
        return token.encode()  # these characters stand for themselves: a fast path
    fused = False  # what a Strip after Fuse removes is at the ends of the text
    for step in steps:
        match step["type"]:
            case "ByteLevel":
                token = _text(_bytes_of_stand_ins(token))
                fused = True
            case "ByteFallback":
                if match := BYTE_TOKEN.fullmatch(token):
                    token = _text(bytes([int(match[1], 16)]))
            case "Fuse":
                fused = True
            case "Strip" if not fused:
                token = _stripped(token, step)
            case "Replace":
                token = _replaced(token, step)
            case "Metaspace":
                token = token.replace(step["replacement"], " ")
            case "WordPiece":
                token = word_piece(token, step).removeprefix(" ")
            case "BPEDecoder":
                token = token.replace(step["suffix"], " ")
            case "CTC":
                token = "" if token == step["pad_token"] else token.replace(step["pad_token"], "")
                if step["cleanup"]:
                    token = _cleaned(token).replace(step["word_delimiter_token"], " ")
    return token.encode("utf-8", "surrogateescape")


def is_utf8(data: bytes) -> bool:
    """Return whether bytes are valid UTF-8, with no character cut off."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def word_piece(token: str, step: Step) -> str:
    """Return a WordPiece token as the decoder writes it after others: "##s" -> "s", "a" -> " a"."""
    prefix = step["prefix"]
    word = token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
    return _cleaned(word) if step["cleanup"] else word


def _text(data: bytes) -> str:
    """Return bytes as text for the next steps, which leave the invalid ones as they are."""
    return data.decode("utf-8", "surrogateescape")


def _bytes_of_stand_ins(token: str) -> bytes:
    try:
        return token.translate(_bytes_as_latin_1()).encode("latin-1")
    except UnicodeEncodeError:  # it has a character that does not stand for a byte
        return token.encode("utf-8", "surrogateescape")


@cache
def stand_ins() -> dict[int, str]:
    """Return the character that GPT-2 writes for each byte: {0x20: "Ġ", …}.

    Bytes that are printable in Latin-1 are written as themselves, the others as the characters from
    U+0100 (Radford et al. 2019, `bytes_to_unicode`).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def stand_ins_of(text: str) -> str:
    """Return the characters that GPT-2 writes for the bytes of a text: "é a" -> "Ã©Ġa"."""
    return text.encode().decode("latin-1").translate(stand_ins())


def _stripped(token: str, step: Step) -> str:
    content, start, stop = step["content"], step["start"], step["stop"]
    left = len(token) - len(token.lstrip(content))
    token = token[min(left, start) :]
    right = len(token) - len(token.rstrip(content))
    return token[: len(token) - min(right, stop)]


def _replaced(token: str, step: Step) -> str:
    if (searched := step["pattern"].get("String")) is not None:
        return token.replace(searched, step["content"])
    try:
        return str(_regex_replacer(step["pattern"]["Regex"], step["content"]).decode([token]))
    except UnicodeEncodeError:  # the token is only a part of a character
        return token


@cache
def _regex_replacer(pattern: str, content: str) -> Any:
    from tokenizers import Regex, decoders

    return decoders.Replace(Regex(pattern), content)


def _cleaned(text: str) -> str:
    for spaced, clean in _CLEANUP:
        text = text.replace(spaced, clean)
    return text


def readable(data: bytes) -> str:
    r"""Decode bytes as UTF-8, and show the invalid ones by their values: b"a\xe4" -> "a<0xE4>"."""
    text = data.decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda m: show_bytes(bytes([ord(m[0]) - 0xDC00])), text)


def show_bytes(data: bytes) -> str:
    r"""Show bytes by their values: b"\xe4\xbd" -> "<0xE4><0xBD>"."""
    return "".join(f"<0x{byte:02X}>" for byte in data)


@cache
def _bytes_as_latin_1() -> dict[int, int]:
    """Return the byte of each of those characters: {ord("Ġ"): 0x20, …}.

    All other characters of Latin-1 are mapped to U+0100, so that encoding them fails.
    """
    values = {ord(character): byte for byte, character in stand_ins().items()}
    return dict.fromkeys(values.values(), 0x100) | values
