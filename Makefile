# One virtual environment, exact versions, no step by hand.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo browser test test-api test-fuzz test-kills test-wheel test-lowest check bench docs clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/igvg demo

# Chromium, in which the tests open pages: from Debian's packages where this user may install them. Without it they skip.
browser:
	@command -v chromium > /dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq --no-install-recommends chromium > /dev/null; } \
	  || echo "no Chromium could be installed: tests of pages are skipped"

test: setup
	$(BIN)/pytest -n 2

# A thousand requests that schemathesis draws from the OpenAPI description of igvg serve.
test-api: setup
	$(BIN)/pytest -m slow tests/pipelines/serving/test_openapi.py

# Every command killed at 25 random moments of its work; KILLS=100 makes more.
test-kills: setup
	$(BIN)/pytest -m slow -s tests/test_kills.py tests/test_killed_trainings.py tests/test_killed_processes.py \
	  tests/shards/test_remote_kills.py

# 80,000 changed files of every reader, and bombs, pipes and devices for every command.
test-fuzz: setup
	$(BIN)/pytest -n 2 -m 'slow or not slow' tests/pipelines/test_mutated_readers.py tests/test_hostile_files.py

# The wheel, installed into a fresh environment and used outside of the repository.
test-wheel: setup
	$(BIN)/pytest -m slow tests/test_wheel.py

# The lowest versions that pyproject.toml allows, in an environment of their own. On Linux older releases of torch bring
# gigabytes of CUDA libraries: torch is that of constraints.txt, unless LOWEST_TORCH=2.6 is given.
LOWEST_TORCH ?= 2.13.0
LOWEST := .venv-lowest

test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) -m tests.support.lowest_versions torch==$(LOWEST_TORCH) > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check torch==$(LOWEST_TORCH)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	$(LOWEST)/bin/pytest -n 2 $(TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

bench: setup
	$(BIN)/python -m tests.benchmarks

# The documentation site: open site/index.html. Pages that come from the code are written first.
docs: setup
	$(BIN)/python -m tests.documentation
	$(BIN)/zensical build --strict --clean

clean:
	rm -rf .venv .venv-* build dist site .cache *.egg-info
