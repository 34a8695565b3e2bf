# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-all lint bench bench-gpu clean

demo: $(INSTALLED)
	$(BIN)/stylegan demo --out runs/demo

test: $(INSTALLED) lint
	$(BIN)/pytest

test-all: $(INSTALLED) lint
	$(BIN)/pytest -m "slow or not slow"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py

# On a machine with a GPU, and with torch's CUDA build in .venv (docs/start.md).
bench-gpu: $(INSTALLED)
	sh benchmarks/gpu.sh $(BIN)/python

# torch first and pinned: a looser request may fetch gigabytes of CUDA (constraints.txt).
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
