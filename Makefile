# Every target sets up what it needs and remembers it in a stamp file under .venv, until the
# requirements or the Python change. Needs GNU make and a python3 from 3.11 on.

PYTHON ?= python3
ARGS ?=
PY := .venv/bin/python
VERSION := $(shell $(PYTHON) -c "import platform; print(platform.python_version())" 2>/dev/null)
VENV := .venv/venv-$(VERSION)
APP := .venv/app-$(VERSION)
DEV := .venv/dev-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check lint types format docs bench accuracy readme browser clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(APP) ## open the app on 127.0.0.1:7860 (ARGS="--port 7861" and so on)
	$(PY) app.py $(ARGS)

# One thread a worker: as many workers as cores would fight over them otherwise.
test: $(DEV) browser ## run the tests (ARGS="tests/test_layers.py -x" and so on)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-slow: $(DEV) browser ## run the tests that take long, too
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadfile -m "slow or not slow" $(ARGS)

check: lint types test ## what CI runs: format, lint, types, tests

lint: $(DEV) ## check format and style
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(DEV) ## check the library's types
	$(PY) -m mypy

docs: $(DEV) ## build the pages of the library's docstrings into docs/api
	$(PY) -m pdoc --docformat markdown --template-directory docs/template -o docs/api \
	  sre '!sre.__main__' '!sre.commands' '!sre.data' '!sre.studies' '!sre.training'

format: $(DEV) ## format the code and mend what can be mended
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(DEV) browser ## measure speed and memory anew, into bench/results/
	$(PY) -m bench.start
	$(PY) -m bench.orbit
	$(PY) -m bench.training
	$(PY) -m bench.evaluate
	$(PY) -m bench.forward
	$(PY) -m bench.train_step
	$(PY) -m bench.scaling
	$(PY) -m bench.ways
	$(PY) -m bench.family
	$(PY) -m bench.plots

accuracy: $(DEV) ## train and compare all networks of the sweeps in bench/; takes hours, goes on
	$(PY) -m sre sweep bench/accuracy.toml --no-ray
	$(PY) -m bench.accuracy
	$(PY) -m sre sweep bench/accuracy.toml --width 16 --no-ray
	$(PY) -m sre sweep bench/recipe.toml --width 16 --no-ray
	$(PY) -m bench.accuracy --width 16
	$(PY) -m bench.recipe --width 16
	$(PY) -m sre sweep bench/fine.toml --no-ray
	$(PY) -m bench.accuracy --files bench/fine.toml
	$(PY) -m bench.reasons
	$(PY) -m sre download adrenalmnist3d
	$(PY) -m bench.volumes --seeds 1 2 3

readme: $(DEV) ## write the tables of README.md from the checkpoints and results
	$(PY) -m bench.readme_tables

browser: $(DEV) # the Chromium that the tests drive: found, or brought
	@$(PY) -m tests.browser

clean: ## remove the virtual environment and caches
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "$(PYTHON) is missing or older than 3.11; install Python 3.11 or newer, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import ensurepip" || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

$(APP): $(VENV) requirements.txt
	@echo "Installing what the app needs: PyTorch is large, so this takes some minutes, once."
	$(PY) -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV): $(APP) requirements-dev.txt
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@
