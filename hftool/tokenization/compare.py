"""Texts in the tokens of several tokenizers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from hftool.tokenization.failed_texts import or_failures
from hftool.tokenization.records import Compared, ComparedCount, ComparedTotal, FailedText
from hftool.tokenization.tokenizer import Tokenizer


def compare_tokenizers(
    tokenizers: Sequence[Tokenizer],
    texts: Iterable[Sequence[str]],
    *,
    special: bool,
    only_counts: bool = False,
) -> Iterator[Compared | ComparedCount | ComparedTotal | FailedText]:
    """Yield each text, as each tokenizer gets it, in the tokens of that tokenizer, or only their
    number; then, with `only_counts` or for several texts, the totals of each tokenizer."""
    totals = [ComparedTotal("total", t.name, 0, 0, None, 0) for t in tokenizers]
    sizes = [0] * len(tokenizers)  # bytes
    for versions in texts:
        for i, (tokenizer, text) in enumerate(zip(tokenizers, versions, strict=True)):
            for record in or_failures(partial(_compared, tokenizer, special), [text]):
                if isinstance(record, FailedText):
                    yield record
                    continue
                total, sizes[i] = totals[i], sizes[i] + len(text.encode())
                count = total.count + record.count
                totals[i] = replace(
                    total,
                    texts=total.texts + 1,
                    count=count,
                    bytes_per_token=sizes[i] / count if count else None,
                    unknown=total.unknown + record.unknown,
                )
                shared = (record.model, text, record.count, record.bytes_per_token, record.unknown)
                yield ComparedCount(*shared) if only_counts else record
    if only_counts or totals[0].texts > 1:
        yield from totals


def _compared(tokenizer: Tokenizer, special: bool, texts: Sequence[str]) -> Iterator[Compared]:
    for text in texts:
        ids = tokenizer.encode(text, special).ids
        yield Compared(
            tokenizer.name,
            text,
            len(ids),
            len(text.encode()) / len(ids) if ids else None,
            tuple(ids),
            tuple(tokenizer.token_text(i) for i in ids),
            sum(token_id == tokenizer.unknown_id for token_id in ids),
        )
