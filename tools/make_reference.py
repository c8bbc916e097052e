"""Makes the reference and the man pages from the command tree: `make reference`."""

from collections.abc import Iterator
from pathlib import Path

from hftool.cli.app import app
from hftool.cli.help import Page, Parameter, page_of_application

DOCS = Path(__file__).parent.parent / "docs"
DO_NOT_EDIT = "made by `make reference` from the command tree"


def generated() -> dict[Path, str]:
    """Return the path and the text of each generated file."""
    pages = list(_all_pages(page_of_application(app)))
    files = {}
    for page in pages:
        name = page.path.replace(" ", "-")
        files[DOCS / "reference" / f"{name}.md"] = "\n".join(_markdown(page)) + "\n"
        files[DOCS / "man" / f"{name}.1"] = "\n".join(_manual(page, pages)) + "\n"
    return files


def _all_pages(page: Page) -> Iterator[Page]:
    yield page
    for command in page.commands:
        yield from _all_pages(command)


def _markdown(page: Page) -> Iterator[str]:
    yield from (f"<!-- {DO_NOT_EDIT} -->", f"# {page.path}", "", page.text, "")
    yield from ("```text", page.usage, "```", "")
    if page.examples:
        yield from ("## Examples", "", "<!-- not run here: tests/cli/test_help.py runs them -->")
        yield from ("```sh", *page.examples, "```", "")
    if page.commands:
        yield from ("## Commands", "")
        for command in page.commands:
            yield f"- [`{command.path}`]({command.path.replace(' ', '-')}.md): {command.summary}"
        yield ""
    for panel, parameters in page.panels:
        yield from (f"## {panel}", "", *map(_bullet, parameters), "")


def _bullet(parameter: Parameter) -> str:
    named = (("Default", parameter.default), ("Environment", parameter.environment))
    notes = "".join(f" {name}: `{value}`." for name, value in named if value)
    notes += f" Range: {parameter.allowed}." if parameter.allowed else ""
    return f"- **`{parameter.title}`** {parameter.help}{notes}"


def _manual(page: Page, pages: list[Page]) -> Iterator[str]:
    name = page.path.replace(" ", "-")
    yield f'.\\" {DO_NOT_EDIT}'
    yield f'.TH {name.upper()} 1 "" hftool "User Commands"'
    yield from (".SH NAME", f"{_roff(name)} \\- {_roff(page.summary)}")
    yield from (".SH SYNOPSIS", _roff(page.usage), ".SH DESCRIPTION")
    paragraphs = [_roff(" ".join(paragraph.split())) for paragraph in page.text.split("\n\n")]
    yield "\n.PP\n".join(paragraphs)
    if page.commands:
        yield ".SH COMMANDS"
        for command in page.commands:
            yield from (".TP", f".B {_roff(command.path)}", _roff(command.summary))
    for panel, parameters in page.panels:
        yield f'.SH "{panel.upper()}"'
        for parameter in parameters:
            yield from (".TP", f".B {_roff(parameter.title)}")
            yield _roff(f"{parameter.help} {parameter.notes}".rstrip())
    if page.examples:
        yield from (".SH EXAMPLES", ".nf", *map(_roff, page.examples), ".fi")
    others = sorted(p.path.replace(" ", "-") for p in pages if p is not page)
    yield from (".SH SEE ALSO", ", ".join(f"{_roff(other)}(1)" for other in others))


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Write the files, and remove those of commands that no longer exist."""
    files = generated()
    for folder in {path.parent for path in files}:
        folder.mkdir(exist_ok=True)
        for old in set(folder.iterdir()) - set(files):
            old.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
