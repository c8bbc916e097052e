"""The bytes of a token, and how hftool shows them."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def bytes_of(token: str, decoders: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the bytes of a token as it is stored.

    Args:
        decoders: the steps of the tokenizer's decoder by type, with their settings.
    """
    if "ByteLevel" in decoders:
        if token.isascii():  # these characters stand for themselves: a fast path
            return token.encode()
        try:
            return token.translate(_bytes_as_latin_1()).encode("latin-1")
        except UnicodeEncodeError:  # it has a character that does not stand for a byte
            return token.encode()
    if "ByteFallback" in decoders and (match := BYTE_TOKEN.fullmatch(token)):
        return bytes([int(match[1], 16)])
    if prefix := decoders.get("WordPiece", {}).get("prefix"):
        return token.removeprefix(prefix).encode()
    if suffix := decoders.get("BPEDecoder", {}).get("suffix"):
        return token.replace(suffix, " ").encode()
    space = decoders.get("Metaspace", {}).get("replacement")
    if space is None and "Replace" in decoders:
        space = decoders["Replace"]["pattern"].get("String")
    return (token.replace(space, " ") if space else token).encode()


def readable(data: bytes) -> str:
    r"""Decode bytes as UTF-8, and show the invalid ones by their values: b"a\xe4" -> "a<0xE4>"."""
    text = data.decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda m: show_bytes(bytes([ord(m[0]) - 0xDC00])), text)


def show_bytes(data: bytes) -> str:
    r"""Show bytes by their values: b"\xe4\xbd" -> "<0xE4><0xBD>"."""
    return "".join(f"<0x{byte:02X}>" for byte in data)


@cache
def _bytes_as_latin_1() -> dict[int, int]:
    """Return the byte of each character that GPT-2 writes for a byte: {ord("Ġ"): 0x20, …}.

    Bytes that are printable in Latin-1 are written as themselves, the others as the characters from
    U+0100 (Radford et al. 2019, `bytes_to_unicode`). All other characters of Latin-1 are mapped to
    U+0100, so that encoding them fails.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {0x100 + i: byte for i, byte in enumerate(others)}
    return dict.fromkeys(others, 0x100) | stand_ins
