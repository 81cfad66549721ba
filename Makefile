# Each of these, alone, on a fresh clone makes .venv, installs and does its job. A second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check drill

KILLS ?= 20

quickstart: .venv/installed
	$(BIN)/fathom quickstart

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

drill: .venv/installed-dev
	$(BIN)/python -m pytest -m drill --kills $(KILLS)

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed
