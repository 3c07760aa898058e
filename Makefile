PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test simulate check lint types protos clean

$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --config-settings editable_mode=compat
	touch $@

demo: $(VENV)/.installed
	$(BIN)/filegrid demo

test: $(VENV)/.installed
	$(BIN)/trial --jobs $(JOBS) tests

SEEDS ?= 1-1000

simulate: $(VENV)/.installed
	$(BIN)/filegrid simulate --seeds $(SEEDS) --vary

check: lint types

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

protos: $(VENV)/.installed
	$(BIN)/python -m grpc_tools.protoc --proto_path=protos --python_out=. --mypy_out=. \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy protos/filegrid/protocol/wire/*.proto

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
