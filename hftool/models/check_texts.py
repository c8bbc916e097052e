"""Texts on which a converted tokenizer is compared with the original."""

# Spaces at either end and in the middle, what Unicode normalization changes, characters without
# tokens, the space symbol itself, line ends, and what is neither seen nor printed.
HARD_TEXTS = (
    *("Hello world", " Hello", "  Hello  world ", "\ta\tb\n\nc\r\n", "123456 3.14", "▁x ▁ y▁"),
    *("ﬁne ½ Ｆｕｌｌ ｶﾞ ™", "naïve cafe\u0301 日本 🙂👩\u200d👧", "a\u00a0b\u3000c\u200bd\ufeffe"),
    *(
        "don't—“stop”…",
        "İstanbul ß ǅ",
        "x\x00y\x07",
        "   ",
        "\n",
        "a",
        "the the thethe",
        "\u0915\u094d\u0937",
    ),
)
