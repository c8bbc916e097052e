"""The JSON Schema Test Suite, as the source of the package jsonschema has it: hftool refuses a
schema, or accepts nothing that the suite calls invalid."""

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hftool.errors import HftoolError
from hftool.generation.constraint_state import ConstraintState
from hftool.generation.constraints import checked
from hftool.options.constraints import Constraint
from tests.generation.test_constraint_state import byte_level, save

DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}  # else the newest is assumed


@pytest.fixture(scope="module")
def suite(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the suite's tests, downloaded once into the cache of the tests."""
    kept = shared_cache / "json-schema-suite"
    if not kept.is_dir():
        place = tmp_path_factory.mktemp("suite")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        try:
            subprocess.run([*pip, "jsonschema"], cwd=place, check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"pip: {error}")
        with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
            archive.extractall(place, filter="data")
        shutil.move(next(place.glob("*/json/tests")), kept)
    return kept


def cases(suite: Path) -> Iterator[tuple[str, Any, list[dict[str, Any]]]]:
    """Yield each schema with its description and its instances."""
    for draft in ("draft7", "draft2019-09", "draft2020-12"):
        files = [*(suite / draft).glob("*.json"), *(suite / draft).glob("optional/format/*.json")]
        for file in sorted(files):
            for case in json.loads(file.read_text()):
                schema = case["schema"]
                if draft == "draft7" and isinstance(schema, dict):
                    schema = {**DRAFT_7, **schema}
                yield f"{draft} {file.stem}: {case['description']}", schema, case["tests"]


@pytest.mark.slow
def test_nothing_invalid_is_accepted(suite: Path, tmp_path: Path) -> None:
    model = save(byte_level(), tmp_path)
    data = {i: model.tokenizer.token_bytes(i) or b"" for i in range(model.tokenizer.size)}
    ids = {token[0]: i for i, token in data.items() if len(token) == 1}
    kept, accepted = 0, {True: 0, False: 0}
    for description, schema, tests in cases(suite):
        try:
            state = ConstraintState(model, checked(Constraint("schema", json.dumps(schema))), [0])
        except HftoolError:
            continue
        kept += 1
        for test in tests:
            state.advance([])
            text = json.dumps(test["data"], ensure_ascii=False)
            state.advance([ids[byte] for byte in text.encode()])
            accepted[test["valid"]] += state.satisfied
            assert test["valid"] or not state.satisfied, (description, test["description"])
    assert kept > 400 and accepted[True] > 1000
