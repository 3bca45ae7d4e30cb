# Two targets do everything on a machine with Python 3.11, make and gcc: `make demo`, `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint types imports doctest unit conform bench quality clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Kakeya needs Python 3.11+"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/kakeya demo --out demo-out

test: lint types imports doctest conform unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy knows folders, not the import names that setuptools maps them to.
types: setup
	mkdir -p $(VENV)/types
	ln -sfn ../../conformance $(VENV)/types/kakeya_conformance
	ln -sfn ../../spec $(VENV)/types/kakeya_spec
	MYPYPATH=$(VENV)/types $(BIN)/mypy

imports: setup
	$(BIN)/lint-imports --no-cache

# Every backend passes the door that is open to third parties; two at a time.
CONFORM := conform-numba conform-cuda-host conform-ref conform-torch
conform: setup
	$(MAKE) -j2 --output-sync=target $(CONFORM)

conform-%: export OMP_NUM_THREADS = 1
conform-%: setup
	$(BIN)/kakeya conform $* --profile $(if $(filter cuda-host,$*),standard,quick)

doctest: setup
	$(BIN)/python -m pytest -q --doctest-modules kakeya_ref kakeya_fast/quality

# Last, so that the closing line of a run counts its tests. Two processes of one thread each:
# small tensors lose more to waking threads than they gain.
unit: setup
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 $(BIN)/python -m pytest -n 2

bench: setup
	$(BIN)/python -m benchmarks.speed

quality: setup
	$(BIN)/python -m benchmarks.quality

clean:
	rm -rf $(VENV) build *.egg-info demo-out
