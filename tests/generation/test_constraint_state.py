"""Random walks through what constraints allow, with tokenizers of all kinds; `regex` and
`jsonschema` judge what they write."""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import regex
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from hftool.errors import HftoolError
from hftool.generation.constraint_state import ConstraintState
from hftool.options.constraints import Constraint
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.tokenizer import Tokenizer
from tests.generation.schemas import SCHEMAS

END, THINK, END_THINK, TURN = "<end>", "<think>", "</think>", "<turn>"
WORDS = ["a", "b", "no", "yes", " no", "way", " way", "  ", "{", '"', '{"', '":', '",', '": "']
PATTERN = r"( ?(no|way)){1,3}( é中?)?"
CHOICES = ["yes", " no", "no way", "  no"]
OBJECT = {
    "type": "object",
    "properties": {"no": {"type": "string"}, "n": {"type": "array", "items": {"type": "number"}}},
    "required": ["no", "n"],
    "additionalProperties": False,
}


def byte_level() -> Backend:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [w.replace(" ", "Ġ") for w in WORDS]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*letters, *words]))}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def sentencepiece(decoder: Any) -> Backend:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + [w.replace(" ", "▁") for w in WORDS]
    scores = [("<unk>", 0.0), *((piece, -1.0 - i / 100) for i, piece in enumerate(pieces))]
    backend = Backend(models.Unigram(scores, unk_id=0, byte_fallback=True))
    make: Any = pre_tokenizers.Metaspace
    backend.pre_tokenizer = make()
    backend.decoder = decoder
    return backend


def llama_decoder() -> Any:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])


def word_piece(cleanup: bool) -> Backend:
    letters = [chr(i) for i in range(33, 127)] + ["é", "中", "way", "no", "yes", "n't", "don"]
    tokens = ["[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=cleanup)
    return backend


METASPACE: Any = decoders.Metaspace
BACKENDS: dict[str, Any] = {
    "byte-level": byte_level,
    "llama": lambda: sentencepiece(llama_decoder()),
    "gemma": lambda: sentencepiece(
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    ),
    "word-piece": lambda: word_piece(cleanup=True),
    "word-piece, spaces kept": lambda: word_piece(cleanup=False),
    "metaspace": lambda: sentencepiece(decoders.Sequence([decoders.ByteFallback(), METASPACE()])),
}


@pytest.fixture(scope="module", params=BACKENDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save(BACKENDS[request.param](), tmp_path_factory.mktemp(request.param))


def save(backend: Backend, folder: Path, tags: Sequence[str] = (THINK, END_THINK)) -> Any:
    """All that a state asks of a model."""
    control = [AddedToken(token, special=True) for token in (END, TURN)]
    backend.add_special_tokens(control)
    backend.add_tokens([AddedToken(token) for token in tags])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder, "tiny")
    ends = frozenset({tokenizer.backend.token_to_id(END)})
    return SimpleNamespace(
        name="tiny", tokenizer=tokenizer, end_ids=ends, embedding_rows=tokenizer.size + 3
    )


def walk(model: Any, constraint: Constraint, seed: int, steps: int = 150) -> tuple[str, bool]:
    """Choose tokens at random among those that are allowed, and more often those that end
    something. Returns the text, and whether the state calls it valid."""
    draw = random.Random(seed)
    state = ConstraintState(model, constraint, [0])
    stream = IncrementalDecoder(model.tokenizer, skip_special=True)
    data = cache(model.tokenizer.token_bytes)
    text = ""
    for _ in range(steps):
        if state.complete:
            break
        allowed = state.allowed(model.embedding_rows).nonzero()[:, 0].tolist()
        closing = [i for i in allowed if set(data(i) or b"") <= set(b'"}],')]
        token_id = draw.choice(closing if closing and draw.random() < 0.4 else allowed)
        state.add(token_id)
        assert not state.violated
        if token_id in model.end_ids:
            break
        text += stream.step(token_id)
    return text + stream.end(), state.satisfied


@pytest.mark.parametrize("seed", range(3))
def test_walks_are_valid_where_the_state_says_so(model: Any, seed: int) -> None:
    judges: list[tuple[Constraint, Any]] = [
        (Constraint("regex", PATTERN), lambda text: regex.fullmatch(PATTERN, text)),
        (Constraint("choice", json.dumps(CHOICES)), lambda text: text in CHOICES),
        (Constraint("schema", json.dumps(OBJECT)), lambda text: satisfies(OBJECT, text)),
        (
            Constraint("grammar", 'start: "a" start "b" | " no" | "é"'),
            lambda text: regex.fullmatch("(a(?R)b| no|é)", text),
        ),
    ]
    for constraint, judge in judges:
        valid = 0
        for number in range(15):
            text, satisfied = walk(model, constraint, 100 * seed + number)
            assert bool(judge(text)) is satisfied, (constraint, text)
            valid += satisfied
        assert valid


def satisfies(schema: Any, text: str) -> bool:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))
    except (ValueError, RecursionError, jsonschema.ValidationError):
        return False
    return True


