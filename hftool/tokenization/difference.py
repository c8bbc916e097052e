"""Compare two tokenizers: their steps, chat templates, tokens and merges."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from hashlib import sha256
from typing import Any, Literal

from hftool.options.vocabulary import TokenKind, VocabularyOptions
from hftool.tokenization.sentencepiece_model import INNER, SENTENCEPIECE
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.tokenizer_file import read_backend
from hftool.tokenization.vocabulary import VocabularyEntry, vocabulary

Part = Literal[
    "normalizer",
    "splitter",
    "post_processor",
    "decoder",
    "model",
    "sentencepiece",
    "special_token",
    "added_token",
    "template",
    "token",
    "id",
    "score",
    "merge",
]
STEPS: Mapping[Part, tuple[str, str]] = {
    "normalizer": ("normalizer", "normalizers"),
    "splitter": ("pre_tokenizer", "pretokenizers"),
    "post_processor": ("post_processor", "processors"),
    "decoder": ("decoder", "decoders"),
}
"""The parts of a tokenizer.json with their keys there, and those of the steps in a sequence."""
LONGEST_VALUE = 1000  # characters of a setting that are shown whole

_Item = tuple[str, str]  # the type of a step or the name of a template, and a text
_OPTIONAL = {"optional": True}


@dataclass(frozen=True, slots=True)
class TokenizerDifference:
    """What only one of two tokenizers has; `side` is the name of its model.

    By `part`, `text` has the settings of a step of the kind `name` in the normalizer, splitter,
    post-processor or decoder; the value of the model's setting `name`; the special token of the
    role `name`; the flags of the added token `name`; a `line` of the chat template `name`; a token,
    with its `id`, `bytes` and `kind`; or a merge, with its `rank`.

    What both have in another place is there for each: a token with another `id` (the part `id`),
    with another `score` (Unigram), a merge whose order among the others differs.
    """

    part: Part
    side: str
    text: str
    name: str | None = field(default=None, metadata=_OPTIONAL)
    line: int | None = field(default=None, metadata=_OPTIONAL)
    rank: int | None = field(default=None, metadata=_OPTIONAL)
    id: int | None = field(default=None, metadata=_OPTIONAL)
    token: str | None = field(default=None, metadata=_OPTIONAL)
    bytes: str | None = field(default=None, metadata=_OPTIONAL)
    kind: TokenKind | None = field(default=None, metadata=_OPTIONAL)
    score: float | None = field(default=None, metadata=_OPTIONAL)


def difference(
    ours: Tokenizer, theirs: Tokenizer, selection: VocabularyOptions | None = None
) -> Iterator[TokenizerDifference]:
    """Yield what only one of two tokenizers has: first steps, settings and chat templates, then
    tokens, then merges.

    Tokens are the same if their bytes are the same, special tokens if their names are. If tokens
    are selected, nothing but tokens is compared.

    Raises: as `vocabulary`, or
        HftoolError: a file of a tokenizer can't be read.
    """
    sides = _Side(ours), _Side(theirs)
    if selection in (None, VocabularyOptions()):
        yield from _differing_items(*sides)
        yield from _differing_values(*sides)
        yield from _differing_tokens(*sides, selection)
        yield from _differing_merges(*sides)
    else:
        yield from _differing_tokens(*sides, selection)


class _Side:
    """A tokenizer, and the content of its tokenizer.json."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.name = tokenizer.name
        state = json.loads(read_backend(tokenizer.folder / "tokenizer.json").to_str())
        self.steps = {part: _steps(state[key], inner) for part, (key, inner) in STEPS.items()}
        model = state["model"]
        merges = model.pop("merges", None) or ()
        self.merges = [" ".join(m) if isinstance(m, list) else m for m in merges]
        vocab = model.pop("vocab")
        self.scores: dict[str, float] = dict(vocab) if isinstance(vocab, list) else {}
        self.settings = {name: _short(v) for name, v in model.items() if v is not None}

    def lists(self) -> Iterator[tuple[Part, str | None, list[_Item]]]:
        """Yield lists whose order matters: the part, the template's name, the items."""
        for part in STEPS:
            yield part, None, self.steps[part]
        for name, template in self.tokenizer.chat_templates.items():
            yield "template", name, [(name, line) for line in template.split("\n")]

    def values(self) -> Iterator[tuple[Part, str, str]]:
        """Yield values by name: the part, the name and the value."""
        for name, value in self.settings.items():
            yield "model", name, value
        for file in (SENTENCEPIECE, INNER):
            if (path := self.tokenizer.folder / file).is_file():
                yield "sentencepiece", file, f"sha256 {sha256(path.read_bytes()).hexdigest()}"
        for role, token in self.tokenizer.special_tokens.items():
            yield "special_token", role, token
        for added in self.tokenizer.added_tokens.values():
            names = ("single_word", "lstrip", "rstrip", "normalized", "special")
            flags = " ".join(name for name in names if getattr(added, name))
            yield "added_token", added.content, flags or "no flags"


