# One command does all: `make demo`. Every target prints what it is for with `make help`.
PYTHON ?= python3.11
BIN := .venv/bin
SHELL := /bin/bash
# A test process uses one thread, so that they do not slow each other down. Tests wait for servers and browsers during a
# third of their time, so three processes keep two cores busy.
PYTEST_RUN := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder
# Python compiles each module once. Without this, every process would compile torch and transformers again.
unexport PYTHONDONTWRITEBYTECODE

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/.ready ## Create .venv with every dependency, pinned by constraints.txt

# uv installs in a quarter of pip's time, but reads none of pip's settings. So pip installs torch, whose build (for CPU or for
# CUDA) these may choose, and uv keeps it. Where uv fails, as behind a mirror of PyPI, pip installs everything.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
PACKAGE := --editable '.[all,dev]' --constraint constraints.txt
.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --no-deps uv torch --constraint constraints.txt
	$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python $(PACKAGE) || $(PIP) $(PACKAGE)
	touch $@

demo: setup ## The whole loop on synthetic clips, through the DAGs, offline; prints a summary and writes a report
	$(BIN)/masklets demo

check: setup ## Style and the fast tests (no model, no server): under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST_RUN) -m fast $(PYTEST)

test: setup ## Style, types, dead code, and every test. The types are checked beside the tests: they take minutes
	$(MAKE) --no-print-directory --jobs 2 lint every-test

every-test: setup node_modules/.package-lock.json
	$(PYTEST_RUN) $(PYTEST)

coverage: setup ## Every test, and which lines none of them runs (slower than `make test`)
	$(PYTEST_RUN) --cov --cov-report=term $(PYTEST)

lint: setup lint-page ## ruff, mypy, vulture (dead code); tsc and eslint for the page
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture

# The page needs node for its checks only. A machine without node skips them, except in CI.
lint-page: node_modules/.package-lock.json
	@if [ -e $< ] || [ -n "$$CI" ]; then npx tsc -p . && npx eslint annotation_queue/web; fi

node_modules/.package-lock.json: package-lock.json
	@if command -v npm >/dev/null || [ -n "$$CI" ]; then npm ci --silent --no-audit --no-fund && touch $@; \
	else echo "npm is missing: the page's types, style and accessibility are not checked"; fi

format: setup ## Rewrites the source in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Removes what the demo and the tests made; keeps .venv
	rm -rf masklets-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage node_modules

.PHONY: help setup demo check test every-test coverage lint lint-page format clean
.DEFAULT_GOAL := help
