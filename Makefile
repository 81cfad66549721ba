# Each of these, alone, on a fresh clone makes .venv, installs and does its job. A second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
KILLS ?= 20
MUTATIONS ?= 300

.PHONY: quickstart test slow drill fuzz check gpu arrows

quickstart: .venv/installed
	$(BIN)/fathom quickstart

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile

slow: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

drill: .venv/installed-dev
	$(BIN)/python -m pytest -m drill --kills $(KILLS)

fuzz: .venv/installed-dev
	$(BIN)/python -m pytest tests/system/test_fuzz.py --fuzz $(MUTATIONS)

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

gpu: .venv/installed-dev
	$(BIN)/fathom check --out check.json
	$(BIN)/python -m pytest tests/gpu -rs

arrows: .venv/installed-dev
	$(BIN)/python tests/system/arrows.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed
