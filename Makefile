# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# On Linux, PyPI's torch brings CUDA libraries. For the small CPU build set, before either command:
#   export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUESTION ?= my parcel was due on tuesday and tracking says nothing, where is it??

.PHONY: help install quickstart format check unit test lint types docs clean

help:
	@echo "make quickstart   install, build the bundle of recipes/quickstart.toml, serve one answer"
	@echo "make format       format the code and fix what ruff can fix"
	@echo "make check        install, check style and types, run the unit tests: under a minute"
	@echo "make test         install, run all tests"
	@echo "make docs         build the documentation into site/, links checked"
	@echo "make clean        remove $(VENV) and runs/"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.1"  # the first that reads dependency groups
	$(BIN)/python -m pip install --quiet --editable ".[build,cpu,serve,demo]" --group dev
	@touch $(INSTALLED)

quickstart: $(INSTALLED)
	@bundle=$$($(BIN)/factory run recipes/quickstart.toml) && \
	$(BIN)/python examples/ask_server.py "$$bundle" "$(QUESTION)"

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types unit

unit: $(INSTALLED)
	$(BIN)/python -m pytest -m unit --numprocesses auto --maxprocesses 4 --dist worksteal

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs site
