"""`--save`: what a terminal shows as SVG and HTML, and heat maps of texts."""

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hftool.generation.scored_tokens import ScoredToken
from hftool.output.token_spans import encoded_spans, scored_spans
from hftool.tokenization.encode import encode_texts
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tiny_models import save_model

EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR = f"[{EIGHTHS[1:]}]+"
TEXT = 'a <script>alert("x")</script>\t大家 👩\u200d👧\r\n&amp; <b>é e\u0301 שלום'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@dataclass
class Page(HTMLParser):
    """A page as a browser reads it: its elements, and the text of its <pre> by spans."""

    elements: list[str] = field(default_factory=list)
    spans: list[tuple[str, list[str]]] = field(default_factory=list)  # text and lines of its tip
    text: str = ""
    mark: bool = False  # inside an <i>: the symbol of a line break or tab, not part of the text
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.inside |= tag == "pre"
        self.mark = tag == "i"
        if self.inside and tag == "span":
            self.spans.append(("", (dict(attrs).get("data-tip") or "").split("\n")))

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "pre"
        self.mark = False

    def handle_data(self, data: str) -> None:
        if self.inside and not self.mark:
            self.text += data
            if self.spans:
                text, tip = self.spans[-1]
                self.spans[-1] = (text + data, tip)


def page(file: Path) -> Page:
    """Parse a saved page, which must neither load anything nor run a script."""
    source = file.read_text("utf-8")
    assert not re.search(r"https?:|url\(|@import|src=", source)
    assert not re.search(r"<(?![!/\w])|&(?!#?\w+;)", source)  # everything but tags is escaped
    found = Page()
    found.feed(source)
    assert "script" not in found.elements
    return found


def test_heat_map_of_a_text_by_tokens(folder: Path, tmp_path: Path) -> None:
    done = run("encode", TEXT, "-m", str(folder), "--json", "--save", str(tmp_path / "p.html"))
    (record,) = json.loads(done.stdout)
    found = page(tmp_path / "p.html")
    assert found.text == TEXT.replace("\r", r"\r")
    # The model has a token for each byte: a span is a character, its tip has a line for each byte.
    characters = [text for text, _ in found.spans]
    assert characters == [r"\r" if c == "\r" else c for c in TEXT]
    assert [len(tip) for _, tip in found.spans] == [len(c.encode()) for c in TEXT]
    tips = [line for _, tip in found.spans for line in tip]
    assert [int(tip.split()[1]) for tip in tips] == record["ids"]
    for tip, (start, end) in zip(tips, record["offsets"], strict=True):
        assert tip.endswith(f"   {start} to {end}")


def test_heat_map_of_a_text_by_surprisal(folder: Path, tmp_path: Path) -> None:
    done = run(
        *("score", TEXT, "-m", str(folder), "--by", "token", "--json"),
        *("--save", str(tmp_path / "p.html")),
    )
    *tokens, total = json.loads(done.stdout)
    found = page(tmp_path / "p.html")
    assert found.text == TEXT.replace("\r", r"\r")
    tips = [line for _, tip in found.spans for line in tip]
    assert [int(tip.split()[1]) for tip in tips] == [t["id"] for t in tokens]
    assert f"surprisal {tokens[1]['surprisal']:.4f}"[:14] in tips[1]
    assert "first token" in tips[0]
    heats = re.findall(r"--s:([0-9.]+)", (tmp_path / "p.html").read_text("utf-8"))
    assert float(heats[1]) == pytest.approx(min(1, tokens[1]["surprisal"] / 16), abs=1e-3)
    assert f"over {total['tokens']} tokens" in (tmp_path / "p.html").read_text("utf-8")


