"""Whole processes: hftool beside the tutorial's scripts, and beside itself with the daemon."""

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from hftool.models.local_files import load_tokenizer
from hftool.options.model import SourceOptions
from tests.benchmarks.pairs import Pair
from tests.tiny_models import transformers_model, transformers_tokenizer

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
HFTOOL = (sys.executable, "-m", "hftool")
ALONE = {**os.environ, "HFTOOL_DAEMON": "off", "HF_HUB_OFFLINE": "1"}
IMPORTS = (sys.executable, "-c", "import typer, rich.console")
PROMPT = "The capital of France is"
VOCABULARY = 16_000  # of the tokenizer that is made to count with gigatoken
MEASURED = """
import re, sys
try:
    {code}
finally:
    with open("/proc/self/status") as file:
        print(re.search("VmHWM:[^0-9]+([0-9]+)", file.read())[1], file=sys.stderr)
"""
TURNS = "What is a token?\nSay that more simply.\nThank you. And what is a vocabulary?\n"


def _plain(folder: Path) -> str:
    """Return a folder with a model as transformers reads it: not in blocks of a GGUF file."""
    target = tempfile.mkdtemp()
    transformers_model(folder).save_pretrained(target)
    transformers_tokenizer(folder).save_pretrained(target)
    return target


def pairs() -> Iterator[Pair]:
    """Each step's command and script: cold, then with the model in the daemon's memory."""
    here = SourceOptions(offline=True)
    minilm = str(load_tokenizer("minilm-sst2", here).folder)
    smollm2 = _plain(load_tokenizer("smollm2", here).folder)
    yield _pair("--help", ("--help",), "import typer, rich.console", IMPORTS)
    steps: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("vocab-dump", ("vocab-dump", "smollm2"), ("vocabulary.py", smollm2)),
        ("encode", ("encode", "good morning"), ("encode.py", smollm2, "good morning")),
        ("topk", ("topk", PROMPT), ("next_token.py", smollm2, PROMPT)),
        ("generate -n 1", ("generate", PROMPT, "-n", "1"), ("generate.py", smollm2, PROMPT, "1")),
        ("sentiment", ("sentiment", "I love it"), ("sentiment.py", minilm, "I love it")),
    ]
    long_steps: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("sample --steps 200", ("sample", PROMPT, "--steps", "200", "--seed", "1"),
         ("sample.py", smollm2, PROMPT, "200")),
        ("chat, 3 turns", ("chat", "--greedy", "-n", "48"), ("chat.py", smollm2, "48")),
    ]  # fmt: skip
    for name, command, script in (*steps, *long_steps):
        yield _pair(f"{name}, cold", command, "the script", _script(*script))
    with tempfile.TemporaryDirectory() as folder:
        served = {**ALONE, "HFTOOL_DAEMON": f"{folder}/run/daemon"}
        _run((*HFTOOL, "daemon", "start", "-q"), served)
        for name, command, script in steps:
            _run((*HFTOOL, *command), served)  # loads the model
            yield _pair(f"{name}, served", command, "the script", _script(*script), served)
        _run((*HFTOOL, "daemon", "stop"), served)


def large(folder: str, weights: int) -> Pair:
    """Return the start of a model in 4 bits, whose weights take so many bytes, and its memory."""
    command = ("topk", PROMPT, "-m", folder, "--quantize", "int4")

    def remark() -> str:
        if sys.platform != "linux":
            return ""
        most = _peak("from hftool.cli.app import main; main()", *command)
        before = _peak("import torch")
        share = (most - before) / weights
        return f"{most >> 20} MB, torch {before >> 20}, the rest {share:.2f} of its weights"

    script = _script("next_token.py", folder, PROMPT)
    return replace(_pair("topk, a billion, int4", command, "the script", script), remark=remark)


def _peak(code: str, *arguments: str) -> int:
    """Run a program, and return the most memory that it took, in bytes."""
    line = (sys.executable, "-c", MEASURED.format(code=code), *arguments)
    done = subprocess.run(line, env=ALONE, text=True, check=True, capture_output=True)
    return int(done.stderr.splitlines()[-1]) << 10


def counting(megabytes: int) -> Iterator[Pair]:
    """Yield the counting of the tokens of each line of a file, by whole processes; if gigatoken is
    installed, also with a tokenizer that it reads."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.txt"
        lines = [line for path in sorted((ROOT / "docs").rglob("*.md")) for line in path.open()]
        draw = random.Random(1)
        with texts.open("w") as file:
            while file.tell() < megabytes << 20:
                file.writelines(draw.choices(lines, k=10_000))
        smollm2 = load_tokenizer("smollm2", SourceOptions(offline=True)).folder
        yield _counted(smollm2, texts, f"encode --lines --count, {megabytes} MB")
        if importlib.util.find_spec("gigatoken") is not None:
            tokenizer = _byte_level(lines, Path(folder))
            yield _counted(tokenizer, texts, f"encode --lines --count, {megabytes} MB, gigatoken")


def _counted(tokenizer: Path, texts: Path, what: str) -> Pair:
    command = (*HFTOOL, "encode", "--count", "--lines", "-m", str(tokenizer), "-f", str(texts))
    other = _script("count.py", str(tokenizer / "tokenizer.json"), str(texts))

    def megabytes_of(line: Sequence[str]) -> int:
        _run(line, ALONE)
        return texts.stat().st_size >> 20

    ours, theirs = partial(megabytes_of, command), partial(megabytes_of, other)
    return Pair(what, "the tokenizers library", "MB", ours, theirs)


def _byte_level(lines: Sequence[str], folder: Path) -> Path:
    """Return a folder with a tokenizer like GPT-2's, with a vocabulary made of some lines."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, initial_alphabet=alphabet
    )
    backend.train_from_iterator(lines, trainer)
    backend.save(str(folder / "tokenizer.json"))
    return folder


def _script(name: str, *arguments: str) -> Sequence[str]:
    return (sys.executable, str(SCRIPTS / name), *arguments)


def _pair(
    what: str,
    command: Sequence[str],
    other: str,
    line: Sequence[str],
    environment: Mapping[str, str] = ALONE,
) -> Pair:
    ours = partial(_run, (*HFTOOL, *command), environment)
    return Pair(what, other, "runs", ours, partial(_run, line, ALONE))


def _run(line: Sequence[str], environment: Mapping[str, str]) -> int:
    subprocess.run(line, input=TURNS, text=True, check=True, capture_output=True, env=environment)
    return 1
