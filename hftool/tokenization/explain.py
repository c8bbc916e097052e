"""Explain how the tokens of a text came about: normalizer, splitter, then the model's own steps."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from hftool.errors import HftoolError
from hftool.tokenization.pipeline import steps_of
from hftool.tokenization.tokenizer import Tokenizer

_OPTIONAL = {"optional": True}


@dataclass(frozen=True)
class ExplainedStep:
    """One step of a model, which makes `token`.

    BPE merges `left` and `right`, whose rank is its place in the list of merges (lower ranks come
    first); `tokens` is the part after it. WordPiece takes the longest token at the beginning of
    what is left; `rest` is what remains. Unigram has the `score` of each token on the best path, a
    logarithm of its probability.
    """

    token: str
    left: str | None = field(default=None, metadata=_OPTIONAL)
    right: str | None = field(default=None, metadata=_OPTIONAL)
    rank: int | None = field(default=None, metadata=_OPTIONAL)
    tokens: tuple[str, ...] | None = field(default=None, metadata=_OPTIONAL)
    rest: str | None = field(default=None, metadata=_OPTIONAL)
    score: float | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True)
class ExplainedPart:
    """A part of a text as the splitter gives it to the model, the model's steps and the tokens.

    An `added` token is found in the text before it is split, and takes no steps. For BPE `start`
    has the symbols before the first merge.
    """

    text: str
    added: bool
    start: tuple[str, ...]
    steps: tuple[ExplainedStep, ...]
    tokens: tuple[str, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Explanation:
    """A text, what the normalizer makes of it, and its parts; `model` is BPE, WordPiece, Unigram or
    WordLevel."""

    text: str
    model: str
    normalized: str
    parts: tuple[ExplainedPart, ...]


class Explainer:
    """Explains the tokens that a tokenizer gives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend
        self._kind = type(self._backend.model).__name__

    def explain(self, text: str) -> Explanation:
        """Explain the tokens of a text.

        Raises:
            NoTokenError: a part of the text has no token.
            HftoolError: the tokens come about in another way, as where sentencepiece splits.
        """
        encoding = self._tokenizer.encode(text, special=False)
        added = self._tokenizer.added_tokens
        normalized, parts, end = [], [], 0
        for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            # An unknown token stands for other text than its own name.
            is_unknown = token_id == self._tokenizer.unknown_id
            if token_id in added and not (
                is_unknown and added[token_id].content not in text[start:stop]
            ):
                between, made = self._parts(text[end:start], first=end == 0)
                normalized += [between, text[start:stop]]
                token = added[token_id].content
                part = ExplainedPart(text[start:stop], True, (), (), (token,), (token_id,))
                parts += [*made, part]
                end = stop
        between, made = self._parts(text[end:], first=end == 0)
        normalized.append(between)
        parts += made
        if [i for part in parts for i in part.ids] != encoding.ids:
            raise HftoolError(
                f"the tokenizer of {self._tokenizer.name} does not work step by step on this text"
            )
        return Explanation(text, self._kind, "".join(normalized), tuple(parts))

    def _parts(self, text: str, *, first: bool) -> tuple[str, list[ExplainedPart]]:
        """Return what the normalizer makes of a text without added tokens, and its parts."""
        if not text:
            return "", []
        normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
        normalized = normalizer.normalize_str(text) if normalizer else text
        split = [normalized]
        if splitter is not None:
            split = [part for part, _ in splitter.pre_tokenize_str(normalized)]
            mark = self._mark_of_first if not first else None
            if mark and split and not normalized.startswith((mark, " ")):
                split[0] = split[0].removeprefix(mark)
        return normalized, [self._part(part) for part in split if part]

    @cached_property
    def _mark_of_first(self) -> str | None:
        """What the splitter puts only before the beginning of a whole text."""
        for step in steps_of(self._backend.pre_tokenizer):
            if getattr(step, "prepend_scheme", None) == "first":
                return str(step.replacement)
        return None

    def _part(self, part: str) -> ExplainedPart:
        tokens = self._backend.model.tokenize(part)
        names = tuple(token.value for token in tokens)
        start, steps = self._steps(part, names)
        return ExplainedPart(part, False, start, tuple(steps), names, tuple(t.id for t in tokens))

    def _steps(
        self, part: str, tokens: Sequence[str]
    ) -> tuple[tuple[str, ...], list[ExplainedStep]]:
        match self._kind:
            case "BPE":
                return self._merges(part, tokens)
            case "WordPiece":
                return (), list(self._matches(part, tokens))
            case "Unigram":
                return (), [ExplainedStep(t, score=self._scores.get(t)) for t in tokens]
            case _:
                return (), [ExplainedStep(t) for t in tokens]

    def _merges(
        self, part: str, tokens: Sequence[str]
    ) -> tuple[tuple[str, ...], list[ExplainedStep]]:
        """Return the symbols that a part begins as, and the merges: always the pair with the lowest
        rank, the first of them in the text.

        Raises:
            HftoolError: they do not lead to the tokens.
        """
        if tuple(tokens) == (part,) and self._backend.model.ignore_merges:
            return (part,), []
        symbols = self._symbols(part)
        start, steps = tuple(symbols), []
        while pairs := [
            (rank, i)
            for i, pair in enumerate(pairwise(symbols))
            if (rank := self._ranks.get(pair)) is not None
        ]:
            rank, i = min(pairs)
            left, right = symbols[i], symbols[i + 1]
            token = left + right.removeprefix(self._inner)
            symbols[i : i + 2] = [token]
            steps.append(ExplainedStep(token, left, right, rank, tuple(symbols)))
        return start, steps

    def _symbols(self, part: str) -> list[str]:
        """Return the tokens of a part's characters, before any merge."""
        model, has = self._backend.model, self._backend.token_to_id
        symbols: list[str] = []
        for i, character in enumerate(part):
            name = (self._inner if i else "") + character
            name += (model.end_of_word_suffix or "") if i == len(part) - 1 else ""
            as_bytes = [f"<0x{byte:02X}>" for byte in character.encode()]
            if has(name) is not None:
                symbols.append(name)
            elif model.byte_fallback and None not in map(has, as_bytes):
                symbols += as_bytes
            elif model.unk_token and not (model.fuse_unk and symbols[-1:] == [model.unk_token]):
                symbols.append(model.unk_token)
        return symbols

    def _matches(self, part: str, tokens: Sequence[str]) -> Iterator[ExplainedStep]:
        prefix, rest = self._backend.model.continuing_subword_prefix, part
        for i, token in enumerate(tokens):
            piece = token.removeprefix(prefix) if i else token
            rest = rest.removeprefix(piece) if rest.startswith(piece) else ""
            yield ExplainedStep(token, rest=rest)

    @cached_property
    def _inner(self) -> str:
        return self._backend.model.continuing_subword_prefix or ""

    @cached_property
    def _state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = json.loads(self._backend.model.__getstate__())
        return state

    @cached_property
    def _ranks(self) -> dict[tuple[str, ...], int]:
        pairs = (m.split(" ") if isinstance(m, str) else m for m in self._state["merges"])
        return {tuple(pair): rank for rank, pair in enumerate(pairs)}

    @cached_property
    def _scores(self) -> dict[str, float]:
        return dict(self._state["vocab"])
