"""Audits of vocabularies with faults that were put there."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from hftool.options.vocabulary import VocabularyOptions
from hftool.tokenization.audit import Finding, audit_vocabulary
from hftool.tokenization.tokenizer import Tokenizer
from tests.tokenization.test_tokenizer import BYTE_TOKENS, saved


def findings(folder: Path) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in audit_vocabulary(Tokenizer(folder, "audited"), VocabularyOptions()):
        found.setdefault(finding.problem, []).append(finding)
    return found


def test_a_byte_level_vocabulary(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "ab", "abc", "Ab", "aĠb", "Ã©"]
    merges = [("a", "b"), ("A", "b"), ("a", "Ġ"), ("aĠ", "b"), ("Ã", "©")]
    tokens.insert(256, "aĠ")
    backend = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    (saved(backend, tmp_path) / "config.json").write_text(json.dumps({"vocab_size": 261}))
    found = findings(tmp_path)
    unreachable = {f.token: f.cause for f in found["unreachable"]}
    changed = "the normalizer or the splitter changes its text"
    assert {t for t, cause in unreachable.items() if len(t) > 1} == {"abc", "Ab", "aĠ", "aĠb"}
    assert unreachable["abc"] == "the model makes other tokens of it"
    assert unreachable["Ab"] == unreachable["aĠb"] == changed
    never = [f for f in found["unreachable"] if f.cause == "its bytes do not occur in UTF-8"]
    assert sorted(f.bytes or "" for f in never) == sorted(
        [f"{b:02x}" for b in (0xC0, 0xC1, *range(0xF5, 0x100))]
    )
    assert {t for t in unreachable if len(t) == 1 and unreachable[t] == changed} == set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )
    assert len(found["not-utf8"]) == 128
    assert [f.id for f in found["no-row"]] == [261]


def test_duplicates_and_rows_without_a_token(tmp_path: Path) -> None:
    tokens = ["<unk>", *BYTE_TOKENS, "▁", "a", "b", " a", "▁a"]
    model = models.BPE(
        {t: i for i, t in enumerate(tokens)}, [("▁", "a")], unk_token="<unk>", byte_fallback=True
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    size = len(tokens)
    (saved(backend, tmp_path) / "config.json").write_text(json.dumps({"vocab_size": size + 2}))
    found = findings(tmp_path)
    (duplicate,) = found["duplicate"]
    assert (duplicate.token, duplicate.same_as) == ("▁a", tokens.index(" a"))
    assert [f.id for f in found["no-token"]] == [size, size + 1]
    unreachable = {f.token for f in found["unreachable"]}
    assert {" a", "<0x61>", "<0x62>", "<0xC0>"} <= unreachable
    assert not {"a", "▁a", "<0x63>", "<0xC3>"} & unreachable
