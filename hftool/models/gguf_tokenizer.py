"""Build the tokenizer that a GGUF file describes, from the settings in the file.

The meaning of the settings is llama.cpp's (`src/llama-vocab.cpp`, August 2026): where the file
leaves something open, what llama.cpp does by default. A setting that is not known is an error.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hftool.models.split_patterns import (
    ADDING_BOS,
    OF_TEXT,
    PATTERNS,
    TEXT_PATTERN,
    WHOLE_PIECES_FIRST,
)

# gguf.TokenType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
PREFIX = "tokenizer.ggml."
ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # so spelled
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
END_IDS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Control tokens that end a text whatever else the file states: llama.cpp's list.
END_TEXTS = frozenset(
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn>"
    " <|endoftext|> </s> <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance>"
    " <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~[".split()
)
KNOWN = {
    *("model", "pre", "tokens", "token_type", "token_type_count", "scores", "merges"),
    *("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix"),
    *("remove_extra_whitespaces", "precompiled_charsmap", "suppress_tokens"),
    *ROLES.values(),
    *END_IDS,
    *("prefix_token_id", "suffix_token_id", "middle_token_id"),
    *(f"fim_{part}_token_id" for part in ("pre", "suf", "mid", "pad", "rep", "sep")),
}


class GgufTokenizer:
    """The tokenizer in a GGUF file.

    Args:
        metadata: the values in the file's header.

    Raises:
        ValueError: the header lacks a part of the tokenizer, or has one that is not known.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.model = self.setting("model")
        self.tokens: list[str] = [
            token or f"[EMPTY_{i}]" for i, token in enumerate(self.setting("tokens") or ())
        ]
        if self.model is None or not self.tokens:
            raise ValueError("it has no tokenizer")
        kinds = self.setting("token_type") or [NORMAL] * len(self.tokens)
        self.kinds: list[int] = [int(kind) for kind in kinds]
        if len(self.kinds) < len(self.tokens):
            raise ValueError("it has fewer token types than tokens")
        for key in metadata:
            if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in KNOWN:
                raise ValueError(f"its tokenizer has the setting {key}, which hftool does not know")

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a setting of the tokenizer."""
        return self.metadata.get(PREFIX + name, default)

    @property
    def pre(self) -> str | None:
        """The name of the way in which a text is split before merging; None if it is not stated."""
        if self.model == "gemma4":
            return "gemma4"
        pre: str | None = self.setting("pre")
        is_gpt2 = self.metadata.get("general.architecture") == "gpt2"
        return "gpt-2" if pre is None and is_gpt2 else pre

    def build(self) -> Any:
        """Return the tokenizer as one of the tokenizers library.

        Raises:
            ValueError: its kind is not known.
        """
        from tokenizers import AddedToken

        if self.model in ("gpt2", "gemma4"):
            backend = self._of_text() if self.pre in OF_TEXT else self._byte_level()
        elif self.model == "llama":
            backend = self._sentencepiece()
        elif self.model == "t5":
            backend = self._unigram()
        else:
            raise ValueError(
                f"its tokenizer is of the kind '{self.model}', which hftool does not know"
            )
        backend.add_tokens(
            [
                AddedToken(
                    token,
                    special=kind != USER_DEFINED,
                    normalized=False,
                    rstrip=self._strips_after(token),
                )
                for token, kind in zip(self.tokens, self.kinds, strict=False)
                if kind in (CONTROL, UNKNOWN, USER_DEFINED)
            ]
        )
        self._add_special_around(backend)
        return backend

    def config(self) -> dict[str, Any]:
        """Return the settings as in tokenizer_config.json."""
        texts = {role: self._token(self.setting(key)) for role, key in ROLES.items()}
        config: dict[str, Any] = {role: text for role, text in texts.items() if text is not None}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        named = "tokenizer.chat_template."
        templates = {
            key.removeprefix(named): template
            for key, template in self.metadata.items()
            if key.startswith(named)
        }
        default = self.metadata.get("tokenizer.chat_template")
        if templates:
            if default is not None:
                templates = {"default": default, **templates}
            config["chat_template"] = [
                {"name": name, "template": template} for name, template in templates.items()
            ]
        elif default is not None:
            config["chat_template"] = default
        return config

    def end_ids(self) -> list[int]:
        """Return the ids of the tokens that end a text, the file's own first."""
        ids = [self.setting(name) for name in (*END_IDS, "fim_pad_token_id", "fim_rep_token_id")]
        ids.append(self.setting("fim_sep_token_id"))
        ids += [i for token, i in self._ids(CONTROL).items() if token in END_TEXTS]
        found = dict.fromkeys(int(i) for i in ids if i is not None and 0 <= i < len(self.tokens))
        texts = {self.tokens[i]: i for i in found}
        if {"<|return|>", "<|call|>", "<|end|>"} <= texts.keys():  # gpt-oss: <|end|> ends a message
            del found[texts["<|end|>"]]
        return list(found)

    def _token(self, token_id: Any) -> str | None:
        return None if token_id is None or token_id >= len(self.tokens) else self.tokens[token_id]

    def _ids(self, *kinds: int) -> dict[str, int]:
        """Return the ids of the tokens of some kinds by text."""
        pairs = zip(self.tokens, self.kinds, strict=False)
        return {token: i for i, (token, kind) in enumerate(pairs) if kind in kinds}

    def _strips_after(self, token: str) -> bool:
        """Return whether spaces after a token are left out. The file does not tell: llama.cpp knows
        it of Phi-3, by the model's name."""
        name = str(self.metadata.get("general.name", "")).lower()
        return ("phi-3" in name or "phi3" in name) and token not in (
            *("<unk>", "<s>", "<|endoftext|>"),
        )

    def _add_special_around(self, backend: Any) -> None:
        """Let the tokenizer add the tokens at the beginning and the end of a text."""
        from tokenizers import processors

        bos = self.setting("add_bos_token")
        if bos is None:
            bos = self.model in ("llama", "gemma4") or self.pre in ADDING_BOS
        eos = self.setting("add_eos_token")
        eos = self.model == "t5" if eos is None else eos
        before, after = self.setting("bos_token_id"), self.setting("eos_token_id")
        around: list[Any] = ["$A"]
        known = []
        for wanted, token_id, place in ((bos, before, 0), (eos, after, len(around) + bool(bos))):
            token = self._token(token_id)
            if wanted and token is not None:
                around.insert(place, token)
                known.append((token, int(token_id)))
        if known:
            backend.post_processor = processors.TemplateProcessing(
                single=around,
                pair=[*around, *(f"{p}:1" if p != "$A" else "$B:1" for p in around)],
                special_tokens=known,
            )

    def _merges(self) -> Iterator[tuple[str, str]]:
        merges = self.setting("merges")
        if merges is None:
            raise ValueError("its tokenizer has no merges")
        for merge in merges:
            middle = merge.find(" ", 1)
            yield merge[:middle], merge[middle + 1 :]

    def _byte_level(self) -> Any:
        """BPE over bytes, after splitting by the patterns of `pre`."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        if self.pre is None:
            raise ValueError(
                "it does not say how its tokenizer splits a text (tokenizer.ggml.pre); a newer GGUF"
                " of the model does"
            )
        if self.pre not in PATTERNS:
            raise ValueError(
                f"hftool does not know how its tokenizer splits a text: '{self.pre}'"
                " (tokenizer.ggml.pre)"
            )
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        backend = Tokenizer(
            models.BPE(
                vocabulary, list(self._merges()), ignore_merges=self.pre in WHOLE_PIECES_FIRST
            )
        )
        splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in PATTERNS[self.pre]]
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        return backend

    def _of_text(self) -> Any:
        """BPE over characters, with ▁ for the space and bytes for characters without a token."""
        from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

        backend = Tokenizer(self._with_bytes(list(self._merges())))
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(TEXT_PATTERN), "isolated")
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        return backend

    def _with_bytes(self, merges: Sequence[tuple[str, str]]) -> Any:
        from tokenizers import models

        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        unknown = self._token(self.setting("unknown_token_id"))
        unknown = unknown or next(iter(self._ids(UNKNOWN)), None)
        return models.BPE(
            vocabulary, list(merges), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )

    def _sentencepiece(self) -> Any:
        """SentencePiece's BPE, which merges the pair whose token has the highest score.

        The merges follow from the scores: all pairs of tokens that are a token together.
        """
        from tokenizers import Tokenizer, decoders, normalizers

        scores = self.setting("scores")
        if scores is None:
            raise ValueError("its tokenizer has no scores")
        mergeable = self._ids(NORMAL, USER_DEFINED, UNUSED)
        ranked = sorted((-scores[i], i, token) for token, i in mergeable.items() if len(token) > 1)
        merges = [
            (token[:middle], token[middle:])
            for _, _, token in ranked
            for middle in range(1, len(token))
            if token[:middle] in mergeable and token[middle:] in mergeable
        ]
        backend = Tokenizer(self._with_bytes(merges))
        spaces = normalizers.Replace(" ", "▁")
        gemma = str(self.metadata.get("general.architecture")).startswith("gemma")
        prefixed = self.setting("add_space_prefix", not gemma)
        backend.normalizer = (
            normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefixed else spaces
        )
        backend.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                *([decoders.Strip(" ", 1, 0)] if prefixed else []),
            ]
        )
        return backend

    def _unigram(self) -> Any:
        """SentencePiece's Unigram, as T5 has it.

        T5 calls its 100 blanks `<extra_id_0>` and so on; the file has placeholders for them.
        """
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

        blanks = [i for i, token in enumerate(self.tokens) if re.fullmatch(r"\[PAD\d+\]", token)]
        for number, i in enumerate(blanks[:100]):
            self.tokens[i] = f"<extra_id_{99 - number}>"
            self.kinds[i] = CONTROL
        scores = self.setting("scores") or [0.0] * len(self.tokens)
        unknown = self.setting("unknown_token_id", 2)
        vocabulary = [
            (token, 0.0 if kind == USER_DEFINED else float(score))
            for token, kind, score in zip(self.tokens, self.kinds, scores, strict=False)
        ]
        backend = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=False))
        steps: list[Any] = []
        if charsmap := self.setting("precompiled_charsmap"):
            steps.append(normalizers.Precompiled(bytes(byte & 0xFF for byte in charsmap)))
        if self.setting("remove_extra_whitespaces", False):
            steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        backend.normalizer = normalizers.Sequence(steps)
        prefix = "always" if self.setting("add_space_prefix", True) else "never"
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prefix)
        backend.decoder = decoders.Metaspace("▁", prefix)
        return backend
