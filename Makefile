# Every target sets itself up in .venv from nothing and costs nothing the second time.
PYTHON ?= python3
VENV := .venv
SEEDS ?= 10000:20000
# one more than there are cores, as many tests wait for processes; five at most
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() or 1, 4) + 1)")
HARD := --nodes 5 --partitions 8 --loss 0.5 --clock-jump 40 --operations 50 --hot-keys 1
BIN := $(VENV)/bin
COMPILED := $(VENV)/compiled
SOURCES := $(shell find src/merganser -name '*.py')
WHEEL = $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation
PACKAGES := import sysconfig; print(sysconfig.get_path('purelib'))
# a line in a .pth file makes the packages of another environment importable, but not its editable installs
BESIDE := import sys, sysconfig; open(sysconfig.get_path('purelib') + '/others.pth', 'w').write(sys.argv[1] + '\n')
STAMP := $(VENV)/.installed

# where it is set, each node that a test starts translates all of its sources anew: 0.7 s of CPU in place of 0.25
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-compiled wheel clients check bench flame bench-peers soak lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(STAMP) ## make .venv with everything the other targets need

$(STAMP): pyproject.toml requirements.lock
	@echo "setting up $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## three nodes, real clients, a partition, a kill -9; grows to five, shrinks to three; a verdict
	@$(BIN)/python -m demo

run: $(STAMP) ## a local three-node cluster on ports 8000, 8001, 8002 until ctrl-C
	@$(BIN)/merganser cluster start --nodes 3

check: $(STAMP) ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --cache-dir $(VENV)/import-linter

test: check ## the checks and every test
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-compiled: $(COMPILED)/.installed ## every test against the compiled modules
	@$(COMPILED)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not soak and not clients"

# what users install, beside what the tests need
$(COMPILED)/.installed: $(STAMP) hatch_build.py $(SOURCES)
	@rm -rf $(COMPILED) && $(BIN)/python -m venv --without-pip $(COMPILED)
	@echo "compiling"
	@MERGANSER_PURE=0 $(WHEEL) --wheel-dir $(COMPILED)/wheel .
	@$(BIN)/uv pip install --quiet --offline --no-deps --compile-bytecode --python $(COMPILED)/bin/python $(COMPILED)/wheel/*.whl
	@$(COMPILED)/bin/python -c "$(BESIDE)" $$($(BIN)/python -c "$(PACKAGES)")
	@ln -s $(abspath $(BIN))/aws $(abspath $(BIN))/uv $(COMPILED)/bin
	@mkdir -p $(VENV)/peers && ln -s $(abspath $(VENV))/peers $(COMPILED)/peers
	@touch $@

wheel: $(STAMP) ## a wheel in dist, with compiled modules if there is a C compiler (MERGANSER_PURE=1: without)
	@$(WHEEL) --wheel-dir dist . && ls dist

clients: $(STAMP) ## every client in every language that is installed here (go, mvn, npm, chromium)
	@$(BIN)/pytest tests/clients -m "clients or not soak" -rs

bench: $(COMPILED)/.installed ## measure all that docs/performance.md tells again, and write it there: a quarter of an hour
	@$(COMPILED)/bin/python -m merganser.bench.suite --pure $(abspath $(BIN))/python

flame: $(STAMP) ## draw where a GetItem and a PutItem spend their time, into docs
	@$(BIN)/python -m merganser.bench.flame

bench-peers: $(COMPILED)/.installed ## one node beside other servers that speak DynamoDB (npm, pip), which are started and stopped
	@$(COMPILED)/bin/python -m merganser.bench.suite --pure $(abspath $(BIN))/python --only one-node --page ''

soak: $(STAMP) ## the long hunt on all cores (SEEDS=0:1000000 takes a day), then more rounds with real processes
	@$(BIN)/merganser sim --seeds $(SEEDS)
	@$(BIN)/merganser sim --seeds $(SEEDS) $(HARD)
	@$(BIN)/pytest -m soak

lock: $(STAMP) ## solve the dependencies again
	@$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --no-header --upgrade -o requirements.lock

clean: ## remove what make made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .hypothesis
