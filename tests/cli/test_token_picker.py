"""`sample --pick`: the user picks each token, at a real terminal."""

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from hftool.cli.token_picker import picked_id
from hftool.errors import UsageError
from hftool.generation.candidates import StepCandidates
from hftool.generation.sampling import SamplingSettings
from hftool.generation.steps import StepSampler
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.options.model import LoadOptions
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tiny_models import load_model, save_model

PROMPT = r"\x1b\[\?2004h"  # prompt_toolkit turns bracketed paste on with each prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


def typed(folder: Path, answers: list[str], *arguments: str) -> tuple[int, str]:
    """Run at a terminal, and type each answer at its prompt; return the status and the output."""
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        ["-m", "hftool", "sample", "ab", "-m", str(folder), "--pick", "--seed", "3", *arguments],
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
    )
    child.logfile_read = shown = io.StringIO()
    for answer in answers:
        child.expect(PROMPT)
        child.send(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert "Traceback" not in shown.getvalue()
    return child.exitstatus or 0, shown.getvalue()


def records(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return found


def test_picks_draws_and_undoes(folder: Path, tmp_path: Path) -> None:
    out, trace = tmp_path / "out.json", tmp_path / "trace"
    answers = ["2\r", "\r", "u\r", "u\r", "3\r", "Z\r", '"u"\r', "\r"]
    written = ("-o", str(out), "--json", "--trace", str(trace), "--steps", "4")
    assert typed(folder, answers, *written)[0] == 0
    first, second, third, fourth = steps = records(out)
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert first["id"] == first["candidates"][2]["id"]
    assert (second["token"], third["token"]) == ("Z", "u")
    assert [step.get("picked") for step in steps] == [True, True, True, None]
    assert [step["drawn"] is None for step in steps] == [True, True, True, False]
    # The fourth step has the fourth number of the seed, however earlier tokens were chosen.
    drawn = run("sample", "ab", "-m", str(folder), "--seed", "3", "--steps", "4", "--json")
    assert fourth["drawn"] == json.loads(drawn.stdout)[3]["drawn"]
    again = run("sample", "-m", str(folder), "--replay", str(trace), "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (0, steps)


def test_what_is_no_token_asks_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    answers = ["u\r", "99\r", "大\r", "1\r", "q\r"]
    status, shown = typed(folder, answers, "-o", str(out), "--json", "--color", "never")
    assert status == 0
    assert "there is no step to undo" in shown
    assert 'the ranks are 1 to 5; put a text in quotes: "99"' in shown
    assert "“大” is 3 tokens here: “<0xE5>” “<0xA4>” “<0xA7>”" in shown
    assert shown.count("step 1  ab") == 1
    assert [step["rank"] for step in records(out)] == [1]


def test_the_text_and_its_steps_come_last(folder: Path) -> None:
    status, shown = typed(folder, ["Z\r", "q\r"], "--color", "never")
    assert status == 0
    assert re.search(r"   1 +\d+  Z .* picked\r\n\r\nabZ\r\n$", shown)


@pytest.mark.parametrize(("key", "status", "kept"), [("\x04", 0, 1), ("\x03", 130, None)])
def test_ctrl_d_ends_and_ctrl_c_breaks_off(
    key: str, status: int, kept: int | None, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    assert typed(folder, ["1\r", key], "-o", str(out), "--json")[0] == status
    assert (len(records(out)) if out.exists() else None) == kept


def test_picking_needs_a_terminal(folder: Path) -> None:
    done = run("sample", "ab", "-m", str(folder), "--pick")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "Error: --pick needs a terminal, but stdin is not one\n"


SETTINGS = SamplingSettings(greedy=False, seed=3, top_k=5)


def test_undo_leaves_no_trace_in_the_cache(model: LanguageModel) -> None:
    prompt = [5, 6, 7]
    wandering = StepSampler(model, prompt, SETTINGS, max_steps=6, k=3)
    for picked in (9, 10, None, 12):
        wandering.step(picked)
    for _ in range(3):
        wandering.undo()
    wandering.step(11)
    for step in wandering.run():
        before = wandering.ids[:-1]
        afresh = StepSampler(
            model, [*prompt, *before], SETTINGS, max_steps=1, k=3
        ).next_candidates()
        best = step.candidates[:3]  # the chosen one may follow
        assert [c.id for c in best] == [c.id for c in afresh.candidates]
        for ours, theirs in zip(best, afresh.candidates, strict=True):
            assert ours.prob == pytest.approx(theirs.prob, rel=1e-4)
    straight = StepSampler(model, prompt, SETTINGS, max_steps=6, k=3)
    drawn = [step.drawn for step in straight.run()]
    assert [step.drawn for step in wandering.steps] == [None, None, *drawn[2:]]


def test_undo_shows_the_same_choice_again_in_bfloat16(smollm2_folder: Path) -> None:
    options = LoadOptions(model=str(smollm2_folder), dtype="bfloat16", device="cpu", offline=True)
    sampler = StepSampler(
        load_language_model(options), [504, 6376, 314], SETTINGS, max_steps=6, k=9
    )
    seen = []
    for _ in range(4):
        seen.append(sampler.next_candidates())
        sampler.step()
    for before in reversed(seen):
        sampler.undo()
        assert sampler.next_candidates() == before


def test_a_picked_token_may_be_one_the_filters_removed(model: LanguageModel) -> None:
    sampler = StepSampler(model, [5, 6, 7], SETTINGS, max_steps=2, k=300)
    last = sampler.next_candidates().candidates[200]
    step = sampler.step(last.id)
    assert (step.rank, step.sampled_prob, step.sampled_cumulative) == (201, 0.0, None)
    assert last.removed_by == "top_k"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (" the", " the"),
        ('" the"', " the"),
        ('"u"', "u"),
        ('"q"', "q"),
        ('"3"', "3"),
        ('"', '"'),
        (r'"\n"', "\n"),
        ("<|im_end|>", "<|im_end|>"),
    ],
)
def test_texts_of_tokens(answer: str, text: str, tokenizer: Tokenizer) -> None:
    token_id = picked_id(answer, StepCandidates(1, 0.0, 0.0, 1, "", ()), tokenizer)
    assert token_id is not None
    assert tokenizer.token_text(token_id) == text


@pytest.mark.parametrize("answer", ["0", "1", "good morning", '""', "大家好", '" "x"'])
def test_what_names_no_token(answer: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError):
        picked_id(answer, StepCandidates(1, 0.0, 0.0, 1, "", ()), tokenizer)