@pytest.mark.slow
def test_no_text_is_wrongly_called_valid(tmp_path: Path) -> None:
    model = save(byte_level(), tmp_path)
    own = (path.read_text() for path in (Path(__file__).parents[2] / "docs/schemas").glob("*.json"))
    schemas = [*SCHEMAS.strip().splitlines(), *own]
    refused: list[str] = []
    for text in schemas:
        try:
            found = [walk(model, Constraint("schema", text), seed, 600) for seed in range(12)]
        except HftoolError as error:
            refused.append(f"{error}: {text[:60]}")
            continue
        valid = [written for written, satisfied in found if satisfied]
        assert valid, text
        assert [v for v in valid if not satisfies(json.loads(text), v)] == [], text
    assert len(schemas) > 100
    assert len(refused) < 0.1 * len(schemas), refused


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("uri-template", ["", "https://a.b/{id}/x", "/{a,b}"], ["{", "{}", "a}", "a b", "{a b}"]),
        ("uri-reference", ["", "/", "a/b", "https://a.b/c?d#e"], ["\\\\a", "a b", ":a", "http://"]),
        ("iri", ["http://a.b:80/c"], ["", "/a", "http://", "http://:80"]),
        ("json-pointer", ["", "/a/~0b~1", "//"], ["a", "/~2", "/~"]),
        ("relative-json-pointer", ["0", "12/a", "1#"], ["", "01", "-1", "/a", "1#/a"]),
        ("idn-hostname", ["a", "a.b1"], ["", ".", "a..b", "-a", "xn--X"]),
        ("idn-email", ["a@b", "a1@b.c"], ["a", "@b", "a@", "a@b@c"]),
    ],
)
def test_formats_by_patterns(tmp_path: Path, name: str, good: list[str], bad: list[str]) -> None:
    model = save(byte_level(), tmp_path)
    schema = json.dumps({"items": {"type": "string", "format": name}, "type": "array"})
    for text in [*good, *bad]:
        state = ConstraintState(model, Constraint("schema", schema), [0])
        written = json.dumps([text])
        state.advance(model.tokenizer.encode(written, special=False).ids)
        assert state.satisfied is (text in good), written


def test_only_the_answer_after_a_thought_is_constrained(model: Any) -> None:
    end, think, end_think, turn = (
        model.tokenizer.backend.token_to_id(token) for token in (END, THINK, END_THINK, TURN)
    )

    def state(prompt: Sequence[int], text: Sequence[int]) -> tuple[ConstraintState, Any]:
        result = ConstraintState(model, Constraint("choice", '["b"]'), prompt)
        result.advance(text)
        return result, set(result.allowed(model.embedding_rows).nonzero()[:, 0].tolist())

    name = model.tokenizer.token_text
    b = max(i for i in range(model.tokenizer.size) if name(i) == "b")
    anything = set(range(model.embedding_rows)) - {end}
    answers = [0, turn, 1]  # the prompt's end as a chat template writes it
    assert think in state(answers, [])[1]
    assert state(answers, [think])[1] == state([*answers, think], [])[1] == anything
    assert think not in state([*answers, think, end_think], [])[1] | state([0, 1, 2], [])[1]
    after = state(answers, [think, 3, 4, end_think])[1]
    assert b in after and not after & {end, think, 3}
    assert state(answers, [think, 3, end_think, b])[0].complete
    assert not state(answers, [think, 3])[0].satisfied
    assert state(answers, [think, 3, end])[0].violated
    assert state(answers, [b])[0].complete
    changed = state(answers, [think, 3, end_think, b])[0]
    changed.advance([think, 3, 4])  # as a beam search does
    assert set(changed.allowed(model.embedding_rows).nonzero()[:, 0].tolist()) == anything


def test_tokenizers_whose_texts_are_no_sequence_of_tokens_are_refused(tmp_path: Path) -> None:
    backend = Backend(models.WordLevel({"<pad>": 0, "a": 1, "|": 2}, "<pad>"))
    backend.decoder = decoders.CTC()
    with pytest.raises(HftoolError, match="changes tokens by those next to them"):
        ConstraintState(save(backend, tmp_path), Constraint("regex", "ab"), [0])


def test_a_vocabulary_that_lacks_a_character(tmp_path: Path) -> None:
    backend = Backend(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -1.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    model = save(backend, tmp_path)
    with pytest.raises(HftoolError, match=r"no token that can begin a text|no text satisfies"):
        ConstraintState(model, Constraint("schema", "{}"), [0])
    state = ConstraintState(model, Constraint("choice", '["a{b"]'), [0])
    state.add(model.tokenizer.backend.token_to_id("▁a"))
    with pytest.raises(HftoolError, match=r'can continue this text .*: it needs "{b"'):
        state.allowed(model.embedding_rows)  # not "b", which llguidance would allow
