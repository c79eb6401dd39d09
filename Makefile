# One command does all: `make demo`. Every target prints what it is for with `make help`.
PYTHON ?= python3.11
BIN := .venv/bin
SHELL := /bin/bash
unexport PYTHONDONTWRITEBYTECODE  # where it is set, every command would compile torch and transformers anew

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/.ready ## Create .venv with every dependency, pinned by constraints.txt

.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: setup ## The whole loop on synthetic clips, through the DAGs, offline; prints a summary and writes a report
	$(BIN)/masklets demo

test: setup lint ## Lint, types, then every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Rewrites the source as ruff likes it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Removes what the demo and the tests made; keeps .venv
	rm -rf masklets-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo test lint format clean
.DEFAULT_GOAL := help
