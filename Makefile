# Everything runs from .venv, which each of these builds first if need be. Python 3.11 and make are all it takes.
#
#   make demo     collect, clone, improve, evaluate, and a report of it        make check    format, lint, types, quick tests
#   make test     all tests                                                   make learn    the learning results; hours
#   make bench    side by side with peers                                     make venv     the environment, nothing else
#
# torch is the CPU build where there is no NVIDIA GPU. To choose yourself: make venv TORCH=torch==2.12.1 TORCH_INDEX=URL
# Tests run two side by side; on a larger machine: make test JOBS=8. What has not begun after MINUTES is skipped, and told.

ifndef PYTHON
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13 python; do $$p $(NEW_ENOUGH) && echo $$p && break; done)
endif
BIN := .venv/bin
JOBS ?= 2
MINUTES ?= 40
LEARNING := $(patsubst %,bench/%.py,learn carracing_policy judges offline dreaming ladder)
LONG := dreamer_speed vlm_stages driving golden lerobot_check vlm_gpu
BENCHES := $(filter-out $(LEARNING) $(LONG:%=bench/%.py) bench/parts.py bench/carracing_words.py,$(wildcard bench/*.py))

.PHONY: venv demo test check learn bench
venv: .venv/.ready

.venv/.ready: pyproject.toml scripts/install.sh
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found; name one: make venv PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/install.sh $(BIN)/python dev
	touch $@

.venv/.ready-bench: .venv/.ready
	TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/install.sh $(BIN)/python dev,bench
	touch $@

demo: venv
	$(BIN)/drivetrain demo

# Small networks are slower on many threads, and tests that compare bits want one.
test check: export OMP_NUM_THREADS = 1

test: venv
	$(BIN)/pytest -n $(JOBS) --minutes $(MINUTES)

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/pytest -n $(JOBS) -m "not slow"

# A result that misses its mark (status 3) is told, and the others are made all the same.
learn: venv
	sh bench/peers/d3rlpy.sh
	missed=0; for script in $(LEARNING); do \
		$(BIN)/python $$script || { missed=$$?; test $$missed = 3 || exit $$missed; }; \
	done; exit $$missed

bench: .venv/.ready-bench
	sh bench/peers/d3rlpy.sh
	set -e; for script in $(BENCHES); do echo "== $$script"; $(BIN)/python $$script; done
