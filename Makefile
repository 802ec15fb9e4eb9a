# Thin targets: each prepares .venv and calls one command.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo ui test check clean

install: .venv/installed

# the lock file has every version and hash, so pip resolves nothing
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/beam-ray demo

ui: install
	$(BIN)/beam-ray ui

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

clean:
	rm -rf .venv .beam-ray
