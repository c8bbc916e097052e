"""Count the tokens of texts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from hftool.inputs.readahead import flushed_windows
from hftool.tokenization.failed_texts import or_failures
from hftool.tokenization.fast_counts import FastCounter
from hftool.tokenization.records import Counted, FailedText
from hftool.tokenization.tokenizer import Tokenizer

# Texts to count together: results are small, and large windows keep all cores busy.
WINDOW = 16_384
PART = 4096  # texts of such a window whose results are written while others are tokenized


def count_tokens(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    special: bool,
    check: bool = False,
    flush: Callable[[], None] = lambda: None,
) -> Iterator[Counted | FailedText]:
    """Yield each text with its number of tokens.

    Args:
        check: compare the tokens of each text with those of the tokenizers library, where another
            one counts them.
    """
    fast = None if special else FastCounter(tokenizer.backend, check=check)

    def counted(part: Sequence[str]) -> list[Counted | FailedText]:
        if fast is not None and (counts := fast.counts(part)) is not None:
            return list(map(Counted, part, counts))
        return list(or_failures(lambda p: map(Counted, p, tokenizer.count_batch(p, special)), part))

    # In a thread, so that the caller writes the results of some texts while others are tokenized.
    pool = ThreadPoolExecutor(1)
    try:
        for window in flushed_windows(texts, WINDOW, flush):
            parts = [window[i : i + PART] for i in range(0, len(window), PART)]
            for counts in [pool.submit(counted, part) for part in parts]:
                yield from counts.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
