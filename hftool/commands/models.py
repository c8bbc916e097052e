"""`hftool models`"""

from typing import Annotated

import typer

from hftool.options import MODEL_HELP, OutputOptions, SourceOptions
from hftool.spread import spread

models = typer.Typer(help="List, inspect, fetch and name models.", no_args_is_help=True)

RefArgument = Annotated[str, typer.Argument(metavar="REF", help=MODEL_HELP)]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of your own.")]


@models.command("list")
@spread
def list_models(*, output: OutputOptions) -> None:
    """List the aliases: what each means, whether it is on this machine, its size.

    Example: hftool models list
    """
    from hftool.models.inventory import aliases
    from hftool.output.formats import write
    from hftool.output.views import ALIASES

    write(aliases(), ALIASES, output)


@models.command("show")
@spread
def show_model(
    ref: RefArgument,
    *,
    source: SourceOptions,
    output: OutputOptions,
) -> None:
    """Show what is known of a model.

    Example: hftool models show smollm2
    """
    from hftool.models.inventory import show
    from hftool.output.formats import write
    from hftool.output.views import MODEL

    write([show(ref, source)], MODEL, output)


@models.command("pull")
@spread
def pull_model(
    ref: RefArgument,
    *,
    source: SourceOptions,
    output: OutputOptions,
) -> None:
    """Fetch a model and prepare it, so that it loads without the hub.

    Example: hftool models pull qwen
    """
    from hftool.models.inventory import pull
    from hftool.output.formats import write
    from hftool.output.views import MODEL

    write([pull(ref, source)], MODEL, output)


@models.command("alias")
def alias_model(name: NameArgument, ref: RefArgument) -> None:
    """Give a model a name of your own; it is kept in config.toml.

    Example: hftool models alias tiny HuggingFaceTB/SmolLM2-360M-Instruct
    """
    from hftool.models.inventory import set_alias

    set_alias(name, ref)


@models.command("unalias")
def unalias_model(name: NameArgument) -> None:
    """Forget a name given with `models alias`.

    Example: hftool models unalias tiny
    """
    from hftool.models.inventory import remove_alias

    remove_alias(name)
