"""Options of `topk`."""

from dataclasses import dataclass
from typing import Annotated

from hftool.errors import exclude
from hftool.options.output import PictureOptions
from hftool.options.shared import option


@dataclass(frozen=True)
class NextTokenOptions:
    """What to show about the next token.

    Raises:
        UsageError: two options that exclude each other.
    """

    k: Annotated[int, option("-k", "--k", metavar="N", min=1, help="Number of tokens to show.")] = (
        10
    )
    target: Annotated[
        list[str] | None,
        option(
            "--target", metavar="TEXT", help="Also show this token or continuation (repeatable)."
        ),
    ] = None
    position: Annotated[
        str | None,
        option(
            "--position",
            metavar="N|all",
            show_default="after the last token",
            help="Predict after token N, or after each token of the text.",
        ),
    ] = None
    layers: Annotated[
        bool,
        option("--layers", help="Show what each layer of the model would predict."),
    ] = False
    attention: Annotated[
        bool,
        option("--attention", help="Show which tokens the model's heads look at (with --save)."),
    ] = False
    compare: Annotated[
        str | None, option("--compare", metavar="REF2,REF3", help="Also query these models.")
    ] = None

    def __post_init__(self) -> None:
        inside = {"--layers": self.layers, "--attention": self.attention}
        for name, given in inside.items():
            exclude({name: given, "--position all": self.everywhere})
        exclude({"--attention": self.attention, "--layers": self.layers})
        exclude({"--attention": self.attention, "--target": bool(self.target)})
        exclude({"--attention": self.attention, "--compare": self.compare is not None})

    @property
    def everywhere(self) -> bool:
        """Whether to predict after each token of the text."""
        return self.position == "all"

    def wants_page(self, output: PictureOptions) -> bool:
        """Return whether the output is a page with sliders for the filters."""
        is_page = output.save is not None and output.save.suffix == ".html"
        return is_page and not self.everywhere
