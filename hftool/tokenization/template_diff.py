"""What some variables change in the text that a chat template makes."""

import re
from difflib import SequenceMatcher

from hftool.tokenization.records import RenderedDiff, TemplatePart


def template_diff(without: str, text: str) -> RenderedDiff:
    """Return the parts of a text that are new, and those of another that are gone, word by word."""
    before, after = _words(without), _words(text)
    parts: list[TemplatePart] = []
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, start, end, new_start, new_end in matcher.get_opcodes():
        removed, added = "".join(before[start:end]), "".join(after[new_start:new_end])
        if removed == added:
            parts.append(TemplatePart("same", added))
            continue
        parts += [TemplatePart("removed", removed)] * bool(removed)
        parts += [TemplatePart("added", added)] * bool(added)
    return RenderedDiff(text, tuple(parts))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|.", text, re.DOTALL)
