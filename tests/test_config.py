"""Options, environment, config file, built-in: in this order; and the user's aliases."""

import tomllib
from pathlib import Path

import pytest

from hftool import config
from hftool.errors import HftoolError
from tests.conftest import run, run_process
from tests.tokenization.test_tokenizer import byte_level, gemma_like


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The config file, which is not there yet."""
    return tmp_path / "config.toml"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three models with 500, 298 and 501 tokens."""
    return (
        byte_level(tmp_path / "one"),
        gemma_like(tmp_path / "two"),
        byte_level(tmp_path / "three", pad_token="<pad>"),
    )


def size(*arguments: str) -> int:
    """How many tokens `vocab-dump` finds."""
    config.load.cache_clear()
    return run("vocab-dump", *arguments).stdout.count("\n")


def test_no_config_file_means_no_settings() -> None:
    assert config.load() == config.Config()


def test_defaults_of_the_command_used(config_file: Path) -> None:
    config_file.write_text("[encode]\ncount = true\n[decode]\nskip_special = true\n")
    assert run("encode", "good morning").stdout == "2\n"
    assert run("decode", "12018 2 5738").stdout == "good morning\n"
    assert run("vocab-dump", "smollm2").stdout.startswith("0:")


def test_shared_options_have_defaults_by_command(config_file: Path) -> None:
    config_file.write_text('[encode]\nformat = "jsonl"\n')
    assert run("encode", "good morning").stdout.startswith("{")
    assert run("decode", "12018 5738").stdout == "good morning\n"


def test_defaults_of_a_command_of_two_words(config_file: Path) -> None:
    config_file.write_text('[models.list]\nformat = "csv"\n')
    assert run("models", "list").stdout.startswith("alias,model,")


def test_option_before_environment_before_config_before_built_in(
    config_file: Path, folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_config, in_environment, option = map(str, folders)
    assert size() == 49152
    config_file.write_text(f'[vocab-dump]\nref = "{in_config}"\n')
    assert size() == 500
    monkeypatch.setenv("HFTOOL_MODEL", in_environment)
    assert size() == 298
    assert size(option) == 501


def test_model_option_before_environment_before_config(
    config_file: Path, folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_config, in_environment, option = map(str, folders)
    config_file.write_text(f'[encode]\nmodel = "{in_config}"\n')

    def tokens(*arguments: str) -> str:
        return run("encode", "the", "--json", *arguments).stdout

    from_config = tokens()
    assert from_config == tokens("-m", in_config)
    monkeypatch.setenv("HFTOOL_MODEL", in_environment)
    assert tokens() == tokens("-m", in_environment) != from_config
    assert tokens("-m", option) == from_config  # its tokens are the same


def test_option_can_turn_off_what_the_config_turns_on(config_file: Path, tmp_path: Path) -> None:
    model = gemma_like(tmp_path / "gemma")
    config_file.write_text(f'[encode]\nspecial = true\nmodel = "{model}"\n')
    assert run("encode", "a").stdout.split()[0] == "2"
    assert "2" not in run("encode", "a", "--no-special").stdout.split()


def test_value_of_the_wrong_kind_is_wrong_usage(config_file: Path) -> None:
    config_file.write_text('[encode]\nmax_tokens = "many"\n')
    result = run("encode", "a")
    assert result.exit_code == 2
    assert "Invalid value for '--max-tokens'" in result.stderr


@pytest.mark.parametrize(
    "content",
    [
        b"[encode\n",
        b"\xff",
        b"model = 'smollm2'\n",
        b"aliases = 3\n",
        b"[aliases]\ntiny = 3\n",
        b"[encode]\n[encode]\n",
    ],
)
def test_broken_config_is_one_line(config_file: Path, content: bytes) -> None:
    config_file.write_bytes(content)
    result = run("encode", "a")
    assert (result.exit_code, result.stdout) == (1, "")
    error, *hints = result.stderr.splitlines()
    assert error.startswith("Error: ") and str(config_file) in error
    assert all(hint.startswith("Hint: ") for hint in hints)


def test_folder_is_no_config(config_file: Path) -> None:
    config_file.mkdir()
    result = run_process("encode", "a")
    assert result.status == 1
    assert result.stderr.startswith(f"Error: cannot read the config file {config_file}: ")


def test_config_and_cache_have_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFTOOL_CONFIG", "/somewhere/my.toml")
    monkeypatch.setenv("HFTOOL_CACHE", "/elsewhere")
    assert config.config_path() == Path("/somewhere/my.toml")
    assert config.cache_path() == Path("/elsewhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    for name in ("HFTOOL_CONFIG", "HFTOOL_CACHE"):
        monkeypatch.delenv(name)
    assert config.config_path().name == "config.toml"
    assert config.config_path().parent.name == config.cache_path().name == "hftool"


# Aliases


def test_alias_is_a_model_and_can_be_forgotten(tmp_path: Path, config_file: Path) -> None:
    folder = byte_level(tmp_path / "model")
    assert run("models", "alias", "tiny", str(folder)).exit_code == 0
    assert tomllib.loads(config_file.read_text()) == {"aliases": {"tiny": str(folder)}}
    assert size("tiny") == 500
    assert run("models", "unalias", "tiny").exit_code == 0
    result = run("vocab-dump", "tiny")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: unknown model 'tiny'\n")


def test_alias_hides_a_built_in_one(config_file: Path, tmp_path: Path) -> None:
    config_file.write_text(f'[aliases]\nsmollm2 = "{byte_level(tmp_path / "model")}"\n')
    assert size("smollm2") == size() == 500


def test_alias_of_an_alias_is_a_built_in_one(config_file: Path) -> None:
    config_file.write_text('[aliases]\nmine = "smollm2"\n')
    assert size("mine") == 49152


def test_writing_an_alias_leaves_the_rest_of_the_file(config_file: Path) -> None:
    before = '# mine\n[encode]\ncount = true  # short\n\n[aliases]\nb = "smollm2" # kept\n'
    config_file.write_text(before)
    config.set_alias("a", "owner/name@v1")
    assert config_file.read_text() == before + 'a = "owner/name@v1"\n'
    assert config.load().aliases == {"b": "smollm2", "a": "owner/name@v1"}
    config.set_alias("a", None)
    assert config_file.read_text() == before


def test_writing_an_alias_makes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFTOOL_CONFIG", str(tmp_path / "new" / "folder" / "c.toml"))
    config.set_alias("a", "smollm2")
    assert config.load().aliases == {"a": "smollm2"}


def test_broken_config_is_reported_and_not_overwritten(config_file: Path) -> None:
    config_file.write_text("[encode")
    with pytest.raises(HftoolError, match="cannot read the config file"):
        config.set_alias("a", "smollm2")
    assert config_file.read_text() == "[encode"


def test_forgetting_an_alias_that_is_none() -> None:
    result = run("models", "unalias", "tiny")
    assert (result.exit_code, result.stderr) == (1, "Error: you have no alias 'tiny'\n")
