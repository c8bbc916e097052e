"""Tables as Excel, survey tools, databases, pandas, R and Spark write them: the right texts."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
import zstandard

from hftool.arrow import ColumnTypes
from hftool.errors import HftoolError, UsageError
from hftool.inputs.tables import TextTable, read_table
from hftool.options.inputs import TableInputOptions

LOVE, WORST = "I love this phone", "Worst purchase ever"
CHINESE = ["这部手机太棒了，非常喜欢", "质量太差，退货了"]
JAPANESE = ["とても良い商品です", "画質が悪い。最悪でした"]
KOREAN = ["정말 좋은 제품입니다", "배송이 너무 느려요"]
RUSSIAN = ["Очень хороший телефон", "Ужасное качество"]
GREEK = ["Πολύ καλό προϊόν, το συνιστώ", "Κακή ποιότητα και αργή εξυπηρέτηση"]
TURKISH = ["Çok güzel bir ürün, öneririm", "Kötü kalite, yavaş kargo, ışık değil"]
HEBREW = ["מוצר מצוין, מומלץ", "איכות גרועה מאוד"]
ARABIC = ["منتج رائع جدا", "جودة سيئة للغاية"]
HUNGARIAN = ["Nagyon jó termék, ajánlom", "Rossz minőségű, lassú kiszolgálás"]
ICELANDIC = ["Mjög góður sími, þetta er frábært", "Slæm gæði, það virkar ekki"]
GERMAN = ["Sehr schön, würde ich wieder kaufen", "Überhaupt nicht zufrieden"]
POLISH = ["Bardzo dobry produkt, polecam każdemu", "Zła jakość, słaba obsługa"]


def texts_of(table: TextTable) -> list[str]:
    """Return the texts of a table; a row without a usable one is an error."""
    texts = []
    for row in table:
        if row.error:
            raise row.located(row.error)
        texts.append(row.text)
    return texts


def table(path: Path, data: bytes, **options: Any) -> TextTable:
    """Return the table in a file with this content."""
    path.write_bytes(data)
    return read_table(None, TableInputOptions(files=[path], **options))


def zipped(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


def lines_of(texts: list[str], header: str = "id;text\r\n") -> str:
    rows = [f"{number};{text}\r\n" for number, text in enumerate(texts, 1)]
    return header + "".join(rows)


SHAPES: dict[str, tuple[str, bytes | str, dict[str, Any], list[str]]] = {
    # Separators
    "comma": ("a.csv", f"id,text\n1,{LOVE}\n2,{WORST}\n", {}, [LOVE, WORST]),
    "semicolon of a European Excel": ("a.csv", lines_of([LOVE, WORST]), {}, [LOVE, WORST]),
    "semicolon with decimal commas": (
        "a.csv",
        "id;preis;text\r\n1;4,50;gut, billig\r\n2;10,00;teuer, schlecht\r\n",
        {},
        ["gut, billig", "teuer, schlecht"],
    ),
    "semicolon, with a comma in a name": (
        "a.csv",
        "id;text;price, EUR\n1;good;1,5\n2;bad;2,5\n",
        {},
        ["good", "bad"],
    ),
    "semicolon, quoted texts with semicolons": (
        "a.csv",
        'id;text\n1;"good; cheap"\n2;"bad; dear"\n',
        {},
        ["good; cheap", "bad; dear"],
    ),
    "semicolon, one record": (
        "a.csv",
        "team;text\nbad debts and losses;Works well\n",
        {},
        ["Works well"],
    ),
    "tab in a csv": (
        "a.csv",
        f"id\ttext\n1\t{LOVE}, really\n2\t{WORST}\n",
        {},
        [f"{LOVE}, really", WORST],
    ),
    "comma in a tsv": ("a.tsv", f"id,text\n1,{LOVE}\n2,{WORST}\n", {}, [LOVE, WORST]),
    "pipe": ("a.csv", f"id|text|date\n1|{LOVE}|2024-01-02\n", {}, [LOVE]),
    "sep= line": ("a.csv", f"sep=;\r\nid;text\r\n1;{LOVE}\r\n", {}, [LOVE]),
    "quoted sep= line with a comma": ("a.csv", f'"sep=,"\r\nid,text\r\n1,{LOVE}\r\n', {}, [LOVE]),
    "sep= line and a byte-order mark": (
        "a.csv",
        f"\ufeffsep=\t\r\nid\ttext\r\n1\t{LOVE}\r\n",
        {},
        [LOVE],
    ),
    "an uncommon separator, named": ("a.csv", f"id~text\n1~{LOVE}\n", {"delimiter": "~"}, [LOVE]),
    "a tab, named": ("a.txt", f"id\ttext\n1\t{LOVE}\n", {"delimiter": "tab"}, [LOVE]),
    "a header alone": ("a.csv", "id;text\n", {}, []),
    "one column": ("a.csv", "text\nGood\n\nBad; really\n", {}, ["Good", "Bad; really"]),
    "one column with commas in it": (
        "a.csv",
        "text\nGreat, really\nBad, bad, sad\nFine\n",
        {},
        ["Great, really", "Bad, bad, sad", "Fine"],
    ),
    "one quoted column": ("a.csv", '"text"\n"Good, cheap"\n"Bad"\n', {}, ["Good, cheap", "Bad"]),
    "every cell is quoted": (
        "a.csv",
        '"id","text"\n"1","Good"\n"2","Bad, dear"\n',
        {},
        ["Good", "Bad, dear"],
    ),
    "a space after each comma": (
        "a.csv",
        'id, text\n1, Good\n2, "Bad, dear"\n',
        {},
        ["Good", "Bad, dear"],
    ),
    # Quotes and line ends
    "doubled quotes and line breaks": (
        "a.csv",
        'id,text\r\n1,"He said ""great""\r\ntwice"\r\n2,Bad\r\n',
        {},
        ['He said "great"\r\ntwice', "Bad"],
    ),
    "backslashes before quotes, by Spark": (
        "a.csv",
        'id,text\n1,"He said \\"great\\", twice"\n2,Bad\n',
        {},
        ['He said "great", twice', "Bad"],
    ),
    "backslashes by Spark, at the ends of cells": (
        "a.csv",
        'text,size\n"a screen of 15\\"",big\nbad,small\n"13\\"",C:\\new\n',
        {},
        ['a screen of 15"', "bad", '13"'],
    ),
    "backslashes before commas, by MySQL": (
        "a.csv",
        "id,text\n1,good\\, really\n2,\\N\n3,line\\\nbreak\n",
        {},
        ["good, really", "", "line\nbreak"],
    ),
    "backslashes before quotes in unquoted cells": (
        "a.csv",
        'id,text\n1,a 5\\" screen\n2,C:\\\\dir\n',
        {},
        ['a 5" screen', "C:\\dir"],
    ),
    "a comma at the end of the only column": (
        "a.csv",
        "text\nWell, no\nGood,\nBad;\n",
        {},
        ["Well, no", "Good,", "Bad;"],
    ),
    "paths in a tsv without escapes": (
        "a.tsv",
        "text\tpath\nin C:\\new\tC:\\Users\\new\\\n",
        {},
        ["in C:\\new"],
    ),
    "paths in Excel's quoted tab file": (
        "a.tsv",
        'path\ttext\nC:\\new\t"a ""big"" one"\n',
        {},
        ['a "big" one'],
    ),
    "backslashes before quotes in a tsv": (
        "a.tsv",
        '"id"\t"text"\n"1"\t"a \\"big\\" one"\n',
        {},
        ['a "big" one'],
    ),
    "paths and quotes after RFC 4180": (
        "a.csv",
        'path,text\n"C:\\",Good\n"D:\\new\\","Bad ""one"""\n',
        {},
        ["Good", 'Bad "one"'],
    ),
    "quotes inside unquoted cells": (
        "a.csv",
        'id,text\n1,a 5" screen\n2,Bad "x" y\n',
        {},
        ['a 5" screen', 'Bad "x" y'],
    ),
    "carriage returns": ("a.csv", f"id,text\r1,{LOVE}\r2,{WORST}\r", {}, [LOVE, WORST]),
    "carriage returns in a tsv": ("a.tsv", f"id\ttext\r1\t{LOVE}\r2\t{WORST}\r", {}, [LOVE, WORST]),
    "empty lines around": ("a.csv", f"\n\nid,text\n1,{LOVE}\n\n2,{WORST}\n\n\n", {}, [LOVE, WORST]),
    "empty lines around in a tsv": (
        "a.tsv",
        f"\nid\ttext\n1\t{LOVE}\n\n2\t{WORST}\n\n",
        {},
        [LOVE, WORST],
    ),
    "a line of spaces": ("a.csv", f"id,text\n1,{LOVE}\n  \n2,{WORST}\n", {}, [LOVE, WORST]),
    # TSV
    "Excel's quoted tab file": (
        "a.tsv",
        'id\ttext\tn\r\n1\t"He said ""it is great"", twice"\t5\r\n2\t"line one\nline two"\t4\r\n',
        {},
        ['He said "it is great", twice', "line one\nline two"],
    ),
    "Excel's quoted tab file with one column": (
        "a.tsv",
        'text\r\n"Great start,\nawful ending"\r\nFine\r\n',
        {},
        ["Great start,\nawful ending", "Fine"],
    ),
    "an empty text in a quoted tab file with one column": (
        "a.tsv",
        'text\nGood\n""\nBad\n',
        {},
        ["Good", "", "Bad"],
    ),
    "PostgreSQL's copy": (
        "a.tsv",
        'id\ttext\n1\t"quoted" \\n\n2\t\\N\n3\ta\\tb\\\\c\n',
        {},
        ['"quoted" \n', "", "a\tb\\c"],
    ),
    "quotes in a tsv without quoting": (
        "a.tab",
        'id\ttext\n1\t"Good" phone\n2\ta 5" one\n',
        {},
        ['"Good" phone', 'a 5" one'],
    ),
    # Headers
    "an index of pandas": ("a.csv", f",text,n\n0,{LOVE},4.5\n1,{WORST},1.0\n", {}, [LOVE, WORST]),
    "empty and repeated names": (
        "a.csv",
        f"No,What did you like?,Other,,Other,\n1,{LOVE},x,,y,\n2,{WORST},,,z,\n",
        {"column": "what did you like?"},
        [LOVE, WORST],
    ),
    "a repeated name, by number": ("a.csv", "text,text\na,b\n", {"column": "2"}, ["b"]),
    "another case": ("a.csv", f"ID,Review\n1,{LOVE}\n", {"column": "review"}, [LOVE]),
    "the exact case first": ("a.csv", "text,Text\na,b\n", {"column": "Text"}, ["b"]),
    "a usual name": ("a.csv", f"ID,Review_Text\n1,{LOVE}\n", {}, [LOVE]),
    "text before other usual names": ("a.csv", f"review,text\n1,{LOVE}\n", {}, [LOVE]),
    "a decomposed accent": ("a.csv", "id,Re\u0301ponse\n1,oui\n", {"column": "Réponse"}, ["oui"]),
    "spaces around a name": (
        "a.csv",
        f"id , the words \n1,{LOVE}\n",
        {"column": "the words"},
        [LOVE],
    ),
    "a line break in a name": (
        "a.csv",
        'id,"Comment\n(free)"\n1,Good\n',
        {"column": "Comment\n(free)"},
        ["Good"],
    ),
    "a title": (
        "a.csv",
        f"Survey export 2024\n\nid,text\n1,{LOVE}\n2,{WORST}\n",
        {},
        [LOVE, WORST],
    ),
    "a title between empty rows, filled up by Excel": (
        "a.csv",
        f";;\r\nSurvey;;\r\n;;\r\nid;text;n\r\n1;{LOVE};2\r\n2;{WORST};3\r\n",
        {},
        [LOVE, WORST],
    ),
    "a title, filled up by Excel": (
        "a.csv",
        f"Umfrage;;\nvom Mai;;\nNr;Text;Note\n1;{LOVE};5\n",
        {},
        [LOVE],
    ),
    "comments": ("a.csv", f"# by a tool\n# 2024\nid,text\n1,{LOVE}\n", {}, [LOVE]),
    "a second row of names, by SurveyMonkey": (
        "a.csv",
        f"Respondent ID,What did you like?,\n,Open-Ended Response,Other\n1,{LOVE},\n",
        {"column": "2"},
        [LOVE],
    ),
    "a second row of names without that mark": (
        "a.csv",
        f"Respondent ID,Do you agree?,,Size\n,Response,Other (please specify),\n1,Yes,{LOVE},\n",
        {"column": "3"},
        [LOVE],
    ),
    "three rows of names, by Qualtrics": (
        "a.csv",
        'StartDate,Q1,Q2\nStart Date,"Why, then?",Rate\n"{""ImportId"":""startDate""}",'
        f'"{{""ImportId"":""QID1_TEXT""}}","{{}}"\n2024-01-01,{LOVE},5\n2024-01-02,{WORST},1\n',
        {"column": "Q1"},
        [LOVE, WORST],
    ),
    "words over numbers in the first record, told": (
        "a.csv",
        "text,stars\nGood,five\nBad,1\nFine,3\n",
        {"header": True},
        ["Good", "Bad", "Fine"],
    ),
    "a missing number in the first record": (
        "a.csv",
        "text,stars\nGood,N/A\nBad,1\nFine,3\n",
        {},
        ["Good", "Bad", "Fine"],
    ),
    "the number of rows below them, by psql": (
        "a.csv",
        f"id|text\n1|{LOVE}\n(1 row)\n",
        {},
        [LOVE],
    ),
    "the end of COPY": ("a.tsv", "text\nGood\n\\.\n", {}, ["Good"]),
    "the mark at the end of a DOS file": (
        "a.csv",
        f"id,text\r\n1,{LOVE}\r\n\x1a",
        {},
        [LOVE],
    ),
    "commas at the ends of rows": (
        "a.csv",
        f"id,text\n1,{LOVE},\n2,{WORST},,\n",
        {},
        [LOVE, WORST],
    ),
    "no header, one column": ("a.csv", f"{LOVE}\n{WORST}\n", {"header": False}, [LOVE, WORST]),
    "no header": (
        "a.csv",
        f"5,{LOVE}\n1,{WORST}\n",
        {"header": False, "column": "2"},
        [LOVE, WORST],
    ),
    "numbers as names": (
        "a.csv",
        f"2019,Wort\n1,{LOVE}\n",
        {"header": True, "column": "Wort"},
        [LOVE],
    ),
    # What is missing
    "a word for null": ("a.csv", "id,text\n1,NULL\n2,good\n", {"null": "NULL"}, ["", "good"]),
    "null is a text where nobody says otherwise": ("a.csv", "id,text\n1,NULL\n", {}, ["NULL"]),
    # JSON
    "an array": (
        "a.json",
        json.dumps([{"id": 1, "text": LOVE}, {"text": WORST}]),
        {},
        [LOVE, WORST],
    ),
    "a pretty array": (
        "a.json",
        json.dumps([{"id": 1, "text": LOVE, "more": [{"x": None}]}, {"text": WORST}], indent=2),
        {},
        [LOVE, WORST],
    ),
    "lines in .json": (
        "a.json",
        f'{{"text": "{LOVE}"}}\n\n{{"text": "{WORST}"}}\n',
        {},
        [LOVE, WORST],
    ),
    "an array in .jsonl": ("a.jsonl", f'\n[{{"text": "{LOVE}"}}]\n', {}, [LOVE]),
    "records one after the other, by jq": (
        "a.json",
        '{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n',
        {},
        ["a", "b"],
    ),
    "an empty array": ("a.json", "[]\n", {}, []),
    "half a surrogate pair": (
        "a.jsonl",
        '{"text": "cut \\ud83d", "x\\udc00": 1}\n{"text": "\\ud83d\\ude00"}\n',
        {"errors": "replace"},
        ["cut \ufffd", "😀"],
    ),
    "JSON lines joined with their marks": (
        "a.jsonl",
        '\ufeff{"text": "a"}\n\ufeff{"text": "b"}\n',
        {},
        ["a", "b"],
    ),
    # Encodings
    "a byte-order mark": ("a.csv", "\ufeff" + lines_of(CHINESE), {}, CHINESE),
    "Excel's Unicode text": (
        "a.tsv",
        lines_of(CHINESE).replace(";", "\t").encode("utf-16"),
        {},
        CHINESE,
    ),
    "UTF-16 without a mark": (
        "a.csv",
        lines_of([LOVE, WORST]).encode("utf-16-le"),
        {},
        [LOVE, WORST],
    ),
    "big-endian UTF-16 without a mark": (
        "a.csv",
        lines_of([LOVE, WORST]).encode("utf-16-be"),
        {},
        [LOVE, WORST],
    ),
    "UTF-32": ("a.csv", lines_of(GERMAN).encode("utf-32"), {}, GERMAN),
    "UTF-16, one per line": (
        "a.txt",
        "\r\n".join([LOVE, WORST]).encode("utf-16"),
        {},
        [LOVE, WORST],
    ),
    "GBK": ("a.csv", lines_of(CHINESE).encode("gbk"), {}, CHINESE),
    "GBK, one per line": ("a.txt", "\n".join(CHINESE).encode("gbk"), {}, CHINESE),
    "ISO-2022-JP": ("a.csv", lines_of(JAPANESE).encode("iso2022_jp"), {}, JAPANESE),
    "Shift-JIS": ("a.csv", lines_of(JAPANESE).encode("cp932"), {}, JAPANESE),
    "EUC-KR": ("a.csv", lines_of(KOREAN).encode("euc_kr"), {}, KOREAN),
    "cp1252": (
        "a.csv",
        lines_of([*GERMAN, "it’s 5 € – café"]).encode("cp1252"),
        {},
        [*GERMAN, "it’s 5 € – café"],
    ),
    "cp1251": ("a.csv", lines_of(RUSSIAN).encode("cp1251"), {}, RUSSIAN),
    "cp1250": ("a.csv", lines_of(POLISH).encode("cp1250"), {}, POLISH),
    "cp1250, Hungarian": ("a.csv", lines_of(HUNGARIAN).encode("cp1250"), {}, HUNGARIAN),
    "ISO 8859-2": ("a.csv", lines_of(POLISH).encode("iso8859_2"), {}, POLISH),
    "cp1252, Icelandic": ("a.csv", lines_of(ICELANDIC).encode("cp1252"), {}, ICELANDIC),
    "cp1253": ("a.csv", lines_of(GREEK).encode("cp1253"), {}, GREEK),
    "cp1254": ("a.csv", lines_of(TURKISH).encode("cp1254"), {}, TURKISH),
    "cp1255": ("a.csv", lines_of(HEBREW).encode("cp1255"), {}, HEBREW),
    "cp1256": ("a.csv", lines_of(ARABIC).encode("cp1256"), {}, ARABIC),
    "an encoding, named": (
        "a.csv",
        lines_of(GERMAN).encode("mac_roman"),
        {"encoding": "mac_roman"},
        GERMAN,
    ),
    "UTF-8, whose first other letter comes late": (
        "a.csv",
        lines_of([*["plain"] * 5000, *CHINESE]).encode(),
        {},
        [*["plain"] * 5000, *CHINESE],
    ),
    "cp1252, whose first other letter comes late": (
        "a.csv",
        lines_of([*["plain"] * 5000, *GERMAN]).encode("cp1252"),
        {},
        [*["plain"] * 5000, *GERMAN],
    ),
    # Compressed
    "gzip": ("a.csv.gz", gzip.compress(lines_of([LOVE]).encode()), {}, [LOVE]),
    "gzip in parts": (
        "a.csv.gz",
        gzip.compress(b"text\na\n") + gzip.compress(b"b\n"),
        {},
        ["a", "b"],
    ),
    "zstd": ("a.jsonl.zst", zstandard.compress(b'{"text": "a"}\n'), {}, ["a"]),
    "bzip2": ("a.tsv.bz2", bz2.compress(b"id\ttext\n1\ta\n"), {}, ["a"]),
    "xz": ("a.txt.xz", lzma.compress(b"a\nb\n"), {}, ["a", "b"]),
    "gzip without a suffix": (
        "a.csv",
        gzip.compress(lines_of(GERMAN).encode("cp1252")),
        {},
        GERMAN,
    ),
    # Plain lines
    "one per line": (
        "a.txt",
        "I like it, really\nBad, bad\nid, please\n",
        {},
        ["I like it, really", "Bad, bad", "id, please"],
    ),
    "lines with brackets": (
        "a.txt",
        "[sigh] not again\n{no} way\n",
        {},
        ["[sigh] not again", "{no} way"],
    ),
    "lines with carriage returns": ("a.txt", "Good\rBad\rFine\r", {}, ["Good", "Bad", "Fine"]),
    "a table that is meant as lines": (
        "a.csv",
        "id,text\n1,x\n",
        {"input_format": "lines"},
        ["id,text", "1,x"],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_right_texts(shape: str, tmp_path: Path) -> None:
    name, data, options, texts = SHAPES[shape]
    content = data if isinstance(data, bytes) else data.encode()
    assert texts_of(table(tmp_path / name, content, **options)) == texts


PRINTED = "looks like a table printed for reading"
PSQL = f" id |       text        \n----+-------------------\n  1 | {LOVE} \n(1 row)\n"
MYSQL = f"+----+------+\n| id | text |\n+----+------+\n|  1 | {LOVE} |\n+----+------+\n"

ERRORS: dict[str, tuple[str, bytes | str, dict[str, Any], str, str]] = {
    "no header, two columns": (
        "a.csv",
        f"5,{LOVE}\n1,{WORST}\n",
        {},
        "looks like a record",
        "--no-header",
    ),
    "no header, by a text as a name": (
        "a.csv",
        f"5,{LOVE}\n1,{WORST}\n",
        {"column": LOVE},
        "looks like a record",
        "--no-header",
    ),
    "no header, labels come again": (
        "a.csv",
        "pos,Good\nneg,Bad\npos,Fine\n",
        {},
        "looks like a record",
        "--no-header",
    ),
    "no header, one column": (
        "a.csv",
        f"{LOVE}\n{WORST}\n",
        {},
        f"the only column is '{LOVE}'",
        "--no-header",
    ),
    "another name": (
        "a.csv",
        "id,Kommentare\n1,x\n",
        {"column": "Kommentar"},
        "no column 'Kommentar'",
        "'Kommentare'?",
    ),
    "names with spaces are seen": (
        "a.csv",
        "id, the words\n1,x\n",
        {"column": "b"},
        "'id', ' the words'",
        "--column",
    ),
    "two usual names": (
        "a.csv",
        "review,comment\na,b\n",
        {},
        "1 'review', 2 'comment'",
        "--column 1",
    ),
    "two names but for case": (
        "a.csv",
        "Words,WORDS\na,b\n",
        {"column": "words"},
        "1 'Words', 2 'WORDS'",
        "--column 1",
    ),
    "a number too high": ("a.csv", "id,text\n1,a\n", {"column": "3"}, "no column '3'", "--column"),
    "a row with another width": (
        "a.csv",
        "id,text\n1,a\n2,b,c\n",
        {},
        "line 3: expected 2 cells as in",
        "quoted",
    ),
    "two rows of names, by pandas": (
        "a.csv",
        f",review,review\n,text,stars\nid,,\n0,{LOVE},5\n1,{WORST},1\n",
        {"column": "2"},
        "the row below the header looks like more names",
        "--header if",
    ),
    "row numbers without a name, by R": (
        "a.csv",
        f'"text","note"\n"1","{LOVE}",""\n"2","{WORST}",""\n',
        {},
        "one cell more than the header",
        "a name for each column",
    ),
    "a rule below the header, by sqlcmd": (
        "a.csv",
        f"id,text\n--,----\n1,{LOVE}\n",
        {},
        PRINTED,
        "",
    ),
    "a rule below one name": ("a.csv", f" text \n------\n {LOVE}\n(1 row)\n", {}, PRINTED, ""),
    "printed by psql": ("a.txt", PSQL, {}, PRINTED, "--input-format lines"),
    "printed by psql, called CSV": ("a.csv", PSQL, {}, PRINTED, "psql --csv"),
    "printed by MySQL": ("a.txt", MYSQL, {}, PRINTED, "save it as CSV"),
    "a table in Markdown": ("a.md", "| id | text |\n|----|:--:|\n| 1 | x |\n", {}, PRINTED, ""),
    "columns of fixed width": (
        "a.txt",
        "ID   TEXT     STARS\n1    Good     5\n2    Bad one  1\n",
        {},
        PRINTED,
        "",
    ),
    "HTML that is called a workbook": ("a.xls", "<html>\n<table>\n", {}, "a web page", ""),
    "HTML that is called CSV": ("a.csv", "<table>\n<tr><td>id\n", {}, "looks like HTML", ""),
    "XML": ("a.xml", '<?xml version="1.0"?>\n<text>Good</text>\n', {}, "looks like XML", ""),
    "SQL": ("a.sql", "INSERT INTO r VALUES (1,'Good');\n", {}, "an SQL dump", ""),
    "ARFF": ("a.arff", "@relation r\n@attribute text string\n@data\n'x'\n", {}, "an ARFF file", ""),
    "YAML": ("a.yaml", "- id: 1\n  text: Good\n", {}, "looks like YAML", ""),
    "labels of fastText": ("a.txt", "__label__2 Good\n__label__1 Bad\n", {}, "fastText", ""),
    "dictionaries of Python": ("a.txt", "{'text': 'Good'}\n", {}, "dictionaries of Python", ""),
    "a table by R, with spaces": ("a.txt", '"id" "text"\n"1" 1 "Good"\n', {}, "have spaces", ""),
    "subtitles": ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nGood\n", {}, "subtitles", ""),
    "records called CSV": ("a.csv", '{"text": "a", "id": 1}\n', {}, "looks like JSON", "jsonl"),
    "a Feather file": ("a.csv", b"ARROW1\0\0\xff\xff\xff\xff", {}, "Feather file", ".parquet"),
    "a NumPy array": (
        "a.npy",
        b"\x93NUMPY\x01\0v\0" + "Good".encode("utf-32"),
        {},
        "NumPy",
        ".csv",
    ),
    "a PDF document": ("a.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", {}, "a PDF document", ""),
    "a quote that is never closed": (
        "a.csv",
        'id,text\n1,"never\n2,x\n',
        {},
        "not valid CSV",
        "doubled",
    ),
    "a delimiter of two characters": (
        "a.csv",
        "id,text\n",
        {"delimiter": "ab"},
        "--delimiter must be one",
        "';'",
    ),
    "an unknown encoding": (
        "a.csv",
        "id,text\n",
        {"encoding": "utf-9"},
        "'utf-9' is not the name",
        "cp1252",
    ),
    "the wrong encoding": (
        "a.csv",
        b"id,text\n1,\x81\n",
        {"encoding": "cp1252"},
        "0x81 is not cp1252",
        "--encoding",
    ),
    "damaged UTF-8": (
        "a.csv",
        "id,text\n1,大\n".encode()[:-2] + b"\n2,\xe5\xa4\xa7\n",
        {},
        "is not UTF-8",
        "--errors",
    ),
    **{
        f"{encoding} is not taken for another: {texts[0]}": (
            "a.csv",
            lines_of(texts).encode(encoding),
            {},
            "is not UTF-8",
            "--encoding",
        )
        for encoding, texts in [
            ("cp850", GERMAN),
            ("cp850", ["un café", "ok"]),
            ("mac_roman", ["it’s great – really", "“wow”…"]),
            ("iso8859_5", RUSSIAN),
            ("cp866", RUSSIAN),
            ("cp874", ["สินค้าดีมาก แนะนำ", "คุณภาพแย่มาก"]),
        ]
    },
    "a table in a .txt": (
        "a.txt",
        f"id\ttext\n1\t{LOVE}\n",
        {},
        "a table with the columns 'id', 'text'",
        "--input-format csv",
    ),
    "a table without a suffix": (
        "a",
        f"id,Review\n1,{LOVE}\n",
        {},
        "a table with the columns",
        "--input-format csv",
    ),
    "hftool's own text": (
        "a.txt",
        f"POSITIVE\t0.9\t{LOVE}\nNEGATIVE\t0.8\t{WORST}\n",
        {},
        "looks like a table",
        "lines",
    ),
    "records in a .txt": (
        "a.txt",
        f'{{"text": "{LOVE}"}}\n',
        {},
        "looks like JSON",
        "--input-format json",
    ),
    "an array in a .txt": (
        "a.txt",
        '[\n  {"text": "a"}\n]\n',
        {},
        "looks like JSON",
        "--input-format json",
    ),
    "UTF-16 in a .txt": (
        "a.txt",
        "id\ttext\r\n1\ta\r\n".encode("utf-16"),
        {},
        "looks like a table",
        "--input-format csv",
    ),
    "an array without an end": (
        "a.json",
        '[{"text": "a"},\n{"text": "b"}\n',
        {},
        "the array has no end",
        "",
    ),
    "text after an array": ("a.json", '[{"text": "a"}]\nx\n', {}, "text follows the end", ""),
    "an array of texts": (
        "a.json",
        '["a", "b"]',
        {},
        "record 1: the record is of type str, not a JSON object",
        "",
    ),
    "a record without the column": (
        "a.jsonl",
        '{"id": 1, "review": null}\n{"text": "b"}\n',
        {"column": "review"},
        "line 2: 'review' is missing",
        "",
    ),
    "one surrogate": (
        "a.jsonl",
        '{"text": "\\ud83d"}\n',
        {},
        "half a surrogate pair",
        "--errors replace",
    ),
    "half a gzip": (
        "a.csv.gz",
        gzip.compress(b"text\n" + bytes(range(32, 127)) * 99)[:-9],
        {},
        "cannot read",
        "",
    ),
    "an old workbook": (
        "a.xls",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600,
        {},
        "an old Excel workbook",
        ".xlsx",
    ),
    "a zip archive": ("a.zip", zipped("a.csv", b"text\na\n"), {}, "a zip archive", "unpack it"),
    "a workbook that is none": ("a.xlsx", b"PK\x03\x04 nothing", {}, "as an Excel workbook", ""),
    "lines and a column": (
        "a.txt",
        "a\n",
        {"input_format": "lines", "column": "b"},
        "--column needs a table",
        "--input-format",
    ),
}


@pytest.mark.parametrize("shape", ERRORS)
def test_an_error_that_leads_on(shape: str, tmp_path: Path) -> None:
    name, data, options, message, hint = ERRORS[shape]
    content = data if isinstance(data, bytes) else data.encode()
    with pytest.raises(HftoolError) as caught:
        texts_of(table(tmp_path / name, content, **options))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def workbook(path: Path, rows: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_a_workbook(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 1, 2, 3, 4, 5)
    records: list[list[Any]] = [
        [1, LOVE, 4.5, day, True],
        [2, "two\nlines", 4, None, False],
        [3, 10, None, day],
    ]
    path = workbook(
        tmp_path / "a.xlsx", [["Survey"], [], ["id", "text", "n", "at", "yes"], *records]
    )
    read = read_table(None, TableInputOptions(files=[path]))
    assert read.names == ("id", "text", "n", "at", "yes")
    rows = list(read)
    assert [row.text for row in rows] == [LOVE, "two\nlines", "10"]
    assert [[*row.columns.values()] for row in rows] == [*records[:2], [*records[2], None]]
    assert [type(value) for value in rows[1].columns.values()][2] is int
    assert (read.shape.types or ColumnTypes())["n"].arrow_type("n") == pyarrow.float64()
    with pytest.raises(HftoolError, match=r"'text' has texts \(a.xlsx: row 4\) and numbers"):
        read.shape.schema()
    headless = workbook(tmp_path / "b.xlsx", [[1, LOVE], [2, WORST]])
    with pytest.raises(HftoolError, match="looks like a record"):
        read_table(None, TableInputOptions(files=[headless]))
    options = TableInputOptions(files=[headless], header=False, column="2")
    assert [row.text for row in read_table(None, options)] == [LOVE, WORST]


def test_sheets_and_formulas_that_are_not_read(
    tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    hidden, empty = book.active, book.create_sheet("Empty")
    hidden.append(["text"])
    hidden.append(["an old one"])
    hidden.sheet_state = "hidden"
    data, more = book.create_sheet("Data"), book.create_sheet("More")
    for row in (["id", "text"], [1, "two_x000D_\nlines"], [2, '="a"&"b"'], [3, "#N/A"], [4, WORST]):
        data.append(row)
    more.append([LOVE])
    book.active = empty
    book.save(path)
    rows = list(read_table(None, TableInputOptions(files=[path])))
    assert [row.text for row in rows] == ["two\r\nlines", "", "", WORST]
    assert [row.error and row.error.message for row in rows[1:3]] == [
        None,
        "'text' has the error #N/A",
    ]
    assert texts_of(table(path, path.read_bytes(), null="#N/A"))[2:] == ["", WORST]
    said = notes.text
    assert "only the sheet 'Data' is read, not 'More'" in said
    assert "formulas without a value" in said
    book["Data"]["B3"] = "computed"
    book.remove(more)
    book.save(tmp_path / "b.xlsx")
    notes.clear()
    assert (
        texts_of(table(tmp_path / "b.xlsx", (tmp_path / "b.xlsx").read_bytes(), null="#N/A"))[1]
        == "computed"
    )
    assert not notes.text


def test_rows_of_names_in_a_workbook(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["Respondent ID", "Why?"], [None, "Response"], [1, LOVE], [2, WORST]]
    path = workbook(tmp_path / "a.xlsx", rows)
    assert texts_of(table(path, path.read_bytes(), column="Why?")) == [LOVE, WORST]
    damaged = io.BytesIO()
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(damaged, "w") as archive:
        for name in whole.namelist():
            data = whole.read(name)
            archive.writestr(name, data[: len(data) // 2] if "worksheets" in name else data)
    with pytest.raises(HftoolError, match="as an Excel workbook"):
        texts_of(table(tmp_path / "b.xlsx", damaged.getvalue()))


def test_several_files_and_folders(tmp_path: Path) -> None:
    spark = tmp_path / "reviews.csv"
    spark.mkdir()
    (spark / "part-00000.csv").write_text("id,text\n1,a\n")
    (spark / "part-00001.csv").write_text("text,id\nb,2\n")
    (spark / "_SUCCESS").write_text("")
    (spark / ".part-00000.csv.crc").write_text("x")
    more = tmp_path / "more.csv"
    more.write_text("id;text\n3;c\n")
    read = read_table(None, TableInputOptions(files=[spark, more]))
    assert [dict(row.columns) for row in read] == [
        *({"id": "1", "text": "a"}, {"id": "2", "text": "b"}, {"id": "3", "text": "c"})
    ]
    more.write_text("id;words\n3;c\n")
    with pytest.raises(HftoolError, match="its columns are id, words; those of the first"):
        read_table(None, TableInputOptions(files=[spark, more]))
    jsonl = tmp_path / "more.jsonl"
    jsonl.write_text("{}\n")
    with pytest.raises(UsageError, match="several formats: csv, jsonl"):
        read_table(None, TableInputOptions(files=[spark, jsonl]))
    (spark / "lang=en").mkdir()
    (spark / "lang=en" / "a.csv").write_text("id,text\n")
    with pytest.raises(HftoolError, match="partitioned by the column 'lang'"):
        read_table(None, TableInputOptions(files=[spark]))
    for number, text in ((1, "a\nb\n"), (2, "c")):
        (tmp_path / f"{number}.txt").write_text(text)
    texts = [tmp_path / "1.txt", tmp_path / "2.txt"]
    assert [row.text for row in read_table(None, TableInputOptions(files=texts))] == ["a", "b", "c"]


def test_folders_of_tables_with_versions(tmp_path: Path) -> None:
    for name in ("a.csv", "~$a.csv", ".b.csv", "_c.csv"):
        (tmp_path / name).write_text(f"text\n{name}\n")
    assert texts_of(read_table(None, TableInputOptions(files=[tmp_path]))) == ["a.csv"]
    for name, kind in (("_delta_log", "a Delta table"), (".hoodie", "a Hudi table")):
        (tmp_path / name).mkdir()
        with pytest.raises(HftoolError, match=kind):
            read_table(None, TableInputOptions(files=[tmp_path]))
        (tmp_path / name).rmdir()


def test_json_files_have_the_columns_of_all_records(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text('{"n": 1, "text": "a"}\n{"text": "b", "later": [1]}\n')
    second.write_text('{"text": "c", "n": 4.5, "later": [null, 2.5]}\n')
    read = read_table(None, TableInputOptions(files=[first, second]))
    assert read.names == ("n", "text", "later")
    assert [str(field.type) for field in read.shape.schema()] == [
        *("double", "string", "list<item: double>")
    ]


def test_a_name_of_a_file_is_not_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("real.txt").write_text("I love it\n")
    Path("reviews.parquet").mkdir()
    for name in ("real.txt", "reviews.parquet", str(tmp_path / "real.txt")):
        with pytest.raises(UsageError) as caught:
            read_table(["good", name], TableInputOptions())
        assert f"'{name}' is the name of a file" in caught.value.message
        assert f"-f '{name}'" in (caught.value.hint or "")
    texts = ["", "none.txt", "a\nb", "x" * 5000, "大" * 200, "a\0b", "."]
    assert [row.text for row in read_table(texts, TableInputOptions())] == texts
    assert not notes.text
    assert [row.text for row in read_table(["none.csv"], TableInputOptions())] == ["none.csv"]
    assert "there is no file of this name" in notes.text


def test_memory_stays_constant_in_an_array(tmp_path: Path) -> None:
    """Of an array only the part that is being read is in memory."""
    from hftool.inputs.json_records import CHUNK, json_values

    text = io.StringIO(
        "[" + ",\n".join('{"text": "' + "x" * 99 + '"}' for _ in range(20_000)) + "]"
    )
    most = 0

    def pieces() -> Any:
        nonlocal most
        for piece in text:
            yield piece
            most = max(most, text.tell())

    before = 0
    for number, _ in json_values(pieces(), "strict", "a"):
        assert text.tell() - number * 113 < 2 * CHUNK + 113
        before = number
    assert before == 20_000


def test_what_was_guessed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def notes(name: str, data: bytes, **options: Any) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO", "hftool"):
            list(table(tmp_path / name, data, **options))
        return [note.replace(f"{tmp_path}/", "") for note in caplog.messages]

    gbk = lines_of(CHINESE).encode("gbk")
    assert notes("a.csv", gbk) == [
        "a.csv is not UTF-8; it is read as gb18030 (or name its --encoding)"
    ]
    assert notes("a.csv", gbk, encoding="gbk") == []
    assert notes("a.json", b'[{"text": "caf\xe9"}]') == [
        "a.json is not UTF-8; it is read as cp1252 (or name its --encoding)"
    ]
    assert notes("a.csv", b"id,Review\n1,x\n") == ["the texts are in the column 'Review' of a.csv"]
    assert notes("a.csv", b"id,Review\n1,x\n", column="review") == []
    assert notes("a.csv", b"Export\nid,text\n1,x\n") == [
        "line 1 of a.csv is before the header: 'Export'"
    ]
    assert notes("a.csv", b"id,text\n1,x\nid,text\n") == [
        "line 3 of a.csv is the header again; -f can be repeated"
    ]
    assert notes("a.txt", b"Review\ngood\nbad\n") == [
        "line 1 of a.txt looks like the name of a column; --input-format csv reads it so"
    ]
    assert notes("a.txt", b"Review\n") == []
