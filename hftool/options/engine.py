"""The engine that a job runs on."""

import functools
from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.errors import UsageError
from hftool.options.shared import option

Engine = Literal["local", "ray"]
_engine = functools.partial(option, panel="Engine")


@dataclass(frozen=True)
class EngineOptions:
    """The engine of a job: this process, or Ray.

    Raises:
        UsageError: a cluster is named without `--engine ray`.
    """

    engine: Annotated[
        Engine,
        _engine(
            "--engine",
            help="Where to run; with ray, the input is files and folders, and -o a folder.",
        ),
    ] = "local"
    ray_address: Annotated[
        str | None,
        _engine(
            "--ray-address",
            metavar="HOST:PORT",
            show_default="RAY_ADDRESS, else Ray starts here",
            help="The Ray cluster to join.",
        ),
    ] = None

    @property
    def on_ray(self) -> bool:
        """Whether the job runs on Ray."""
        return self.engine == "ray"

    def __post_init__(self) -> None:
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError("--ray-address goes with --engine ray")