def test_heat_maps_of_several_texts(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.html"
    run("encode", "ab\ncd", "--lines", "-m", str(folder), "--save", str(file))
    assert page(file).elements.count("pre") == 2
    run("score", "ab", "cd", "-m", str(folder), "--by", "token", "--save", str(file))
    assert page(file).elements.count("pre") == 2
    assert file.read_text("utf-8").count("perplexity") == 2


COMMANDS = (
    ("encode", "--compare", "smollm2"),
    ("encode", "--count"),
    ("topk", "-k", "3"),
    ("topk", "--top-p", "0.5"),
    ("sample", "--steps", "2", "--seed", "1"),
)


@pytest.mark.parametrize(
    ("command", "suffix"),
    [
        *((command, "svg") for command in COMMANDS),
        *((command, "html") for command in COMMANDS if command[0] != "topk"),  # has sliders
    ],
)
def test_an_export_shows_what_the_table_shows(
    command: tuple[str, ...], suffix: str, folder: Path, tmp_path: Path
) -> None:
    call = (command[0], "大 <b>&", "-m", str(folder), *command[1:])
    table = run(*call, "--format", "table", "--color", "always").stdout
    file = tmp_path / f"p.{suffix}"
    done = run(*call, "--save", str(file))
    assert (done.exit_code, done.stdout) == (0, run(*call).stdout)
    if suffix == "svg":
        assert not re.search(r"url\((?!#)|@import|@font-face", file.read_text("utf-8"))
        root = ElementTree.parse(file).getroot()
        text = " ".join(e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text"))
        bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("class")]
        widths = [8 * len(bar[:-1]) + EIGHTHS.index(bar[-1]) for bar in re.findall(BAR, table)]
        assert [8 * float(bar.attrib["width"]) / 12.2 for bar in bars] == pytest.approx(widths)
        table = re.sub(BAR, "", table)
    else:
        text = page(file).text
    words = re.sub(r"\x1b\[[0-9;]*m", " ", table).split()
    shown = text.replace("\xa0", " ")
    assert [word for word in words if word not in shown] == []


def test_wide_characters_have_their_width(folder: Path, tmp_path: Path) -> None:
    run("encode", "大家", "-m", str(folder), "--special", "--save", str(tmp_path / "p.svg"))
    root = ElementTree.parse(tmp_path / "p.svg").getroot()
    texts = {e.text: e.attrib for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert float(texts["大"]["textLength"]) == pytest.approx(2 * 12.2)
    assert float(texts["家"]["x"]) == pytest.approx(2 * 12.2)
    assert float(texts["index"]["textLength"]) == pytest.approx(5 * 12.2)
    compared = ("encode", "大", "-m", str(folder), "--compare", str(folder))
    run(*compared, "--save", str(tmp_path / "p.html"))
    assert 'style="width:2ch">大</b>' in (tmp_path / "p.html").read_text("utf-8")


def test_an_export_is_svg_or_html(folder: Path, tmp_path: Path) -> None:
    done = run("encode", "a", "-m", "absent", "--save", str(tmp_path / "p.png"))
    assert done.exit_code == 2
    assert done.stderr.endswith("--save writes .svg or .html, not 'p.png'\n")
    done = run("encode", "a", "-m", str(folder), "--save", str(tmp_path / "absent" / "p.svg"))
    assert done.exit_code == 1
    assert "Error: cannot write" in done.stderr


def test_a_run_that_fails_exports_nothing(folder: Path, tmp_path: Path) -> None:
    done = run("topk", "a" * 999, "-m", str(folder), "--save", str(tmp_path / "p.svg"))
    assert done.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)  # the first text waits for what is computed once
@given(st.text())
def test_spans_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    (record,) = encode_texts(tokenizer, [text], special=False)
    spans = list(encoded_spans(record))
    assert "".join(span.text for span in spans) == text
    assert [i for span in spans for i in span.tokens] == list(range(record.count))
    assume(tokenizer.decode(record.ids) == text)  # SmolLM2 has no token for some bytes
    scored = list(scored_spans([_token(tokenizer, i) for i in record.ids]))
    assert "".join(span.text for span in scored) == text
    assert [i for span in scored for i in span.tokens] == list(range(record.count))


@given(st.lists(st.integers(0, 300)))
def test_any_tokens_are_in_a_span_each_once(tokenizer: Tokenizer, ids: list[int]) -> None:
    spans = list(scored_spans([_token(tokenizer, i) for i in ids]))
    assert [i for span in spans for i in span.tokens] == list(range(len(ids)))
    assert all("\ufffd" not in span.text for span in spans)
    assert all("\udc80" > c or c > "\udcff" for span in spans for c in span.text)


def _token(tokenizer: Tokenizer, token_id: int) -> ScoredToken:
    token, data = tokenizer.token_text(token_id), tokenizer.token_hex(token_id)
    return ScoredToken(0, token_id, token, data, None, None, None, None)


@pytest.mark.parametrize("color", ["always", "never"])
def test_invisible_characters_are_seen_on_a_terminal(color: str, folder: Path) -> None:
    text = "a\u00a0b\u00adc\u200dd\ufe0fe\ufefff g\t\n\u0301"
    table = run(
        *("encode", text, "-m", str(folder), "--format", "table", "--color", color),
    ).stdout
    first = re.sub(r"\x1b\[[0-9;]*m", "", table).split("\n\n")[0].replace("\n", "")
    expected = r"a \u00a0 b \u00ad c \u200d d \ufe0f e \ufeff f ␣ g \t \n".split()
    expected.append("◌\u0301")
    assert first == (("|" if color == "never" else "").join([*expected, ""]))


def test_what_no_token_covers_is_shown(tokenizer: Tokenizer) -> None:
    (record,) = encode_texts(tokenizer, ["good morning all"], special=False, max_tokens=2)
    spans = [(span.text, list(span.tokens)) for span in encoded_spans(record)]
    assert spans == [("good", [0]), (" morning", [1]), (" all", [])]
