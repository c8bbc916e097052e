"""Precedence of options, environment, config file and built-in defaults; the user's aliases."""

import tomllib
from pathlib import Path

import pytest

from hftool import config
from hftool.errors import HftoolError
from tests.conftest import run, run_process
from tests.tokenization.test_tokenizer import byte_level, gemma_like


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The path of the config file, which does not exist yet."""
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
    """Return how many tokens `vocab-dump` lists."""
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


@pytest.mark.parametrize(
    ("command", "line", "error"),
    [
        (
            "encode",
            'max_tokens = "many"',
            "max_tokens must be a whole number of at least 0, not 'many'",
        ),
        ("encode", "max_tokens = 1.5", "max_tokens must be a whole number of at least 0, not 1.5"),
        ("encode", "max_tokens = [1]", "max_tokens must be a whole number of at least 0, not [1]"),
        (
            "generate",
            'temperature = "hot"',
            "temperature must be a number of at least 0, not 'hot'",
        ),
        ("generate", "top_p = 1.5", "top_p must be a number from 0 to 1, not 1.5"),
        (
            "generate",
            "length_penalty = [1]",
            "length_penalty must be a number from -100 to 100, not [1]",
        ),
        ("generate", 'greedy = "maybe"', "greedy must be true or false, not 'maybe'"),
        ("generate", 'dtype = "fp12"', "dtype must be one of "),
        ("generate", "dtype = true", "dtype must be one of "),
        ("generate", 'stop = "x"', "stop must be a list of strings, not 'x'"),
        ("generate", 'model = ["a"]', 'model must be a string, not ["a"]'),
        ("generate", "output = 5", "output must be a path, not 5"),
        ("models.list", 'format = "x"', "format must be one of "),
    ],
)
def test_a_bad_value_is_reported_by_its_key(
    config_file: Path, command: str, line: str, error: str
) -> None:
    config_file.write_text(f"[{command}]\n{line}\n")
    result = run(*command.split("."), *([] if command == "models.list" else ["a"]))
    assert (result.exit_code, result.stdout) == (1, "")
    first, hint = result.stderr.splitlines()
    assert first.startswith(f"Error: config file {config_file}: {command}.{error}")
    assert hint == f"Hint: see: hftool {command.replace('.', ' ')} --help"


def test_an_option_hides_a_bad_value_in_the_config(config_file: Path) -> None:
    config_file.write_text('[encode]\nformat = "x"\n')
    assert run("encode", "good morning", "--format", "text").stdout == "12018 5738\n"


def test_a_bad_value_in_the_environment_is_reported_by_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "maybe")
    result = run("encode", "a")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: HF_HUB_OFFLINE must be true or false, not 'maybe'\n")


@pytest.mark.parametrize(
    ("content", "error", "hint"),
    [
        ("[encoed]\n", "'encoed' is not a command", "did you mean 'encode'?"),
        (
            "[encode]\ncuont = true\n",
            "'cuont' is not an option of 'encode'",
            "did you mean 'count'?",
        ),
        ("[models]\nlist = 3\n", "'list' is not a table", None),
    ],
)
def test_unknown_names(config_file: Path, content: str, error: str, hint: str | None) -> None:
    config_file.write_text(content)
    result = run("encode", "a")
    assert (result.exit_code, result.stdout) == (1, "")
    lines = [f"Error: config file {config_file}: {error}", *([f"Hint: {hint}"] if hint else [])]
    assert result.stderr.splitlines() == lines


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


def test_a_folder_is_not_a_config_file(config_file: Path) -> None:
    config_file.mkdir()
    result = run_process("encode", "a")
    assert result.status == 1
    assert result.stderr.startswith(f"Error: cannot read the config file {config_file}: ")


def test_paths_of_config_and_cache(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_alias_names_a_model_and_can_be_removed(tmp_path: Path, config_file: Path) -> None:
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


def test_an_alias_may_refer_to_a_built_in_alias(config_file: Path) -> None:
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


def test_removing_an_alias_that_does_not_exist() -> None:
    result = run("models", "unalias", "tiny")
    assert (result.exit_code, result.stderr) == (1, "Error: you have no alias 'tiny'\n")
