"""Continue prompts, or the records of a batch, with a model here, at an endpoint or on Ray.

Torch is imported where a model is loaded here: an endpoint needs none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hftool.errors import UsageError, exclude
from hftool.generation.batch_file import BatchLine, FailureCounter
from hftool.generation.records import FailedRequest, Generation, Piece
from hftool.models.references import endpoint_address
from hftool.models.remote_inputs import RemoteInputs
from hftool.options.engine import EngineOptions
from hftool.options.generation import GenerateOptions
from hftool.options.inputs import FileOptions
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions
from hftool.output.formats import format_name
from hftool.output.run_log import Settings, run_settings
from hftool.output.views.generation import GENERATION, GENERATION_LINES
from hftool.output.writer import write
from hftool.prompting.prompt import Prompt


@dataclass(frozen=True)
class GenerateRun:
    """A run of `generate`: the model, how it continues prompts, and where the texts go."""

    load: LoadOptions
    options: GenerateOptions
    output: ResumableOptions
    batch_size: int | None
    concurrency: int

    @cached_property
    def address(self) -> str | None:
        """The endpoint's address; None for a model that is loaded."""
        return endpoint_address(self.load.model)

    def require_compatible(self, engine: EngineOptions) -> None:
        """Raise where options exclude each other.

        Raises:
            UsageError: with the options.
        """
        if self.address is None:
            from hftool.generation.strategies import require_compatible

            require_compatible(self.options.generation)
            return
        exclude({"a model behind an endpoint": True, "--show-probs": self.options.show_probs})
        exclude({"a model behind an endpoint": True, "--engine ray": engine.on_ray})
        if self.batch_size is not None:
            raise UsageError("--batch-size does not work with an endpoint", "use --concurrency N")

    def write_texts(self, prompts: Iterator[Prompt], *, stream: bool, lines: bool) -> None:
        """Write the continuation of each prompt.

        Args:
            stream: write it in pieces, as they come.
            lines: the prompts are the lines of an input.

        Raises:
            HftoolError: a prompt or the model fails.
        """
        failures = FailureCounter(named="line", hint=None)  # a warning has named each
        events = failures.count(self._events(prompts, stream=stream, lines=lines))
        write(events, GENERATION_LINES if lines else GENERATION, self.output)
        failures.require_none()

    def write_batch(self, lines: Iterator[bytes], files: FileOptions, remote: RemoteInputs) -> None:
        """Write a record for each record of a batch.

        Args:
            lines: those of the batch file.
            files: how the files that records name are read.
            remote: what the batch file was found with.

        Raises: as `run_batch`.
        """
        from hftool.endpoint.generate import generate_batch
        from hftool.endpoint.server import connect
        from hftool.output.batch_run import run_batch

        concurrency = self.concurrency
        endpoint = self.address and connect(self.address, self.load, concurrency)

        def compute(rest: Iterator[BatchLine]) -> Iterator[Generation | FailedRequest]:
            if endpoint:
                return generate_batch(endpoint, rest, files, self.options, concurrency)
            return self._batch(rest, files)

        name = endpoint.name if endpoint else self.load.model
        run_batch(lines, compute, name, self.output, lambda: self._settings(files, remote))

    def write_on_ray(
        self, batch: Sequence[Path], files: FileOptions, engine: EngineOptions
    ) -> None:
        """Write a record for each record of batch files, on Ray. Raises: as `generate_files`."""
        from hftool.jobs.generate import GenerateJob, generate_files

        size = self.batch_size
        job = GenerateJob(load=self.load, files=files, options=self.options, batch_size=size)
        generate_files(batch, job, engine, self.output)

    def _events(
        self, prompts: Iterator[Prompt], *, stream: bool, lines: bool
    ) -> Iterator[Piece | Generation | FailedRequest]:
        """Return the pieces and the records of texts."""
        if self.address is not None:
            return self._remote_events(self.address, prompts, stream=stream, lines=lines)
        from hftool.generation.requests import requests_of_prompts
        from hftool.generation.strategies import generate_prompts, load_candidate_generator
        from hftool.models.load import load_language_model

        generation = self.options.generation
        model = load_language_model(self.load)
        requests = requests_of_prompts(model, prompts, self.options, lines=lines)
        guesses = load_candidate_generator(model, self.load, generation)
        return generate_prompts(model, requests, generation, guesses, stream=stream, lines=lines)

    def _remote_events(
        self, address: str, prompts: Iterator[Prompt], *, stream: bool, lines: bool
    ) -> Iterator[Piece | Generation | FailedRequest]:
        from hftool.endpoint.generate import generate_prompts
        from hftool.endpoint.server import connect

        # Records need no pieces, and of a whole text a server counts the tokens.
        streamed = stream and format_name(self.output, GENERATION) in ("text", "table")
        return generate_prompts(
            *(connect(address, self.load, self.concurrency), prompts),
            *(self.options, self.concurrency),
            streamed=streamed,
            lines=lines,
        )

    def _batch(
        self, lines: Iterator[BatchLine], files: FileOptions
    ) -> Iterator[Generation | FailedRequest]:
        from hftool.generation.batch import generate_batch
        from hftool.generation.requests import requests_of_records
        from hftool.generation.strategies import load_candidate_generator
        from hftool.models.load import load_language_model

        model = load_language_model(self.load)
        requests = requests_of_records(model, lines, files, self.options)
        guesses = load_candidate_generator(model, self.load, self.options.generation)
        return generate_batch(model, requests, self.batch_size, guesses)

    def _settings(self, files: FileOptions, remote: RemoteInputs) -> Settings:
        """Return what shapes the records, for `--resume`."""
        from hftool.models.fingerprint import model_digest

        options, constraint = self.options, self.options.constraint
        shaping = (self.load, options.prompting, options.sampling, options.generation)
        named = {
            "model": self.address or self.load.model,
            "model_digest": "" if self.address else model_digest(self.load.model, self.load),
        }
        others = {} if constraint is None else {constraint.kind: constraint.text}
        made = run_settings(*shaping, **named, errors=files.errors, **others)
        return {**made, **remote.settings()}
