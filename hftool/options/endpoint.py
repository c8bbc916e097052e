"""Options for a model behind an endpoint."""

import functools
from dataclasses import dataclass, field
from typing import Annotated

from hftool.options.shared import option

KEY_VARIABLES = ("HFTOOL_API_KEY", "OPENAI_API_KEY")
"""The environment variables with the key, where no option has it."""
DEFAULT_TIMEOUT = 600.0

_endpoint = functools.partial(option, panel="Endpoint")

ConcurrencyOption = Annotated[
    int,
    _endpoint(
        "--concurrency", metavar="N", min=1, max=1024, help="Number of requests at the same time."
    ),
]
DEFAULT_CONCURRENCY = 8


@dataclass(frozen=True)
class EndpointOptions:
    """How to ask an endpoint."""

    api_key: Annotated[
        str | None,
        _endpoint(
            "--api-key",
            metavar="KEY",
            help="Key for the endpoint.",
            show_default=f"{KEY_VARIABLES[0]}, else {KEY_VARIABLES[1]}",
        ),
    ] = field(default=None, repr=False)
    timeout: Annotated[
        float,
        _endpoint(
            "--timeout",
            metavar="SECONDS",
            min=0.001,
            help="How long the server may send nothing.",
        ),
    ] = DEFAULT_TIMEOUT
