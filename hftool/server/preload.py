"""Import once what the forked processes would import one by one."""


def import_what_commands_need() -> None:
    """Import once, before forking, the modules that every command would import by itself."""
    from rich import console  # noqa: F401

    from hftool.chat import conversation, slash_commands  # noqa: F401
    from hftool.classification import scorers  # noqa: F401
    from hftool.generation import (  # noqa: F401
        batch,
        next_token,
        requests,
        steps,
        strategies,
        trace,
    )
    from hftool.inputs import tables  # noqa: F401
    from hftool.models import load  # noqa: F401
    from hftool.output import formats  # noqa: F401
    from hftool.output.tables import encode as encode_tables  # noqa: F401
    from hftool.output.tables import next_tokens as next_token_tables  # noqa: F401
    from hftool.output.views import encode as encode_views  # noqa: F401
    from hftool.output.views import next_tokens as next_token_views  # noqa: F401
    from hftool.tokenization import decode, encode, vocabulary  # noqa: F401
