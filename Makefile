# `make demo` and `make test` set up everything they need; PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test test-all lint bench ui clean
help:
	@echo "make demo      install into .venv, compare methods on simulated households (no download)"
	@echo "make test      install, then the fast tests          make test-all  the slow ones too"
	@echo "make lint      ruff and mypy --strict                 make bench     benchmarks/results/latest.json"
	@echo "make ui        the MLflow UI over mlruns/"

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("persofl needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[dev]'
	@touch $@

demo: .venv/.installed
	$(BIN)/persofl study run demo

test: .venv/.installed
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: .venv/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python -m benchmarks.run

ui: .venv/.installed
	$(BIN)/persofl ui

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
