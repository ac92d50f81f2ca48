# Everything builds and uses .venv; nothing has to be installed first but Python 3.11.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FRONT := $(VENV)/.compiled
PARALLEL ?=
EXTRAS := train,serve,client,postgres,redis,s3,console,k8s,ray,ops,dev

.PHONY: help setup demo test lint bench clean

help:            ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

setup: $(FRONT)  ## build .venv, and compile what every request goes through

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $@

$(FRONT): $(STAMP) setup.py mypyc.ini $(wildcard src/tradewind/serve/*.py src/tradewind/serve/http/*.py)
	@bash .ci/compile $(BIN)/python
	touch $@

.PHONY: uncompile
uncompile:       ## run from the sources, as whoever edits them wants to; until the next make setup, test or bench
	find src -name '*.so' -delete
	rm -f $(FRONT) src/tradewind/serve/compiled.json

demo: $(FRONT)   ## train, kill, recover, evaluate, package, serve, overload: the main job
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m recipes.recommender.demo $(ARGS)

test: $(FRONT) system  ## all tests; PARALLEL="-n 2 --dist loadfile" for two files at a time
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

.PHONY: system
system:
	@bash .ci/system-packages

lint: $(STAMP)   ## format, lint, types, import contracts
	$(BIN)/ruff format --check src tests recipes bench
	$(BIN)/ruff check src tests recipes bench
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(FRONT)  ## one benchmark: make bench NAME=cli ARGS=--quick
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.$(subst -,_,$(NAME)) $(ARGS)

.PHONY: chaos
chaos: $(STAMP)  ## 200 seeded schedules of faults on real training; goes on where it was interrupted
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.chaos --place .chaos/results.jsonl $(ARGS)

.PHONY: soak
soak: $(FRONT)   ## half an hour at 0.8 of capacity, workers killed and versions swapped; ARGS=--minute for a short one
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.soak $(ARGS)

clean: uncompile ## remove what was built
	rm -rf $(VENV) .demo .chaos build dist src/*.egg-info
