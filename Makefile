# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# One worker per core, at most 4; each computes with one thread (tests/conftest.py). worksteal
# keeps the tests of a file together, which share fixtures, until a worker has none left.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal
# Write bytecode even if the environment says otherwise. pip does not compile all packages, as that
# takes a minute; each process would then compile torch again, which takes 6 seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all lint types bench bench-gpu clean

demo: $(INSTALLED)
	$(BIN)/stylegan demo --out runs/demo

test: $(INSTALLED) lint types
	$(PYTEST)

test-all: $(INSTALLED) lint types
	$(PYTEST) -m "slow or not slow"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py

# On a machine with a GPU, and with torch's CUDA build in .venv (docs/start.md).
bench-gpu: $(INSTALLED)
	sh benchmarks/gpu.sh $(BIN)/python

# torch first and pinned: a looser request may fetch gigabytes of CUDA (constraints.txt).
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
