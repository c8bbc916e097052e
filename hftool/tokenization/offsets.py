"""The characters of a text that each token covers.

tokenizers aligns the text after the normalizer with the text as given. A normalizer that makes one
character of several keeps only one of them: "e" without its accent under NFC, the last space of a
run under a replacement. Here the token has all of them.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from hftool.tokenization.pipeline import steps_of
from hftool.tokenization.token_bytes import stand_ins_of

Offsets = tuple[int, int]
LONGEST_MERGED = 8  # characters that a normalizer makes one of, apart from the first
# These never merge characters of ASCII.
_CHARACTER_WISE = (
    *(normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD),
    *(normalizers.Lowercase, normalizers.StripAccents, normalizers.BertNormalizer),
    normalizers.ByteLevel,
)


class OffsetCorrection:
    """Corrects the offsets of a tokenizer's tokens.

    Args:
        backend: the tokenizer; its normalizer and splitter must not change later.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        steps = list(steps_of(backend.normalizer))
        self._text_prefixes = _text_prefixes(steps, backend.pre_tokenizer)
        self._word_prefixes = _word_prefixes(backend.pre_tokenizer)
        self._added = {token.content for token in backend.get_added_tokens_decoder().values()}
        # Without the steps that only add or remove characters at the ends of a text.
        steps = [s for s in steps if not isinstance(s, normalizers.Prepend | normalizers.Strip)]
        self._stages = [normalizers.Sequence(steps[: n + 1]) for n in range(len(steps))]
        self._character_wise = all(isinstance(step, _CHARACTER_WISE) for step in steps)

    def corrected(
        self, text: str, tokens: Sequence[str], offsets: Sequence[Offsets]
    ) -> list[Offsets]:
        """Return the characters that each token covers, at least in part: (start, end).

        A token that only has a space which the tokenizer put before the text covers none. A
        character that the normalizer or the splitter removed belongs to no token.
        """
        spans = list(offsets)
        if self._text_prefixes or self._word_prefixes:
            self._empty_prefixes(tokens, spans)
        if self._stages and not (self._character_wise and text.isascii()):
            self._cover_merged(text, spans)
        return spans

    def _empty_prefixes(self, tokens: Sequence[str], spans: list[Offsets]) -> None:
        """Give tokens that have no part of the text the span (start, start)."""
        covered = 0
        for i, (start, end) in enumerate(spans):
            if start < end and start >= covered:
                begins = not i or tokens[i - 1] in self._added
                for prefix in (*self._text_prefixes * begins, *self._word_prefixes):
                    if count := _length_of_prefix(prefix, i, tokens, spans):
                        spans[i : i + count] = [(start, start)] * count
                        break
            if spans[i] == (start, end):
                covered = max(covered, end)

    def _cover_merged(self, text: str, spans: list[Offsets]) -> None:
        """Extend spans over the characters between them that became a part of their tokens."""
        placed = [i for i, (start, end) in enumerate(spans) if start < end]
        covered = 0
        for n in range(len(placed) + 1):
            start = spans[placed[n]][0] if n < len(placed) else len(text)
            gap = text[covered:start]
            if gap and not (self._character_wise and gap.isascii()):
                left = _run(placed[n - 1 :: -1] if n else [], spans, 1)
                right = _run(placed[n:], spans, 0)
                before = text[min((spans[i][0] for i in left), default=covered) : covered]
                after = text[start : max((spans[i][1] for i in right), default=start)]
                end, begin = self._merged(before, gap, after)
                for i in left:
                    spans[i] = (spans[i][0], covered + end)
                for i in right:
                    spans[i] = (covered + begin, spans[i][1])
            if n < len(placed):
                covered = max(covered, spans[placed[n]][1])

    def _merged(self, before: str, gap: str, after: str) -> Offsets:
        """Return how many characters of a gap belong to the token before it, and from which on
        they belong to the token after it."""
        end, begin = 0, len(gap)
        if not self._merges(before, gap, after):
            return end, begin
        while before and (more := self._first_merged(before + gap[:end], gap[end:begin], 1)):
            end += more
        while after and (more := self._first_merged(gap[begin:] + after, gap[end:begin], -1)):
            begin -= more
        return end, begin

    def _first_merged(self, token: str, gap: str, side: int) -> int:
        """Return the smallest number of characters of a gap, after a token or (`side` -1) before
        it, that the normalizer merges with the token; 0 for none."""
        for n in range(1, min(LONGEST_MERGED, len(gap)) + 1):
            part = gap[:n] if side > 0 else gap[len(gap) - n :]
            parts = (token, part) if side > 0 else (part, token)
            removed = self._stages[-1].normalize_str(part) == ""
            if _differs(self._stages[-1], parts) or (self._merges(*parts) and not removed):
                return n
        return 0

    def _merges(self, *parts: str) -> bool:
        """Return whether a part becomes a part of another at some step of the normalizer; a later
        step may separate them again."""
        return any(_differs(stage, parts) for stage in self._stages)


def _differs(normalizer: normalizers.Normalizer, parts: Sequence[str]) -> bool:
    """Return whether a normalizer makes something else of all parts together than of each."""
    normalized = normalizer.normalize_str
    return normalized("".join(parts)) != "".join(map(normalized, parts))


def _run(indices: Sequence[int], spans: Sequence[Offsets], side: int) -> list[int]:
    """Return the first indices whose spans have the same start (`side` 0) or end (1)."""
    return list(takewhile(lambda i: spans[i][side] == spans[indices[0]][side], indices))


def _length_of_prefix(
    prefix: str, first: int, tokens: Sequence[str], spans: Sequence[Offsets]
) -> int:
    """Return how many tokens from the first on are a prefix that stands for nothing in the text;
    0 if they are not.

    It stands for nothing if the next token has the same character of the text.
    """
    for last in range(first, len(tokens) - 1):
        if not tokens[last] or not prefix.startswith(tokens[last]):
            return 0
        prefix = prefix.removeprefix(tokens[last])
        if not prefix:
            return last - first + 1 if spans[last + 1][0] < spans[last][1] else 0
    return 0


def _text_prefixes(steps: Sequence[Any], splitter: Any) -> list[str]:
    """Return what the normalizer may put before a text, as its tokens have it."""
    found = []
    for i, step in enumerate(steps):
        if isinstance(step, normalizers.Prepend):
            prefix = normalizers.Sequence(list(steps[i + 1 :])).normalize_str(step.prepend)
            for split in steps_of(splitter):
                if isinstance(split, pre_tokenizers.Metaspace):
                    prefix = prefix.replace(" ", split.replacement)
                elif isinstance(split, pre_tokenizers.ByteLevel):
                    prefix = stand_ins_of(prefix)
            found.append(prefix)
    return found


def _word_prefixes(splitter: Any) -> list[str]:
    """Return what the splitter may put before each part of a text."""
    found = []
    for split in steps_of(splitter):
        if isinstance(split, pre_tokenizers.Metaspace) and split.prepend_scheme != "never":
            found.append(split.replacement)
        elif isinstance(split, pre_tokenizers.ByteLevel) and split.add_prefix_space:
            found.append(stand_ins_of(" "))
    return found
