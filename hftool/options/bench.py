"""Options of `bench`."""

import functools
from dataclasses import dataclass
from typing import Annotated

from hftool.options.shared import option

_bench = functools.partial(option, panel="Measuring", min=1, common=True)


@dataclass(frozen=True)
class BenchOptions:
    """What to measure."""

    prompt_tokens: Annotated[
        int,
        _bench("--prompt-tokens", metavar="N", help="Tokens of the prompt that the model reads."),
    ] = 512
    new_tokens: Annotated[
        int,
        _bench("--max-new-tokens", "-n", metavar="N", help="Tokens to generate for each text."),
    ] = 64
    batch_size: Annotated[
        int, _bench("--batch-size", metavar="N", help="Texts to generate side by side.")
    ] = 8
    repeats: Annotated[
        int, _bench("--repeats", metavar="N", help="Runs, after one to warm up.")
    ] = 3
