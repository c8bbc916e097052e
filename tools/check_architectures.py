"""Hold hftool's answers against transformers' own, for every architecture that it can build tiny.

`python -m tools.check_architectures` writes docs/models.md. Model types as arguments restrict it to
those, and print the results instead. With `--results FILE` each result is kept there: a run that
was stopped goes on with what is missing.
"""

import argparse
import inspect
import json
import multiprocessing
import re
import resource
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from tools.tiny_architectures import (
    AUTO_CLASSES,
    EOS,
    MASK,
    Architecture,
    Task,
    architectures,
    save,
)

TABLE = Path(__file__).parent.parent / "docs" / "models.md"
TIMEOUT = 120  # seconds for an architecture
MEMORY = 12 << 30  # bytes of address space
PROMPTS = ("The quick brown fox jumps", "A", "Seven of the wizards, that were never there.")
LONG = ("It was the best of times, it was the worst of times; " * 12)[:600]
MASKED = ("Paris is the \0 of France.", "\0 is the \0 of France and lies on the Seine.")
NEW_TOKENS = 8
TOLERANCE = 1e-3  # of a probability
CORRELATION = 0.75  # of the logits with int8 weights with the exact ones
CHECKS = ("topk", "generate", "batch", "all positions", "int8")


class Reference:
    """A model as transformers alone loads it, computing all tokens anew for each new one."""

    def __init__(self, folder: Path, task: Task) -> None:
        import torch
        import transformers

        auto = getattr(transformers, AUTO_CLASSES[task][0])
        self.model = auto.from_pretrained(folder, dtype=torch.float32).eval()
        self.seq2seq = self.model.config.is_encoder_decoder and task in (
            "encoder-decoder",
            "image-text",
        )
        self._start = self.model.generation_config.decoder_start_token_id if self.seq2seq else None
        takes_cache = "use_cache" in inspect.signature(self.model.forward).parameters
        self._options: dict[str, Any] = {"use_cache": False} if takes_cache else {}

    def logits(self, ids: Sequence[int], generated: Sequence[int] = ()) -> Any:
        """Return the logits [tokens, vocabulary] after each token, of a decoder after each of its
        own."""
        import torch

        inputs = torch.tensor([[*ids, *([] if self.seq2seq else generated)]])
        options = dict(self._options)
        if self.seq2seq:
            options["decoder_input_ids"] = torch.tensor([[self._start, *generated]])
        with torch.no_grad():
            mask = torch.ones_like(inputs)
            options[self.model.main_input_name] = inputs
            output = self.model(attention_mask=mask, **options)
        logits = output.logits[0].float()
        if not logits.isfinite().all():
            raise ValueError("its logits are not finite")
        return logits

    def greedy(self, ids: Sequence[int]) -> list[int]:
        """Return the most probable continuation."""
        generated: list[int] = []
        while len(generated) < NEW_TOKENS and EOS not in generated:
            generated.append(int(self.logits(ids, generated)[-1].argmax()))
        return generated


@dataclass(frozen=True)
class Result:
    """What came of an architecture.

    `problem` says why there is nothing to compare. `failed` has what hftool did wrong in each
    check, nothing for a check that it passed.
    """

    architecture: Architecture
    problem: str | None = None
    failed: dict[str, str] = field(default_factory=dict)


def check(architecture: Architecture, folder: Path) -> Result:
    """Build an architecture in an empty folder, and compare hftool with transformers."""
    try:
        save(architecture, folder)
    except Exception as error:
        return Result(architecture, f"can't be built tiny: {_cause(error)}")
    try:
        reference = Reference(folder, architecture.task)
        prompt = "Paris is the \0 of \0." if architecture.task == "masked" else PROMPTS[0]
        reference.logits(_ids(prompt))
    except Exception as error:
        return Result(architecture, f"transformers gives no answer: {_cause(error)}")
    failed = {}
    checks = _masked_checks if architecture.task == "masked" else _checks
    for name, run in checks(folder, reference):
        try:
            wrong = run()
        except Exception as error:
            wrong = _cause(error)
        if wrong:
            failed[name] = wrong.replace(str(folder), "it")
    if len(failed) > 1 and len(set(failed.values())) == 1:
        failed = {", ".join(failed): next(iter(failed.values()))}
    return Result(architecture, None, failed)


