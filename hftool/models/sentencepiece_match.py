"""Make a converted tokenizer split texts as its SentencePiece model does."""

import json
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from hftool.json_files import read_json
from hftool.models.check_texts import HARD_TEXTS
from hftool.tokenization.added_tokens import text_of
from hftool.tokenization.sentencepiece_model import INNER, SENTENCEPIECE, SentencePieces
from hftool.tokenization.tokenizer import Tokenizer

SYMBOLS = 100  # user-defined symbols to check; some models have thousands


def match_sentencepiece(model: Path, target: Path, tokenizer: Any, declared: Set[str]) -> None:
    """Compare a converted tokenizer with its SentencePiece model. If they split a text differently,
    put the model beside the tokenizer, which then uses it.

    `declared` has the texts of special tokens, which sentencepiece does not know as such.

    Raises:
        ValueError: they split a text differently even then.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2
    spec = proto.ModelProto.FromString(model.read_bytes())
    path = target / "tokenizer.json"
    backend = _backend(path)
    pieces = SentencePieces(model, backend.token_to_id, tokenizer.unk_token_id)
    user_defined = {piece.piece for piece in spec.pieces if piece.type == piece.USER_DEFINED}
    symbols = user_defined - declared
    found = set(tokenizer.get_added_vocab()) - symbols
    texts = [text for text in _check_texts(symbols) if not any(token in text for token in found)]
    _restore_decoder(backend, pieces, spec, texts)
    backend.save(str(path))
    if not _first_difference(backend, pieces, texts):
        return
    (target / SENTENCEPIECE).write_bytes(model.read_bytes())
    if spec.normalizer_spec.add_dummy_prefix and not _prefixes_all(backend, found):
        spec.normalizer_spec.add_dummy_prefix = False
        (target / INNER).write_bytes(spec.SerializeToString())
    _leave_to_sentencepiece(target, symbols)
    backend = Tokenizer(target, model.name).backend
    if (text := _first_difference(backend, pieces, texts)) is not None:
        raise ValueError(f"its tokens differ from those of {model.name}, as for {text!r}")


def _check_texts(symbols: Iterable[str]) -> list[str]:
    around = (f"a{symbol}b {symbol} c  {symbol}{symbol}d" for symbol in sorted(symbols)[:SYMBOLS])
    return [*HARD_TEXTS, *around]


def _backend(path: Path) -> Any:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.no_padding()
    return backend


def _prefixes_all(backend: Any, added: Set[str]) -> bool:
    """Return whether a text after an added token begins with the space symbol too."""
    after = (_ids(backend, f"{token}a") or [] for token in added if token.strip() == token)
    return any(ids[1:] == _ids(backend, "a") for ids in after)


def _ids(backend: Any, text: str) -> list[int] | None:
    try:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    except Exception:  # tokenizers raises Exception itself, if there is no unknown token
        return None
    return ids


def _first_difference(backend: Any, pieces: SentencePieces, texts: Sequence[str]) -> str | None:
    """Return the first text that a tokenizer splits in another way than sentencepiece."""
    return next((t for t in texts if _ids(backend, t) != [i for i, _ in pieces.encode(t)]), None)


def _restore_decoder(backend: Any, pieces: SentencePieces, spec: Any, texts: Sequence[str]) -> None:
    """Let a tokenizer decode as its SentencePiece model does, if that makes a difference."""
    from tokenizers import decoders

    processor = pieces.processor
    known = [ids for t in texts if processor.unk_id() not in (ids := processor.encode(t))]

    def wrong() -> int:
        return sum(
            processor.decode(ids) != backend.decode([pieces.ids[i] for i in ids]) for ids in known
        )

    before, original = wrong(), backend.decoder
    if not before:
        return
    spaces = spec.normalizer_spec.add_dummy_prefix or spec.normalizer_spec.remove_extra_whitespaces
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", int(spaces), 0),
        ]
    )
    if wrong() >= before:
        backend.decoder = original


def _leave_to_sentencepiece(folder: Path, tokens: Set[str]) -> None:
    """Remove added tokens from a folder's files: sentencepiece finds them by itself."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in tokens]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = read_json(path)
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(listed := config.get(name), list):
            config[name] = [token for token in listed if text_of(token) not in tokens]
    listed = config.get("added_tokens_decoder") or {}
    config["added_tokens_decoder"] = {i: t for i, t in listed.items() if text_of(t) not in tokens}
    path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
