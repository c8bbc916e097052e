"""Write the files of a tokenizer that is Python code."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hftool.json_files import read_json
from hftool.models.check_texts import HARD_TEXTS
from hftool.models.converted_copies import WEIGHT_SUFFIXES
from hftool.tokenization.python_tokenizer import PYTHON_TOKENIZER
from hftool.tokenization.token_bytes import stand_ins
from hftool.tokenization.tokenizer import Tokenizer


def write_python_tokenizer(tokenizer: Any, source: Path, target: Path) -> None:
    """Write a tokenizer that is Python code, with a tokenizer.json for everything but splitting.

    Raises:
        ValueError: tokenizers has no decoder that joins tokens as the code does, or the code needs
            a package.
    """
    from tokenizers import AddedToken, models
    from tokenizers import Tokenizer as Backend

    if getattr(tokenizer, "normalization", False) and getattr(tokenizer, "demojizer", 1) is None:
        raise ValueError("its tokenizer needs the package emoji: pip install emoji==0.6.0")
    # Not by save_pretrained, which some of these classes have got wrong.
    for path in source.iterdir():
        if path.is_file() and path.suffix not in (*WEIGHT_SUFFIXES, ".py"):
            shutil.copy(path, target / path.name)
    roles = {role: str(token) for role, token in tokenizer.special_tokens_map.items() if token}
    settings = {**roles, **read_json(source / "tokenizer_config.json")}
    settings["clean_up_tokenization_spaces"] = bool(tokenizer.clean_up_tokenization_spaces)
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    name = type(tokenizer).__name__
    (target / PYTHON_TOKENIZER).write_text(json.dumps({"class": name}), encoding="utf-8")
    # M2M100's languages have ids, and are not in its vocabulary.
    vocabulary = {**getattr(tokenizer, "lang_token_to_id", {}), **tokenizer.get_vocab()}
    backend = Backend(models.WordLevel(vocabulary, unk_token=str(tokenizer.unk_token)))
    added = sorted(tokenizer.added_tokens_decoder.items())
    backend.add_tokens([AddedToken(**token.__getstate__()) for _, token in added])
    backend.post_processor = _frame(tokenizer)
    texts = [text for text in HARD_TEXTS if tokenizer.unk_token not in text]
    unknown = str(tokenizer.unk_token)
    samples = [[t if t in vocabulary else unknown for t in tokenizer.tokenize(x)] for x in texts]
    backend.decoder = _joining_decoder(tokenizer, samples)
    backend.save(str(target / "tokenizer.json"))
    read = Tokenizer(target, name)
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if read.backend.encode(text, add_special_tokens=False).ids != ids:
            raise ValueError(f"its tokenizer is Python code ({name}) that hftool reads wrongly")


def tokenizer_of_bytes(tokenizer: Any) -> Any:
    """Return ByT5's tokenizer as one of the tokenizers library: its tokens are the bytes, whose ids
    follow those of three special ones."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    added = sorted(tokenizer.added_tokens_decoder.items())
    vocabulary = {str(token): token_id for token_id, token in added[: tokenizer.offset]}
    letters = [stand_ins().get(byte, chr(byte)) for byte in range(256)]
    vocabulary |= {letter: byte + tokenizer.offset for byte, letter in enumerate(letters)}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([token for _, token in added])
    backend.post_processor = _frame(tokenizer)
    create: Any = PreTrainedTokenizerFast
    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if token}
    return create(tokenizer_object=backend, **roles)


def _frame(tokenizer: Any) -> Any:
    """Return a post-processor that adds the special tokens around one or two texts."""
    from tokenizers import processors

    a, b = -1, -2  # in place of the texts' ids

    def template(ids: Sequence[int]) -> list[str]:
        names = {a: "$A", b: "$B"}
        return [names.get(i) or str(tokenizer.convert_ids_to_tokens(i)) for i in ids]

    single = template(tokenizer.build_inputs_with_special_tokens([a]))
    pair = template(tokenizer.build_inputs_with_special_tokens([a], [b]))
    special = {token for token in (*single, *pair) if not token.startswith("$")}
    return processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[
            (token, tokenizer.convert_tokens_to_ids(token)) for token in sorted(special)
        ],
    )


def _joining_decoder(tokenizer: Any, samples: Sequence[Sequence[str]]) -> Any:
    """Return a decoder that joins the tokens of texts as a Python tokenizer does; if there is none,
    one that does so where all tokens are known.

    Raises:
        ValueError: there is none of these either.
    """
    join, unknown = tokenizer.convert_tokens_to_string, str(tokenizer.unk_token)
    known = [[token for token in tokens if token != unknown] for tokens in samples]
    for some in (samples, known):
        for decoder in _joining_decoders():
            if all(decoder.decode(tokens) == join(tokens) for tokens in some):
                return decoder
    raise ValueError(
        f"its tokenizer is Python code ({type(tokenizer).__name__}) that joins tokens in a way of"
        " its own"
    )


def _joining_decoders() -> list[Any]:
    """Return decoders in which transformers' Python tokenizers join tokens: with ## before or @@
    after a part of a word, with ▁ before a word, with spaces, or without anything."""
    from tokenizers import Regex, decoders

    spaced = decoders.Replace(Regex("$"), " ")
    end: list[Any] = [decoders.Fuse(), decoders.Replace(Regex(" $"), "")]
    pieces_end = [decoders.Fuse(), decoders.Strip(" ", 1, 0), decoders.Replace(Regex(" +$"), "")]
    return [
        decoders.WordPiece("##", cleanup=False),
        decoders.Sequence([spaced, decoders.Replace("@@ ", ""), *end]),
        decoders.Sequence([spaced, *end]),
        decoders.Sequence([decoders.Replace("▁", " "), *pieces_end]),
        decoders.Fuse(),
    ]