def _steps(part: Any, inner: str) -> list[_Item]:
    steps = [] if part is None else part[inner] if part["type"] == "Sequence" else [part]
    return [(step.pop("type"), _short(step)[1:-1]) for step in steps]


def _short(value: Any) -> str:
    """Return a setting as a text: {"invert": false, "behavior": "Isolated"} ->
    "{invert=false, behavior=Isolated}"; a long text, such as a table of characters, as a digest."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={_short(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if len(value) > LONGEST_VALUE:
        return f"{len(value):,} characters, sha256 {sha256(value.encode()).hexdigest()}"
    return value


def _differing_items(ours: _Side, theirs: _Side) -> Iterator[TokenizerDifference]:
    lists = [{(part, of): items for part, of, items in side.lists()} for side in (ours, theirs)]
    for part, of in dict.fromkeys((*lists[0], *lists[1])):
        before, after = (side.get((part, of), []) for side in lists)
        changes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        for tag, start, end, new_start, new_end in changes:
            if tag == "equal":
                continue
            for side, items, places in (
                (ours, before, range(start, end)),
                (theirs, after, range(new_start, new_end)),
            ):
                for i in places:
                    name, text = items[i]
                    line = i + 1 if part == "template" else None
                    yield TokenizerDifference(part, side.name, text, name, line)


def _differing_values(ours: _Side, theirs: _Side) -> Iterator[TokenizerDifference]:
    """Yield differing values; the flags of added tokens only if both have the token."""
    sides = [{(part, name): v for part, name, v in side.values()} for side in (ours, theirs)]
    for key in dict.fromkeys((*sides[0], *sides[1])):
        part, name = key
        values = [side.get(key) for side in sides]
        if values[0] == values[1] or (part == "added_token" and None in values):
            continue
        for side, value in zip((ours, theirs), values, strict=True):
            if value is not None:
                yield TokenizerDifference(part, side.name, value, name)


def _differing_tokens(
    ours: _Side, theirs: _Side, selection: VocabularyOptions | None
) -> Iterator[TokenizerDifference]:
    """Yield the tokens that only one has, then those with another id, then those with another
    score."""
    sides = [(side, _by_identity(side.tokenizer, selection)) for side in (ours, theirs)]
    for (side, tokens), (_, others) in zip(sides, reversed(sides), strict=True):
        for identity, entries in tokens.items():
            if identity not in others:
                for e in entries:
                    yield TokenizerDifference("token", side.name, **asdict(e))
    common = [identity for identity in sides[0][1] if identity in sides[1][1]]
    for identity in common:
        if len({tuple(e.id for e in tokens[identity]) for _, tokens in sides}) > 1:
            for side, tokens in sides:
                for e in tokens[identity]:
                    yield TokenizerDifference("id", side.name, **asdict(e))
    for identity in common if ours.scores and theirs.scores else ():
        scored = [(side, e, side.scores.get(e.token)) for side, t in sides for e in t[identity]]
        if len({score for _, _, score in scored}) > 1:
            for side, e, score in scored:
                yield TokenizerDifference("score", side.name, score=score, **asdict(e))


def _by_identity(
    tokenizer: Tokenizer, selection: VocabularyOptions | None
) -> dict[tuple[bool, str], list[VocabularyEntry]]:
    """Return tokens by what makes them the same in two vocabularies."""
    found: dict[tuple[bool, str], list[VocabularyEntry]] = {}
    for entry in vocabulary(tokenizer, selection):
        if entry.kind != "unused":
            special = entry.bytes is None
            identity = special, entry.token if special else str(entry.bytes)
            found.setdefault(identity, []).append(entry)
    return found


def _differing_merges(ours: _Side, theirs: _Side) -> Iterator[TokenizerDifference]:
    """Yield the merges that only one has, then the fewest whose move makes the order the same."""
    our_ranks, their_ranks = ({m: i for i, m in enumerate(s.merges)} for s in (ours, theirs))
    for side, own, others in ((ours, our_ranks, their_ranks), (theirs, their_ranks, our_ranks)):
        for merge, rank in own.items():
            if merge not in others:
                yield TokenizerDifference("merge", side.name, merge, rank=rank)
    common = [merge for merge in our_ranks if merge in their_ranks]
    in_order = set(_longest_rise([their_ranks[merge] for merge in common]))
    for merge in common:
        if their_ranks[merge] not in in_order:
            yield TokenizerDifference("merge", ours.name, merge, rank=our_ranks[merge])
            yield TokenizerDifference("merge", theirs.name, merge, rank=their_ranks[merge])


def _longest_rise(numbers: Sequence[int]) -> Iterator[int]:
    """Yield a longest increasing subsequence of distinct numbers, from its end: 2, 0, 1 -> 1, 0."""
    ends: list[int] = []  # by length, the lowest number that ends a rise of this length
    lengths = []
    for number in numbers:
        length = bisect_left(ends, number)
        ends[length : length + 1] = [number]
        lengths.append(length)
    wanted = len(ends) - 1
    for number, length in zip(reversed(numbers), reversed(lengths), strict=True):
        if length == wanted:
            yield number
            wanted -= 1
