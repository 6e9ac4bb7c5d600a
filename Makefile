# make demo   run the complete analysis on synthetic tissue, results in demo/
# make test   run the tests and the examples in the docstrings
# make lint   check style, types and spelling
# make docs   build the documentation in docs/_build/html
# make bench  measure speed and memory against other programs, in under 15 minutes on two free cores
#
# PYTHON=python3.12   use this interpreter for the virtual environment
# TORCH=torch==2.13.0 install this version of torch instead of pip's choice

PYTHON ?= python3
TORCH ?= torch
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

.PHONY: demo test lint docs bench

demo: $(VENV)/.package
	$(BIN)/nextmarker demo -o demo

# One thread per worker, since the workers already use all cores; numba would otherwise raise the number for torch too.
# With worksteal, each gets tests that follow each other, so the fixtures of a file are made once.
test: $(VENV)/.package $(VENV)/.test
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/.package $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(VENV)/.package $(VENV)/.doc
	rm -rf docs/generated docs/_build/.jupyter_cache # pages of removed functions, and what tutorials printed before
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.package
	for name in startup patches embedding memory clustering; do $(BIN)/python -W ignore -m benchmarks.$$name || exit 1; done

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip

$(VENV)/.package: pyproject.toml | $(BIN)/python
	$(PIP) install "$(TORCH)"
	$(PIP) install --editable .
	touch $@

$(VENV)/.test $(VENV)/.dev $(VENV)/.doc: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(PIP) install --group $*
	touch $@
