"""`hftool models`"""

from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.help import HelpfulCommand, HelpfulGroup
from hftool.options.completion import known_models
from hftool.options.model import MODEL_HELP, SourceOptions
from hftool.options.output import OutputOptions
from hftool.options.shared import Argument, option

models = typer.Typer(
    cls=HelpfulGroup, help="List, inspect, download and name models.", invoke_without_command=True
)

RefArgument = Annotated[str, Argument("REF", MODEL_HELP, autocompletion=known_models)]
NameArgument = Annotated[str, Argument("NAME", "The alias.")]


@models.callback()
def _models(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), color=ctx.color)


@models.command("list", cls=HelpfulCommand)
@expand_dataclasses
def list_models(*, output: OutputOptions) -> None:
    """List the aliases, with their models and sizes.

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
    """Show a model's size, licence, context and files.

    Examples:
        hftool models show smollm2
        # Before a download: the size and the licence
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
    """Download a model, so that it loads offline.

    Examples:
        hftool models pull qwen
        # A gated model, with the token of an account that accepted its licence
        hftool models pull gemma --token "$HF_TOKEN"
    """
    from hftool.models.info import pull
    from hftool.output.views.models import MODEL
    from hftool.output.writer import write

    write([pull(ref, source)], MODEL, output)


@models.command("alias", cls=HelpfulCommand)
@expand_dataclasses
def alias_model(name: NameArgument, ref: RefArgument) -> None:
    """Give a model an alias, stored in config.toml.

    Examples:
        hftool models alias tiny HuggingFaceTB/SmolLM2-360M-Instruct
        # A folder; the alias works from every other folder too
        hftool models alias mine ./my-model
    """
    from hftool.models.info import set_alias

    set_alias(name, ref)


@models.command("unalias", cls=HelpfulCommand)
@expand_dataclasses
def unalias_model(name: NameArgument) -> None:
    """Remove an alias given with `models alias`.

    Examples:
        hftool models unalias tiny
    """
    from hftool.models.info import remove_alias

    remove_alias(name)


@models.command("prune", cls=HelpfulCommand)
@expand_dataclasses
def prune_models(
    *,
    dry_run: Annotated[
        bool, option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
    output: OutputOptions,
) -> None:
    """Remove the converted copies of models that were removed or changed.

    hftool converts a model that is slow to load once, and keeps the copy in its cache folder.
    Downloads from the hub stay; `hf cache` manages those.

    Examples:
        hftool models prune --dry-run
        hftool models prune
    """
    from hftool.models.prune import prune
    from hftool.output.views.models import PRUNED_COPIES
    from hftool.output.writer import write

    write(prune(dry_run=dry_run), PRUNED_COPIES, output)
