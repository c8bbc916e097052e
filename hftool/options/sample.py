"""Options of `sample`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hftool.options.output import ShowProbsOption
from hftool.options.shared import option


@dataclass(frozen=True)
class StepOptions:
    """The steps, who chooses their tokens, and the file that records them."""

    steps: Annotated[
        int | None,
        option(
            "--steps",
            metavar="N",
            min=1,
            show_default="20, or fewer by the model",
            help="Number of tokens to generate.",
        ),
    ] = None
    k: Annotated[
        int, option("-k", "--k", metavar="N", min=1, help="Number of candidates to show per step.")
    ] = 5
    pick: Annotated[bool, option("--pick", help="Choose each token yourself, on a terminal.")] = (
        False
    )
    trace: Annotated[
        Path | None, option("--trace", metavar="FILE", help="Record the run in FILE.")
    ] = None
    replay: Annotated[
        Path | None,
        option(
            "--replay",
            metavar="FILE",
            help="Replay a recorded run with its model and settings, and check its tokens.",
        ),
    ] = None
    show_probs: ShowProbsOption = False