def _ids(text: str) -> list[int]:
    return [MASK if byte == 0 else byte for byte in text.encode()]


def _cause(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text[:200] if name in ("HftoolError", "UsageError") else f"{name}: {text}"[:200]


def _load(folder: Path, quantize: Any = "none") -> Any:
    from hftool.models.load import load_language_model
    from hftool.options.model import LoadOptions

    options = LoadOptions(
        model=str(folder), dtype="float32", device="cpu", offline=True, quantize=quantize
    )
    return load_language_model(options, masked=True)


def _checks(folder: Path, reference: Reference) -> Iterator[tuple[str, Callable[[], str | None]]]:
    from hftool.generation.batch import generate_batch
    from hftool.generation.prefix_cache import CachedModel
    from hftool.generation.requests import requests_of_prompts
    from hftool.generation.sequential import generate_each
    from hftool.options.generation import GenerateOptions, GenerationOptions
    from hftool.options.inputs import PromptOptions
    from hftool.options.sampling import SamplingOptions

    options = GenerateOptions(
        PromptOptions(),
        SamplingOptions(greedy=True),
        GenerationOptions(max_new_tokens=NEW_TOKENS, logprobs=True),
    )
    loaded: list[Any] = []

    def model() -> Any:
        if not loaded:
            loaded.append(_load(folder))
        return loaded[0]

    def topk() -> str | None:
        for text in (*PROMPTS, LONG):
            logits = _next_logits(model(), text)
            if wrong := _difference(logits, reference.logits(_ids(text))[-1]):
                return f"{wrong} ({len(text)} tokens)"
        return None

    right = {text: reference.greedy(_ids(text)) for text in PROMPTS}

    def generate() -> str | None:
        requests: Any = requests_of_prompts(model(), PROMPTS, options)
        return _wrong_ids(generate_each(model(), requests))

    def batch() -> str | None:
        requests = requests_of_prompts(model(), PROMPTS, options)
        return _wrong_ids(generate_batch(model(), requests))

    def _wrong_ids(events: Any) -> str | None:
        records = [event for event in events if hasattr(event, "logprobs")]
        got = [[token.id for token in record.logprobs] for record in records]
        for text, ids in zip(PROMPTS, got, strict=True):
            if ids != right[text]:
                return f"{len(text)} tokens: {ids} instead of {right[text]}"
        return None

    def all_positions() -> str | None:
        if reference.seq2seq:
            return None
        import torch

        got = torch.cat(list(CachedModel(model()).all_logits(_ids(PROMPTS[2]))))
        return _difference(got, reference.logits(_ids(PROMPTS[2])))

    def int8() -> str | None:
        logits = _next_logits(_load(folder, "int8"), PROMPTS[2])
        return _uncorrelated(logits, reference.logits(_ids(PROMPTS[2]))[-1])

    yield from zip(CHECKS, (topk, generate, batch, all_positions, int8), strict=True)


def _next_logits(language_model: Any, text: str) -> Any:
    from hftool.generation.prefix_cache import CachedModel

    ids, source = language_model.split_prompt(_ids(text))
    return CachedModel(language_model.reading(source)).next_logits(ids)


def _masked_checks(
    folder: Path, reference: Reference
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    import torch

    from hftool.generation.mask_filling import mask_logits

    def expected(ids: list[int]) -> Any:
        rows = [i for i, token_id in enumerate(ids) if token_id == MASK]
        return reference.logits(ids)[rows]

    def got(ids: list[int], quantize: str) -> Any:
        language_model = _load(folder, quantize)
        return torch.stack([logits for _, logits in mask_logits(language_model, ids)])

    def topk() -> str | None:
        for text in MASKED:
            if wrong := _difference(got(_ids(text), "none"), expected(_ids(text))):
                return f"{wrong} ({len(text)} tokens)"
        return None

    def int8() -> str | None:
        ids = _ids(MASKED[0])
        return _uncorrelated(got(ids, "int8")[0], expected(ids)[0])

    yield from (("topk", topk), ("int8", int8))


def _difference(got: Any, expected: Any) -> str | None:
    """Return how far logits are from those expected, None if they give the same probabilities."""
    if got.shape != expected.shape:
        return f"logits {list(got.shape)} instead of {list(expected.shape)}"
    far = float((got.softmax(-1) - expected.softmax(-1)).abs().max())
    return f"probabilities differ by {far:.1g}" if not far < TOLERANCE else None


def _uncorrelated(got: Any, expected: Any) -> str | None:
    import torch

    value = float(torch.corrcoef(torch.stack([got, expected]))[0, 1])
    return None if value > CORRELATION else f"the logits correlate by {value:.2f}"


def _check_in_child(architecture: Architecture, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(TIMEOUT)
    with tempfile.TemporaryDirectory() as folder:
        results.put(check(architecture, Path(folder)))


def check_all(chosen: Sequence[Architecture]) -> Iterator[Result]:
    """Yield the result of each architecture, checked in a process of its own."""
    context = multiprocessing.get_context("fork")
    for architecture in chosen:
        results = context.SimpleQueue()
        process = context.Process(target=_check_in_child, args=(architecture, results))
        process.start()
        process.join()
        if results.empty():
            yield Result(architecture, None, {"all": f"the process ended with {process.exitcode}"})
        else:
            yield results.get()


def table(results: Sequence[Result]) -> str:
    """Return docs/models.md."""
    import torch
    import transformers

    lines = [
        "# Models",
        "",
        "<!-- Generated by `python -m tools.check_architectures`; not to be edited. -->",
        "",
        "Which architectures work, tried with tiny models of large random weights, by transformers"
        f" {transformers.__version__} and torch {torch.__version__.split('+')[0]} on a CPU in",
        "float32. For each, hftool's answers are held against those of transformers without a"
        " key-value cache: the",
        "probabilities of the next token after prompts of 1 to 600 tokens, greedy texts, a batch of"
        " unequal prompts, the",
        "probabilities at all positions, and roughly those with int8 weights; for masked models the"
        " probabilities at one",
        "and two masks.",
        "",
        "| kind | transformers answers | hftool agrees |",
        "|---|---|---|",
    ]
    for task in AUTO_CLASSES:
        answered = [r for r in results if r.architecture.task == task and not r.problem]
        works = sum(not r.failed for r in answered)
        lines.append(f"| {task} | {len(answered)} | {works} |")
    for task in AUTO_CLASSES:
        own = [r for r in results if r.architecture.task == task]
        right = [f"`{r.architecture.model_type}`" for r in own if not (r.problem or r.failed)]
        lines += ["", f"## {task}", "", "Works: " + ", ".join(right) + "."]
        others = [r for r in own if r.problem or r.failed]
        if others:
            lines += ["", "| model type | why not |", "|---|---|"]
        for r in others:
            why = r.problem or "; ".join(f"{name}: {what}" for name, what in r.failed.items())
            lines.append(f"| `{r.architecture.model_type}` | {_cell(why)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = re.sub(r"\S*/tmp\S*", "the model", text)
    return text.replace("|", "\\|").replace("<", "&lt;")[:240]


def _kept(file: Path | None) -> dict[Architecture, Result]:
    """Return the results in a file by architecture."""
    lines = file.read_text().splitlines() if file and file.exists() else []
    found = [json.loads(line) for line in lines]
    results = [Result(Architecture(**r.pop("architecture")), **r) for r in found]
    return {result.architecture: result for result in results}


def main() -> None:
    """Check what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_types", nargs="*")
    parser.add_argument("--task", action="append", choices=list(get_args(Task)))
    parser.add_argument("--results", type=Path, help="a file of JSON lines")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    import transformers

    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    chosen = [
        a
        for a in architectures(tuple(arguments.task or AUTO_CLASSES))
        if not arguments.model_types or a.model_type in arguments.model_types
    ]
    results = _kept(arguments.results)
    for result in check_all([a for a in chosen if a not in results]):
        a = result.architecture
        results[a] = result
        if arguments.results:
            with arguments.results.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
        print(a.task, a.model_type, result.problem or result.failed or "ok", sep="\t", flush=True)
    if not (arguments.model_types or arguments.task):
        TABLE.write_text(table([results[a] for a in chosen]))


if __name__ == "__main__":
    main()
