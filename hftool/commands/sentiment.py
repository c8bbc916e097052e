"""`hftool sentiment`"""

from typing import Annotated

import typer

from hftool.options import ClassifierOptions, FileOptions, ResumableOptions
from hftool.spread import spread

TextsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts; else the lines of --file, else of stdin."),
]


@spread
def sentiment(
    text: TextsArgument = None,
    *,
    load: ClassifierOptions,
    inputs: FileOptions,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, show_default="by their length", help="Texts at once."),
    ] = None,
    output: ResumableOptions,
) -> None:
    """Judge each text, or each line: LABEL, score, text.

    Example: hftool sentiment "I love programming!"
    """
    from hftool.classification import judge
    from hftool.inputs import each_text
    from hftool.models.load import load_classifier
    from hftool.output.formats import write
    from hftool.output.resume import remaining, resumable
    from hftool.output.views import JUDGEMENTS

    with resumable(output, JUDGEMENTS) as partial:
        texts = remaining(partial, each_text(text, inputs), lambda text: {"text": text})
        judgements = judge(load_classifier(load), texts, batch_size=batch_size)
        write(judgements, JUDGEMENTS, output, partial)
