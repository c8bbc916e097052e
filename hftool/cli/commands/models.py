"""`hftool models`"""

from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.help import HelpfulCommand, HelpfulGroup
from hftool.options.completion import known_models
from hftool.options.model import MODEL_HELP, SourceOptions
from hftool.options.output import OutputOptions

models = typer.Typer(
    cls=HelpfulGroup, help="List, inspect, fetch and name models.", invoke_without_command=True
)

RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help=MODEL_HELP, autocompletion=known_models)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of your own.")]


@models.callback()
def _models(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), color=ctx.color)


@models.command("list", cls=HelpfulCommand)
@expand_dataclasses
def list_models(*, output: OutputOptions) -> None:
    """List the aliases: what each means, whether it is on this machine, its size.

    Examples:
        hftool models list
        # For a script
        hftool models list --json
    """
    from hftool.models.info import aliases
    from hftool.output.views.models import ALIASES
    from hftool.output.writer import write

    write(aliases(), ALIASES, output)


@models.command("show", cls=HelpfulCommand)
@expand_dataclasses
def show_model(
    ref: RefArgument,
    *,
    source: SourceOptions,
    output: OutputOptions,
) -> None:
    """Show what is known of a model.

    Examples:
        hftool models show smollm2
        # Before a download: how large, whose licence
        hftool models show qwen
    """
    from hftool.models.info import show
    from hftool.output.views.models import MODEL
    from hftool.output.writer import write

    write([show(ref, source)], MODEL, output)


@models.command("pull", cls=HelpfulCommand)
@expand_dataclasses
def pull_model(
    ref: RefArgument,
    *,
    source: SourceOptions,
    output: OutputOptions,
) -> None:
    """Fetch a model and prepare it, so that it loads without the hub.

    Examples:
        hftool models pull qwen
        # A gated one, with the token of who accepted its licence
        hftool models pull gemma --token "$HF_TOKEN"
    """
    from hftool.models.info import pull
    from hftool.output.views.models import MODEL
    from hftool.output.writer import write

    write([pull(ref, source)], MODEL, output)


@models.command("alias", cls=HelpfulCommand)
def alias_model(name: NameArgument, ref: RefArgument) -> None:
    """Give a model a name of your own; it is kept in config.toml.

    Examples:
        hftool models alias tiny HuggingFaceTB/SmolLM2-360M-Instruct
        # A folder; the name holds from anywhere
        hftool models alias mine ./my-model
    """
    from hftool.models.info import set_alias

    set_alias(name, ref)


@models.command("unalias", cls=HelpfulCommand)
def unalias_model(name: NameArgument) -> None:
    """Forget a name given with `models alias`.

    Examples:
        hftool models unalias tiny
    """
    from hftool.models.info import remove_alias

    remove_alias(name)
