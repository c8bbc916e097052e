"""Declared options: what the core does with them without Typer, and what Typer makes of them."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import torch
from typer.testing import CliRunner

from hftool.options.model import ClassifierOptions, Dtype, LoadOptions
from hftool.options.shared import Argument, option
from tests.conftest import run
from tests.tiny_models import save_model

CORE = (
    *("options", "inputs", "tokenization", "prompting", "models", "nn"),
    *("generation", "chat", "classification", "output"),
)


def test_the_core_can_be_imported_without_typer() -> None:
    code = f"""if True:
        import importlib, pkgutil, sys
        for name in {CORE}:
            package = importlib.import_module("hftool." + name)
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                importlib.import_module(module.name)
        print(len([name for name in sys.modules if name.startswith("hftool.")]))
        print([name for name in sys.modules if name.partition(".")[0] == "typer"])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, typer_modules = done.stdout.splitlines()
    assert int(count) > 50
    assert typer_modules == "[]"


def test_every_setting_of_a_declaration_reaches_typer() -> None:
    import typer

    from hftool.cli.dataclass_options import expand_dataclasses

    Size = Annotated[
        int,
        option(
            *("--size", "-s"),
            **{"help": "The size.", "panel": "Sizes", "metavar": "N", "envvar": "THE_SIZE"},
            **{"min": 1, "max": 9, "show_default": "three", "common": True},
            autocompletion=lambda incomplete: ["7"],
        ),
    ]

    @expand_dataclasses
    def command(
        name: Annotated[str, Argument("NAME", "The name.", envvar="THE_NAME")] = "x",
        *,
        size: Size = 3,
        loud: Annotated[bool, option("--loud/--soft", help="How loud.")] = False,
    ) -> None:
        print(name, size, loud)

    app = typer.Typer()
    app.command()(command)
    built: Any = typer.main.get_command(app)
    name, size, loud = built.params[:3]
    assert (size.opts, size.help, size.rich_help_panel) == (["--size", "-s"], "The size.", "Sizes")
    assert (size.metavar, size.envvar, size.show_default) == ("N", "THE_SIZE", "three")
    assert (size.min, size.max) == (1, 9)
    assert (loud.opts, loud.secondary_opts) == (["--loud"], ["--soft"])
    assert (name.metavar, name.help, name.envvar) == ("NAME", "The name.", "THE_NAME")
    assert built.callback.common == {"size"}
    assert CliRunner().invoke(app, ["-s", "2", "--loud"]).stdout == "x 2 True\n"
    assert CliRunner(env={"THE_SIZE": "4", "THE_NAME": "y"}).invoke(app, []).stdout == "y 4 False\n"
    assert CliRunner().invoke(app, ["--size", "10"]).exit_code == 2


# Precisions

SHORT: dict[Dtype, Dtype] = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
}


def test_each_short_name_of_a_precision_is_the_long_one() -> None:
    for short, long in SHORT.items():
        for kind in (LoadOptions, ClassifierOptions):
            assert kind(dtype=short) == kind(dtype=long)
            assert isinstance(getattr(torch, kind(dtype=short).dtype), torch.dtype)
    assert LoadOptions().dtype == "auto"
    assert set(get_args(Dtype)) == {"auto", *SHORT, *SHORT.values()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model."""
    return str(save_model(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("short", SHORT)
def test_a_short_name_on_the_command_line_and_in_config_toml(
    short: Dtype, tiny: str, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(f'[topk]\ndtype = "{short}"\n')
    for arguments in (["topk"], ["sample", "--steps", "1", "--dtype", short]):
        done = run(*arguments, "ab", "-m", tiny, "-v")
        assert f"torch.{SHORT[short]} on " in done.stderr


def test_another_name_is_wrong_usage(tiny: str) -> None:
    done = run("topk", "ab", "-m", tiny, "--dtype", "fp8")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "'fp8'" in done.stderr and " fp16" in done.stderr
