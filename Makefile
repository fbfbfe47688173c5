# The project's few commands. Each one makes its own surroundings first; the second time that is
# a look at two files' dates.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# A process a core, each with one thread: numbers do not depend on how many there are.
TESTS  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile --durations 15

.DEFAULT_GOAL := help
.PHONY: help demo bench test check format clean

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(READY)  ## subjects from photos into one video, in two acts: runs/demo/report.html
	$(BIN)/customvideo demo --out runs/demo

bench: $(READY)  ## the benchmark on twelve pairs, hours; stop it and go on: runs/bench/tables
	$(BIN)/customvideo bench run --out runs/bench --pairs 12 --prompts 4
	$(BIN)/customvideo bench table runs/bench

test: $(READY)  ## run the tests
	$(TESTS)

check: $(READY)  ## formatting, lint, types and tests: what has to pass before a change is merged
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS)

format: $(READY)  ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove caches and builds, keep the environment and the runs
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov .coverage

# The stamp is written last, so an installation that was interrupted is taken up again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "customvideo needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time that takes some minutes."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
