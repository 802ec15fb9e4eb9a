# Thin targets: each prepares .venv and calls one command.

PYTHON ?= python3
BIN := .venv/bin

# without bytecode each of Ray's processes would compile all that it imports, at every start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo console ui test check docs bench soak machine fuzz audit coverage clean

install: .venv/installed

# the lock file has every version and hash, so pip resolves nothing
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/beam-ray demo

console: install
	$(BIN)/beam-ray console

ui: install
	$(BIN)/beam-ray ui

# in three processes on two cores, since tests wait as much as they compute; the tests of a file run in the same one, and long ones begin first
TEST_PROCESSES ?= 3

test: install
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# the API reference, from the docstrings; the pages fetch nothing
docs: install
	$(BIN)/python -m pdoc --output-directory build/docs --docformat google beam_ray beam_ray.errors

# all parts of the benchmark, or those that BENCH names; the tables come on standard output
bench: install
	$(BIN)/python -m benchmarks.speed $(BENCH)

# simulated error rates of docs/statistics.md: all parts, or those that COVERAGE names (intervals, regressions, sequential, classes, candidates)
coverage: install
	$(BIN)/python -m benchmarks.coverage $(COVERAGE)

# kills and fails at random, for SOAK_SECONDS (600) or until SOAK_KILLS; SOAK_SEED replays, SOAK_KINDS chooses
soak: install
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_KILLS=$(SOAK_KILLS) SOAK_SEED=$(SOAK_SEED) $(BIN)/python -m tests.faults.soak

# the state machine, MACHINE_EXAMPLES (2,000) examples; MACHINE_SEED replays
machine: install
	MACHINE_EXAMPLES=$(MACHINE_EXAMPLES) MACHINE_SEED=$(MACHINE_SEED) $(BIN)/python -m tests.machine

# FUZZ_SECONDS a target (600), FUZZ_SEED, FUZZ_TARGETS; atheris adds coverage where it has a wheel
fuzz: install
	-$(BIN)/python -m pip install --quiet --only-binary :all: "atheris>=3"
	$(BIN)/python -m tests.fuzz

audit: install
	-$(BIN)/python -m pip install --quiet "pip-audit>=2.7"
	$(BIN)/python -m tests.trust.audit

clean:
	rm -rf .venv .beam-ray
