"""Benchmarks in a control group that may use one core, as in a container with a CPU quota."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hftool.models.load import load_language_model
from hftool.models.local_files import load_tokenizer
from hftool.models.references import GgufFile, resolve_reference
from hftool.nn.threads import CGROUPS
from hftool.options.model import LoadOptions, SourceOptions
from tests.benchmarks.generating import PROMPTS, alone, requests
from tests.benchmarks.pairs import Pair
from tests.benchmarks.peers import has_llama_cpp, llama_cpp_runs, requantized

PERIOD = 100_000  # microseconds, of which the group has as many: one core


def pairs(tokens: int) -> Iterator[Pair]:
    """Yield int4 with a quota of one core beside the same without one, beside as many threads as
    there are cores, and beside llama.cpp; nothing where no group can be made."""
    every = str(os.cpu_count() or 1)
    what = "generate, int4, a quota of one core"
    with tempfile.TemporaryDirectory() as folder, _group() as group:
        if group is None:
            print("no control group can be made here: no lines with a quota", file=sys.stderr)
            return
        with _process(group, tokens) as limited:
            with _process(None, tokens) as quiet:
                yield Pair(what, "the same, without", "tokens", limited, quiet)
            with _process(group, tokens, OMP_NUM_THREADS=every) as spinning:
                other = f"the same, OMP_NUM_THREADS={every}"
                yield Pair(what, other, "tokens", limited, spinning)
            if has_llama_cpp():
                source = resolve_reference("smollm2")
                assert isinstance(source, GgufFile)
                gguf = str(requantized(source.path, "Q4_0", Path(folder)))
                for threads in ("1", every):
                    with _process(group, tokens, gguf, threads) as theirs:
                        other = f"llama.cpp, Q4_0, threads: {threads}"
                        yield Pair(what, other, "tokens", limited, theirs)


@contextmanager
def _group() -> Iterator[Path | None]:
    """Make a control group, of version 1 or 2, that may use one core; needs root."""
    parent = CGROUPS / "cpu" if (CGROUPS / "cpu").is_dir() else CGROUPS
    group = parent / f"hftool-bench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        if parent == CGROUPS:
            (group / "cpu.max").write_text(f"{PERIOD} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(PERIOD))
        yield group
    except OSError:
        yield None
    finally:
        group.rmdir()


@contextmanager
def _process(
    group: Path | None, tokens: int, *arguments: str, **environment: str
) -> Iterator[Callable[[], int]]:
    """Start a process with a model, in a group, and give a function that lets it generate."""

    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.quota", str(tokens), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=join,
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def run() -> int:
            asked.write("\n")
            asked.flush()
            return int(answers.readline())

        run()  # waits for the model
        yield run
        asked.close()


def main(tokens: int, gguf: str | None = None, threads: str = "1") -> None:
    """Generate once for each line of stdin, by hftool or with a GGUF file by llama.cpp, and print
    the number of tokens."""
    if gguf is not None:
        tokenizer = load_tokenizer("smollm2", SourceOptions(offline=True))
        ids = tokenizer.encode(PROMPTS[0], special=True).ids
        run = partial(llama_cpp_runs(Path(gguf), int(threads)), ids, tokens)
    else:
        model = load_language_model(LoadOptions(device="cpu", offline=True, quantize="int4"))
        run = partial(alone, model, requests(model, 1, tokens))
    for _ in sys.stdin:
        print(run(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
