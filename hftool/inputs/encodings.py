"""Recognise the encoding of a text by its byte-order mark, else by its content."""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from hftool.errors import UsageError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WIDE = ("utf-16", "utf-32")  # encodings whose line ends are not the byte 0x0A alone
LEAST_PLAUSIBLE = 0.4  # the mean plausibility of its characters that a guess needs
MORE_PLAUSIBLE = 0.75  # where as much of the text is valid in UTF-8 as is not, and of UTF-16

# The most frequent characters, by which encodings that share their byte pairs are told apart.
_CHINESE = set(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过"
    "发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心本前开"
    "但因只从想实日者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重新"
    "物差评价货买质量服务电影手太棒垃圾喜欢非常推荐再真错快慢便宜贵退款态度恶劣屏幕清楚商品编号内容"
    "這個們來為國說時會對過發後裡種經麼學現當沒動還進樣無與長機實點業將兩間問質電戲喜歡買賣"
)
_KOREAN = set(
    "이다는을를에의가은고하지로한도기사어리자서니인아들있나대해그수시습전라일것정보과여게면만구장"
    "부제요상스거으모우주성음원오적동화안문선비말물소위경지내없신용무중계공세조생각미좋최악품매감"
)
_RARE_LETTERS = "ÿþÞÐ"
_USUAL_SIGNS = "€‚„…‘’“”•–—™¡£§«»©®°´·¿½¼¾²³\u00a0\u00ad"


def encoding_of_mark(head: bytes) -> str | None:
    """Return the encoding that a byte-order mark names, None without a mark."""
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)


