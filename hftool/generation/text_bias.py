"""Make texts more or less likely, or impossible, whatever tokens spell them."""

import logging
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from hftool.errors import HftoolError, UsageError
from hftool.generation.samplers import DRY_BREAKERS
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

SHOWN = 4  # tokens that a note names


def parse_bias(text: str) -> tuple[str, float]:
    """Parse TEXT=B, as in " Paris=5".

    Raises:
        UsageError: there is no text, or B is not a finite number.
    """
    name, _, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = math.nan
    if not name or not math.isfinite(bias):
        raise UsageError(
            f"'{text[:40]}' is not a text and its bias",
            "as in --bias Paris=5, which adds 5 to the logits of its tokens",
        )
    return name, bias


def cases(text: str) -> list[str]:
    """Return a text as it is, in lower case, in upper case and capitalized."""
    word = text.lstrip(" ")
    spaces = text[: len(text) - len(word)]
    words = (word, word.lower(), word.upper(), word.capitalize())
    return list(dict.fromkeys(spaces + word for word in words))


def variants(text: str, *, any_case: bool) -> list[str]:
    """Return a text with and without a space before it (as it is if it begins with a space), and
    with `any_case` each of them in all `cases`."""
    texts = cases(text) if any_case else [text]
    return texts if text.startswith(" ") else [*texts, *(f" {text}" for text in texts)]


def spellings(tokenizer: Tokenizer, text: str, *, any_case: bool) -> list[tuple[int, ...]]:
    """Return the ids that spell a text within another, one tuple for each of its `variants`.

    Raises:
        UsageError: the tokenizer has no tokens for any of them.
    """
    found: dict[tuple[int, ...], None] = {}
    for variant in variants(text, any_case=any_case):
        token_id = tokenizer.backend.token_to_id(variant)
        encoded = tuple(tokenizer.encode(variant, special=False).ids)
        for ids in (encoded, () if token_id is None else (token_id,)):
            if ids and _spells(tokenizer, ids, variant):
                found[ids] = None
    if not found:
        raise UsageError(f"--bias: {tokenizer.name} has no tokens for '{text[:40]}'")
    return list(found)


def _spells(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> bool:
    """Return whether tokens are a text inside another: some tokenizers put a space before it."""
    if len(ids) == 1 and tokenizer.backend.id_to_token(ids[0]) == text:
        return tokenizer.token_bytes(ids[0]) in (None, text.encode())
    return b"".join(tokenizer.token_bytes(i) or b"" for i in ids) == text.encode()


@lru_cache(maxsize=64)
def biases(
    tokenizer: Tokenizer, given: tuple[str, ...], *, any_case: bool
) -> dict[tuple[int, ...], float]:
    """Return what to add to the last of several tokens where the others precede it. Cached, so that
    the tokens of a text are named only once.

    Only the last token of a spelling becomes less likely, so that no other text does. To become
    more likely, a text needs its first tokens too.

    Raises: as `parse_bias` and `spellings`.
    """
    whole: dict[tuple[int, ...], float] = {}
    beginnings: dict[tuple[int, ...], float] = {}
    for item in given:
        text, bias = parse_bias(item)
        found = spellings(tokenizer, text, any_case=any_case)
        whole.update(dict.fromkeys(found, bias))
        if bias > 0:
            for ids in found:
                for end in range(1, len(ids)):
                    beginnings[ids[:end]] = max(bias, beginnings.get(ids[:end], bias))
        named = (" + ".join(f'"{tokenizer.token_text(i)}"' for i in ids) for ids in found)
        log.info("--bias %s: %s", item, ", ".join(named))
    return beginnings | whole


class BannedTexts:
    """A logits processor that removes each token with which a generated text would contain one of
    several texts, whatever tokens spell it. The prompt is not searched.

    Args:
        prompt_length: the number of tokens before the generated ones.
    """

    def __init__(self, tokenizer: Tokenizer, texts: tuple[str, ...], prompt_length: int) -> None:
        self._tokenizer = tokenizer
        self._texts = tuple(text.encode() for text in texts)
        self._prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return logits [sequences, vocabulary] without the removed tokens.

        Args:
            input_ids: the tokens so far [sequences, tokens].

        Raises:
            HftoolError: no token is left.
        """
        scores = scores.clone()
        for ids, row in zip(input_ids.tolist(), scores, strict=True):
            for removed in self._removed(ids[self._prompt_length :]):
                row[removed[removed < len(row)].to(row.device)] = -torch.inf
            if bool(torch.isneginf(row).all()):
                raise HftoolError("--ban leaves no token")
        return scores

    def _removed(self, generated: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield the ids [tokens] that would complete a text: all of it, or what is left of it."""
        yield _tokens_with(self._tokenizer, self._texts)
        vocabulary = vocabulary_bytes(self._tokenizer)
        tail, longest = b"", max(map(len, self._texts)) - 1
        for token_id in reversed(generated):
            if len(tail) >= longest:
                break
            tail = (vocabulary[token_id] if token_id < len(vocabulary) else b"") + tail
        for text in self._texts:
            for end in range(1, len(text)):
                if tail.endswith(text[:end]):
                    yield _tokens_beginning(self._tokenizer, text[end:])


@lru_cache(maxsize=2)
def vocabulary_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of each token, by its id; of special tokens none."""
    return [tokenizer.token_bytes(token_id) or b"" for token_id in range(tokenizer.size)]


@lru_cache(maxsize=64)
def _tokens_with(tokenizer: Tokenizer, texts: tuple[bytes, ...]) -> torch.Tensor:
    """Return the ids [tokens] of all tokens that contain one of the texts, special tokens by their
    names."""
    vocabulary = vocabulary_bytes(tokenizer)
    names = (tokenizer.backend.token_to_id(text.decode()) for text in texts)
    special = [i for i in names if i is not None and not vocabulary[i]]
    found = [i for i, data in enumerate(vocabulary) if any(text in data for text in texts)]
    return torch.tensor([*found, *special], dtype=torch.long)


@lru_cache(maxsize=256)
def _tokens_beginning(tokenizer: Tokenizer, text: bytes) -> torch.Tensor:
    """Return the ids [tokens] of all tokens that begin with a text."""
    vocabulary = vocabulary_bytes(tokenizer)
    return torch.tensor([i for i, data in enumerate(vocabulary) if data.startswith(text)]).long()


@lru_cache(maxsize=64)
def banned_texts(
    tokenizer: Tokenizer, given: tuple[str, ...], *, any_case: bool
) -> tuple[str, ...]:
    """Return the texts to ban for those of `--ban`. Cached, so that the tokens of each are named
    only once."""
    banned: dict[str, None] = {}
    for text in given:
        texts = cases(text) if any_case else [text]
        ids = _tokens_with(tokenizer, tuple(text.encode() for text in texts)).tolist()
        ids.sort(key=lambda i: len(vocabulary_bytes(tokenizer)[i]))
        shown = ", ".join(f'"{tokenizer.token_text(i)}"' for i in ids[:SHOWN])
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        tokens = f"the tokens {shown}{more}" if ids else "no token has it"
        log.info("--ban %s: %s; nor may several tokens spell it", text, tokens)
        banned |= dict.fromkeys(texts)
    return tuple(banned)


@lru_cache(maxsize=2)
def dry_breakers(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that a repetition does not reach beyond."""
    vocabulary = enumerate(vocabulary_bytes(tokenizer))
    return frozenset(i for i, data in vocabulary if any(text in data for text in DRY_BREAKERS))
