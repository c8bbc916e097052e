"""Options of `sentiment`: labels, and where a job runs."""

import functools
from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.errors import UsageError
from hftool.options.shared import panel_option

LongTexts = Literal["truncate", "chunk"]
Engine = Literal["local", "ray"]
_labels = functools.partial(panel_option, panel="Labels")
_engine = functools.partial(panel_option, panel="Engine")


@dataclass(frozen=True)
class LabelOptions:
    """Which labels texts get, and how they are scored."""

    labels: Annotated[
        str | None,
        _labels("--labels", metavar="A,B,C", help="Labels of your own (of smollm2, or --model)."),
    ] = None
    prompt_template: Annotated[
        str | None,
        _labels(
            "--prompt-template",
            "--hypothesis-template",
            metavar="TEXT",
            help="For --labels: what a label follows ({text}, {labels}), or says ({label}).",
        ),
    ] = None
    long: Annotated[
        LongTexts, _labels("--long", help="What is too long is cut, or judged in windows.")
    ] = "truncate"
    batch_size: Annotated[
        int | None,
        _labels(
            "--batch-size",
            metavar="N",
            min=1,
            show_default="by their length",
            help="Texts at once.",
        ),
    ] = None


@dataclass(frozen=True)
class EngineOptions:
    """Whether a job runs here, or on Ray.

    Raises:
        UsageError: a cluster was named, and not Ray.
    """

    engine: Annotated[
        Engine,
        _engine("--engine", help="With ray, TEXT is files and folders, and -o names a folder."),
    ] = "local"
    ray_address: Annotated[
        str | None,
        _engine(
            "--ray-address",
            metavar="HOST:PORT",
            show_default="RAY_ADDRESS, else Ray is started here",
            help="The Ray cluster to join.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError("--ray-address goes with --engine ray")
