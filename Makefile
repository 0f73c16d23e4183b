# make verify   sets up .venv if need be, and runs the whole catalogue
# make test     sets up .venv if need be, and passes the tests
# make calibrate [ROWS="ladder/* power/*"]   measures what the verdicts promise, into reports/: about 40 minutes
# make mutants  plants errors in the sources, one by one, and shows that the tests catch each (some ten minutes)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SEED   ?= 0
BUDGET ?=

# The extension's sources and the package's metadata decide whether the environment is current.
SOURCES := setup.py pyproject.toml $(wildcard src_ext/*)

.PHONY: verify test lint slow calibrate mutants bench bench-cuda wheel clean

verify: $(VENV)/.installed
	$(BIN)/mcverify verify --seed $(SEED) $(if $(BUDGET),--budget $(BUDGET))

test: $(VENV)/.tested
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.tested
	$(BIN)/ruff check mcverify tests bench setup.py
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/.tested
	$(BIN)/python -m pytest -m slow

# MUTANTS="c_tail_off_by_one ladder_weights" chooses some; JOBS is how many are tried at a time.
JOBS ?= 2
mutants: $(VENV)/.tested
	$(BIN)/python tests/mutants/run.py --jobs $(JOBS) $(MUTANTS)

# Rows by name or pattern, all by default; python -m tests.calibration --help says more.
ROWS ?=
calibrate: $(VENV)/.tested
	$(BIN)/python -m tests.calibration $(foreach row,$(ROWS),'$(row)')

# The peers that mcverify is measured against are optional: see bench/README.md.
BENCH_PYTHON ?= $(BIN)/python
bench: $(if $(filter $(BIN)/python,$(BENCH_PYTHON)),$(VENV)/.tested)
	$(BENCH_PYTHON) -m bench

# On a machine with an NVIDIA GPU; says so where there is none. bench/README.md: from source without a network.
bench-cuda: $(if $(filter $(BIN)/python,$(BENCH_PYTHON)),$(VENV)/.tested)
	$(BENCH_PYTHON) -m bench.cuda

wheel: $(VENV)/.tested
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	@echo 'Setting up $(VENV): dependencies and the compiled extension, about a minute.'
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tested: $(VENV)/bin/python $(SOURCES)
	@echo 'Setting up $(VENV) for the tests: dependencies, the compiler for GPUs and the extension, two minutes.'
	$(BIN)/python -m pip install --quiet --editable '.[test,cuda]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info mcverify/*.so src_ext/_native.c
