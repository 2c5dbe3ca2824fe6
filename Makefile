# Everything a person or a machine does with this repository. `make help` lists it.
# Needs Python 3.11 or later with pip; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Extra arguments for pip, such as the CPU index of PyTorch (CONTRIBUTING.md).
PIP_ARGS ?=
# Test processes at a time; each of them computes with one thread.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format-check lint types imports tests acceptance acceptance-long format clean

help:  ## List the targets
	@echo "make TARGET, with PYTHON=$(PYTHON)"
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)$$/\1:\2/p' Makefile | while IFS=: read -r target text; do \
		printf '  %-14s %s\n' "$$target" "$$text"; done

setup: $(INSTALLED)  ## Create .venv with what requirements.lock pins, once

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("forecart needs Python 3.11 or later; name one: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --no-deps -e .
	@touch $@

demo: setup  ## Train, evaluate and report on Complete Journey; prints the path of the report last
	$(BIN)/forecart demo

test: check acceptance  ## Everything that must hold: check, then acceptance

check: format-check lint types imports tests  ## Format, lint, types, import rules, tests with coverage, docs

format-check: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports --no-cache --no-logo

tests: setup  ## Only the tests, docs among them, with coverage
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term

acceptance: setup  ## The acceptance rows: figure, threshold, pass
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m benchmarks.acceptance

acceptance-long: setup  ## The same with more kills and hours of load: most of a day
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m benchmarks.acceptance --long

format: setup  ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove .venv, caches and build outputs; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
