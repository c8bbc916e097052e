"""Where in an answer the model reasons: from `<think>` at its beginning to `</think>`."""

from collections.abc import Iterator

OPENING, CLOSING = "<think>", "</think>"


class ReasoningSplitter:
    """Tells the reasoning from the answer while both are streamed; the tags may be split.

    Only a tag at the beginning counts: further on, `<think>` is a text like any other.

    Args:
        inside: the prompt has opened the reasoning.
    """

    def __init__(self, inside: bool) -> None:
        self._tag: str | None = CLOSING if inside else OPENING  # the one that may come next
        self._held = ""

    def parts(self, piece: str) -> Iterator[tuple[str, bool]]:
        """The texts that are certain now, and whether each is reasoning; tags belong to it."""
        self._held += piece
        if self._tag == OPENING:
            begins = self._held.lstrip()
            if begins.startswith(OPENING):
                self._tag = CLOSING
            elif not OPENING.startswith(begins):
                self._tag = None
            else:
                return
        if self._tag == CLOSING:
            before, found, after = self._held.partition(CLOSING)
            if not found:
                yield from self._all_but_a_beginning()
                return
            yield before + found, True
            self._tag, self._held = None, after
        if self._held:
            yield self._held, False
        self._held = ""

    def rest(self) -> Iterator[tuple[str, bool]]:
        """What was held back, at the end of the answer."""
        if self._held:
            yield self._held, self._tag == CLOSING
        self._held = ""

    def _all_but_a_beginning(self) -> Iterator[tuple[str, bool]]:
        held = self._held
        certain = next(i for i in range(len(held) + 1) if CLOSING.startswith(held[i:]))
        if certain:
            yield held[:certain], True
        self._held = held[certain:]
