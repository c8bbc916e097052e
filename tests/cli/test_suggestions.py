"""A wrong command line gets a hint that is close in meaning, or none."""

import pytest
import typer.main

from hftool.cli import foreign_names
from hftool.cli.app import app
from tests.conftest import run

MISTAKES = r"""
$ hftool encode good morning
Error: unexpected argument 'morning'
Hint: put the text in quotes: hftool encode "good morning"; several texts: --lines
$ hftool topk 1+1= 2+2=
Error: unexpected argument '2+2='
Hint: put the text in quotes: hftool topk "1+1= 2+2="; several texts: --lines
$ hftool generate a b c
Error: unexpected argument 'b'
Hint: put the text in quotes: hftool generate "a b c"; several texts: --lines
$ hftool generate -n 3 it's $5
Error: unexpected argument '$5'
Hint: put the text in quotes: hftool generate 'it'"'"'s $5'; several texts: --lines
$ hftool encode smollm2 hi
Error: unexpected argument 'hi'
Hint: the model goes with -m: hftool encode -m smollm2 "hi"
$ hftool topk a/b c d
Error: unexpected argument 'c'
Hint: the model goes with -m: hftool topk -m a/b "c d"
$ hftool chat smollm2
Error: unexpected argument 'smollm2'
Hint: the model goes with -m: hftool chat -m smollm2
$ hftool chat hello
Error: unexpected argument 'hello'
Hint: chat reads from the terminal; for one answer: hftool generate --chat "hello"
$ hftool vocab-dump smollm2 x
Error: unexpected argument 'x'
Hint: see: hftool vocab-dump --help
$ hftool models show a b
Error: unexpected argument 'b'
Hint: see: hftool models show --help
$ hftool -m smollm2 encode hi
Error: no such option: -m
Hint: options come after the command: hftool COMMAND -m …
$ hftool --seed 3 generate hi
Error: no such option: --seed
Hint: options come after the command: hftool COMMAND --seed …
$ hftool --sead 3
Error: no such option: --sead
Hint: see: hftool --help-all
$ hftool topk x --topk 5
Error: no such option: --topk
Hint: for N rows: -k N (--top-k is a filter for sampling)
$ hftool topk x --top_k 5
Error: no such option: --top_k
Hint: for N rows: -k N; the filter for sampling is written --top-k
$ hftool generate x --top_k 5
Error: no such option: --top_k
Hint: did you mean '--top-k'?
$ hftool topk x -n 5
Error: no such option: -n
Hint: for N rows: -k N; for N tokens: hftool sample --steps N, hftool generate -n N
$ hftool topk x --max-new-tokens 3
Error: no such option: --max-new-tokens
Hint: topk shows one step; for more: hftool sample, hftool generate
$ hftool generate x --do-sample
Error: no such option: --do-sample
Hint: sampling is the default; --greedy turns it off
$ hftool encode x --temprature 1
Error: no such option: --temprature
Hint: --temperature is an option of topk, tree, sample, generate, chat
$ hftool decode 3 --greedy
Error: no such option: --greedy
Hint: --greedy is an option of sample, generate, chat
$ hftool generate x -k 3
Error: no such option: -k
Hint: use --top-k N (-k N in topk and sample shows N rows)
$ hftool generate x -t 0.5
Error: no such option: -t
Hint: did you mean '--temperature'?
$ hftool generate --prompt x
Error: no such option: --prompt
Hint: the text stands without an option: hftool generate "TEXT"
$ hftool vocab-dump -m smollm2
Error: no such option: -m
Hint: the model stands without an option: hftool vocab-dump MODEL
$ hftool encode “good morning”
Error: unexpected argument 'morning”'
Hint: put the text in quotes: hftool encode "good morning"; several texts: --lines
$ hftool encode –-json x
Error: unexpected argument 'x'
Hint: '–-json' begins with a dash, not with two hyphens (--)
$ hftool -V
Error: no such option: -V
Hint: did you mean '--version'?
$ hftool generate x --stream
Error: no such option: --stream
Hint: text is streamed anyway; --no-stream turns it off
$ hftool generate --stop-words a b
Error: no such option: --stop-words
Hint: did you mean '--stop'?
$ hftool ENCODE x
Error: no such command 'ENCODE'
Hint: did you mean 'encode'?
$ hftool generate x --max-length 9
Error: no such option: --max-length
Hint: did you mean '--max-new-tokens'?
$ hftool generate x --num_predict 9
Error: no such option: --num_predict
Hint: did you mean '--max-new-tokens'?
$ hftool generate x --typical 1
Error: no such option: --typical
Hint: did you mean '--typical-p'?
$ hftool generate x --temprature 1
Error: no such option: --temprature
Hint: did you mean '--temperature'?
$ hftool encode x --temp 1
Error: no such option: --temp
Hint: --temp is an option of topk, tree, sample, generate, chat
$ hftool generate x --xyz
Error: no such option: --xyz
Hint: see: hftool generate --help-all
$ hftool tokenize x
Error: no such command 'tokenize'
Hint: did you mean 'encode'?
$ hftool tokens
Error: no such command 'tokens'
Hint: did you mean 'encode'?
$ hftool run x
Error: no such command 'run'
Hint: did you mean 'generate'?
$ hftool classify x
Error: no such command 'classify'
Hint: did you mean 'sentiment'?
$ hftool serve
Error: no such command 'serve'
Hint: there is no HTTP server; hftool daemon start keeps models in memory for hftool itself
$ hftool gneerate x
Error: no such command 'gneerate'
Hint: did you mean 'generate'?
$ hftool smollm2
Error: no such command 'smollm2'
Hint: the model goes with -m, after the command: hftool COMMAND -m smollm2 …
$ hftool xyzzy
Error: no such command 'xyzzy'
Hint: see: hftool --help
$ hftool models serve
Error: no such command 'serve'
Hint: see: hftool models --help
$ hftool help gneerate
Error: no such command 'gneerate'
Hint: did you mean 'generate'?
$ hftool help models lits
Error: no such command 'lits'
Hint: did you mean 'list'?
$ hftool help chat x
Error: no such command 'x'
Hint: see: hftool --help
"""


@pytest.mark.parametrize("mistake", MISTAKES.strip().removeprefix("$ hftool ").split("\n$ hftool "))
def test_a_wrong_command_line_leads_on(mistake: str) -> None:
    line, *shown = mistake.splitlines()
    done = run(*line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == shown


def test_foreign_names_are_not_our_own() -> None:
    group = typer.main.get_command(app)
    assert not foreign_names.COMMANDS.keys() & group.commands.keys()  # type: ignore[attr-defined]
    for line in foreign_names.COMMANDS.values():
        name, *rest = line.split()
        command = group.commands[name]  # type: ignore[attr-defined]
        for word in rest:
            options = {option for parameter in command.params for option in parameter.opts}
            assert word in options or word in command.commands


def test_help_and_version_are_commands_too() -> None:
    assert run("help", "models", "pull").stdout == run("models", "pull", "--help").stdout
    assert run("help").stdout == run("--help").stdout
    assert run("version").stdout == run("--version").stdout
    assert "version" not in run("--help").stdout.partition("Commands:")[2]


def test_foreign_options_are_not_options_of_the_command() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        hinted = {option for owner, option in foreign_names.OPTION_HINTS if owner == name}
        assert not (hinted - {"--top-k"}) & options  # that one is written --top_k
