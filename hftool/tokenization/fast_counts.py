"""Count tokens with gigatoken, where its tokens are those of the tokenizers library.

gigatoken is several times as fast, but young: it is used only if installed, for large inputs, and
as long as it gives the same ids for the texts that both encode.
"""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

log = logging.getLogger("hftool")

MANY_CHARACTERS = 100_000  # of the texts to count together; for fewer, its start takes too long
SAMPLES = 64  # of the texts counted together, compared with the tokenizers library


class FastCounter:
    """Counts the tokens of texts as `backend` does, without special tokens.

    Args:
        check: compare the ids of each text, not only of some.
    """

    def __init__(self, backend: "tokenizers.Tokenizer", *, check: bool = False) -> None:
        self._backend = backend
        self._check = check
        self._fast: Any = None
        self._usable = bool(find_spec("gigatoken")) and not backend.encode_special_tokens

    def counts(self, texts: Sequence[str]) -> list[int] | None:
        """Return the number of tokens of each text; None where gigatoken can't be relied on."""
        if not self._usable or sum(map(len, texts)) < MANY_CHARACTERS:
            return None
        try:
            import awkward
            import gigatoken

            if self._fast is None:
                self._fast = gigatoken.Tokenizer.from_json(self._backend.to_str())
                log.debug("gigatoken %s counts the tokens", version("gigatoken"))
            found = self._fast.encode_batch(list(texts))
        except Exception as error:  # what it can't read, the tokenizers library may
            log.debug("gigatoken does not count the tokens: %s", str(error).partition("\n")[0])
            self._usable = False
            return None
        step = 1 if self._check else max(1, len(texts) // SAMPLES)
        expected = self._backend.encode_batch_fast(texts[::step], add_special_tokens=False)
        sampled = zip(texts[::step], found[::step].to_list(), expected, strict=True)
        for text, ids, encoding in sampled:
            if ids != encoding.ids:
                log.warning(
                    "gigatoken gives other tokens than the tokenizers library for '%s': it is not"
                    " used any more; with --check no count depends on it alone",
                    text[:60],
                )
                self._usable = False
                return None
        counts: list[int] = awkward.num(found).tolist()
        return counts
