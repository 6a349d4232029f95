# Everything runs in .venv, which the first target makes; nothing is installed outside it.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
EXTRAS := craft,local,dev

.PHONY: install demo test check up down bench clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

demo: install  ## one MGRAL round through the HTTP API; DATA=folder for your own images
	$(BIN)/mgral demo $(DATA)

test: install
	$(BIN)/python -m pytest --cov=mgral_service.domain --cov-fail-under=95

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: install  ## the service on loopback, in the foreground (DETACH=1: in the background)
	$(BIN)/mgral up $(if $(DETACH),--detach)

down: install
	$(BIN)/mgral down

bench: install  ## every benchmark, a day or so; BENCH_FLAGS=--quick for a minute or two each
	for file in benchmarks/[a-z]*.py; do \
	  name=$$(basename $$file .py); \
	  grep -q __main__ $$file || continue; \
	  $(BIN)/python -m benchmarks.$$name $(BENCH_FLAGS) || exit 1; \
	done

clean:
	rm -rf .venv out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