def wide_encoding(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32 with its byte order where every second byte of a text is NUL, or
    three of four are, as in Latin letters without a byte-order mark."""
    head = head[: len(head) // 4 * 4] or head[: len(head) // 2 * 2]
    units = len(head) // 2
    if units < 4 or head.count(0) < units * 0.6:
        return None
    even, odd = head[::2].count(0) / units, head[1::2].count(0) / units
    if min(even, odd) > 0.4:
        return "utf-32-le" if head[:1] != b"\0" else "utf-32-be"
    return "utf-16-le" if odd > even else "utf-16-be"


def has_japanese_escapes(head: bytes) -> bool:
    """Return whether bytes are ISO-2022-JP: ASCII, with escapes before other characters."""
    return b"\x1b$B" in head or b"\x1b$@" in head


def known_encoding(name: str) -> str:
    """Return the canonical name of an encoding.

    Raises:
        UsageError: Python knows no text encoding of this name.
    """
    try:
        codec = codecs.lookup(name)
        if codec._is_text_encoding:
            return codec.name
    except LookupError:
        pass
    raise UsageError(
        f"--encoding: '{name}' is not the name of an encoding",
        "common ones are utf-8, utf-16, cp1252, gb18030, big5, shift_jis, euc_kr",
    )


def is_wide(encoding: str) -> bool:
    """Return whether an encoding is UTF-16 or UTF-32 in either byte order."""
    return encoding.startswith(WIDE)


def guessed_encoding(sample: bytes) -> str:
    """Return the most plausible encoding of the beginning of a text, which may end inside a
    character.

    A text in UTF-8 with a few wrong bytes is UTF-8. Without a plausible other encoding the guess is
    UTF-8 as well, so that reading it names the first wrong byte.
    """
    replaced = sample.decode("utf-8", "replace")
    wrong = replaced.count("\ufffd")
    right = sum(character > "\x7f" for character in replaced) - wrong
    if right > 3 * wrong:
        return "utf-8"
    least = MORE_PLAUSIBLE if right >= wrong else LEAST_PLAUSIBLE
    scored = [(_plausibility(sample, name, of), name) for name, of in _PLAUSIBILITY]
    score, best = max(scored, key=lambda pair: pair[0])
    return best if score >= least else "utf-8"


def _plausibility(sample: bytes, encoding: str, of: Callable[[str], Iterable[float]]) -> float:
    """Return the mean plausibility of a sample's characters in an encoding, at most 1; 0 where it
    can't be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(sample)
    except UnicodeDecodeError:
        return 0
    characters = [c for c in text if c > "\x7f"]
    if not characters or any(c < " " and c not in "\t\n\r\f" for c in text):
        return 0
    score = sum(of(text)) / len(characters)
    return 0 if is_wide(encoding) and score < MORE_PLAUSIBLE else score


def _chinese(text: str) -> Iterator[float]:
    for c in text:
        if c in _CHINESE:
            yield 1.0
        elif "\u4e00" <= c <= "\u9fff":
            yield 0.55 if _first_byte(c, "gb2312") in range(0xB0, 0xD8) else 0.0
        elif c > "\x7f":
            yield _punctuation(c)


def _traditional(text: str) -> Iterator[float]:
    for c in text:
        if c in _CHINESE:
            yield 1.0
        elif "\u4e00" <= c <= "\u9fff":
            yield 0.55 if _first_byte(c, "big5") in range(0xA4, 0xC7) else 0.0
        elif c > "\x7f":
            yield _punctuation(c)


def _japanese(text: str) -> Iterator[float]:
    for c in text:
        if "\u3041" <= c <= "\u30fe":
            yield 1.0
        elif "\u4e00" <= c <= "\u9fff":
            yield 0.6 if _first_byte(c, "shift_jis") in range(0x88, 0x98) else 0.2
        elif c > "\x7f":
            yield _punctuation(c)


def _korean(text: str) -> Iterator[float]:
    for c in text:
        if "\uac00" <= c <= "\ud7a3":
            yield 1.0 if c in _KOREAN else 0.35 if _first_byte(c, "euc_kr") else 0.0
        elif c > "\x7f":
            yield _punctuation(c) if c < "\u4e00" or c > "\u9fff" else 0.0


def _cyrillic(text: str) -> Iterator[float]:
    return _scripted(text, "\u0400-\u045f\u0490\u0491", "оеаинтсрвлкмдпуяыьзбгіў", "№«»—“”–…")


def _greek(text: str) -> Iterator[float]:
    # A sigma has another form at the end of a word.
    text = re.sub(r"ς(?=\w)|σ(?!\w)", "\ufffd", text)
    return _scripted(text, "\u0386-\u03ce", "αάοόιίτεέσςνηήυύρπκμλωώδγ", "«»—“”–…’·€")


def _hebrew(text: str) -> Iterator[float]:
    # Five letters have another form at the end of a word.
    text = re.sub(r"[ךםןףץ](?=\w)|(?<=\w)[כמנצ](?!\w)", "\ufffd", text)
    return _scripted(text, "\u05d0-\u05ea", "יוהלאםתמרבשנןעדח", "«»—“”–…’₪")


def _arabic(text: str) -> Iterator[float]:
    return _scripted(text, "\u0621-\u0652", "اليمنوترهبةدعسفقكحجأش", "،؛؟«»—“”–…")


def _scripted(text: str, letters: str, frequent: str, signs: str) -> Iterator[float]:
    """Letters of one script stand among their like, not among Latin ones, and a capital does not
    follow a small letter; most of them are the frequent ones."""
    script = re.compile(f"[{letters}]")
    for before, c, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if c <= "\x7f":
            continue
        if script.match(c):
            beside = [x for x in (before, after) if x.isalpha()]
            if before.islower() and c.isupper():
                yield -1.5
            elif not beside or not all(map(script.match, beside)):
                yield -0.5 if beside else 0.3
            else:
                yield 0.95 if c in frequent else 0.6
        else:
            yield 0.3 if c in signs else -0.5


def _western(text: str) -> Iterator[float]:
    """Letters stand among ASCII letters, and signs do not stand inside words."""
    for before, c, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if c <= "\x7f":
            continue
        if c.isalpha():
            beside = [x for x in (before, after) if x.isalpha()]
            ascii_beside = any(x <= "\x7f" for x in beside)
            inverted = before.islower() and c.isupper()
            likely = ascii_beside and not inverted and c not in _RARE_LETTERS
            rare = (c in "õÕ" and after.lower() != "e") or c in "ûÛűŰ"  # ő and ű in cp1250
            yield (
                (0.8 if rare else 0.9)
                if likely
                else 0.6
                if c in "àÀÁÉÈÓéáóè" and not beside
                else -0.5
            )
        else:
            inside = before.isalpha() and after.isalpha()
            inside |= before.isalpha() and c in "‚„"  # which open a quotation
            usual = c in _USUAL_SIGNS and (not inside or c in "’·\u00ad–—")
            yield 0.7 if usual else -0.5


def _eastern_european(text: str) -> Iterator[float]:
    return (score * 0.9 for score in _western(text))


def _turkish(text: str) -> Iterator[float]:
    return _latin(text, "çöüğışâîûÇÖÜĞİŞ")


def _hungarian(text: str) -> Iterator[float]:
    return _latin(text, "áéíóöőúüűÁÉÍÓÖŐÚÜŰ")


def _icelandic(text: str) -> Iterator[float]:
    return _latin(text, "áéíóúýþæðöÁÉÍÓÚÝÞÆÐÖ")


def _latin(text: str, letters: str) -> Iterator[float]:
    """A language has these letters outside ASCII and no others. They are a little less likely than
    in `_western`, which wins where both read the same."""
    western = _western(text)
    for before, c, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if c <= "\x7f":
            continue
        score = next(western)
        if not c.isalpha():
            yield score
        elif c not in letters or (before.islower() and c.isupper()):
            yield -0.5
        else:
            rare = 0.75 if c in "űŰûÛ" else 0.895
            yield rare if before.isalpha() or after.isalpha() else min(score, 0.3)


def _first_byte(character: str, encoding: str) -> int:
    try:
        return character.encode(encoding)[0]
    except UnicodeEncodeError:
        return 0


def _punctuation(character: str) -> float:
    if character in "，。！？、；：“”‘’（）《》【】…—·「」『』〜～％＋－／０１２３４５６７８９":
        return 0.7
    return 0.0


_PLAUSIBILITY: Sequence[tuple[str, Callable[[str], Iterable[float]]]] = (
    ("cp1252", _western),
    ("gb18030", _chinese),
    ("cp932", _japanese),
    ("big5", _traditional),
    ("cp949", _korean),
    ("cp1251", _cyrillic),
    ("koi8_r", _cyrillic),
    ("cp1253", _greek),
    ("cp1255", _hebrew),
    ("cp1256", _arabic),
    ("cp1254", _turkish),
    ("cp1250", _eastern_european),
    ("cp1250", _hungarian),
    ("iso8859_2", _eastern_european),
    ("cp1252", _icelandic),
    ("euc_jp", _japanese),
    ("utf-16-le", _chinese),
    ("utf-16-be", _chinese),
)
"""Encodings to guess from, each with what yields the plausibility (at most 1) of the characters of
a text that are not ASCII. Of equally plausible ones the first is taken."""
