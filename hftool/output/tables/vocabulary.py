"""Tables of vocabularies."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import barred, new_table, rendered, shown

if TYPE_CHECKING:
    from hftool.tokenization.vocabulary import VocabularyStats


def statistics(records: Iterable["VocabularyStats"], console: Console) -> Iterator[str]:
    """Render sizes and counts, with a bar for the share of each kind and script; then the longest
    and the special tokens."""
    for stats in records:
        sizes = {"own tokens": stats.vocab_size, "with added ones": stats.size}
        if stats.embedding_rows is not None:
            sizes["embedding rows"] = stats.embedding_rows
        groups = {"size": sizes, "kind": stats.kinds, "script": stats.scripts}
        rows, shares = [], []
        for group, counts in groups.items():
            for i, (name, count) in enumerate(counts.items()):
                head = Text("" if i else group, "dim")
                rows.append((head, Text(name), Text(f"{count:,}", justify="right")))
                shares.append(0.0 if group == "size" else count / sum(counts.values()))
        texts = [("" if i else "longest", shown(text)) for i, text in enumerate(stats.longest)]
        texts += [(role, shown(token)) for role, token in stats.special_tokens.items()]
        table = new_table(show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in texts:
            table.add_row(name, Text(text))
        counts_table = barred(console, ("", "", "tokens"), rows, shares, "green")
        yield rendered(console, counts_table, Text(), table)
