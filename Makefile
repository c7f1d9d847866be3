# `make demo` and `make test` need GNU make and Python 3.12 or newer; they set up everything else in $(VENV).

VENV ?= .venv
BIN = $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs tutorials clean

help:
	@echo 'make demo   fit and predict on a simulated drug screen: a table, and the picture demo/moments.png'
	@echo '            on your file: make demo DATA=my.h5ad TARGET_COL=drug REFERENCE_KEY=DMSO DOSE_COL=dose'
	@echo '            (also GROUP_COL, SEP, LAYER, USE_REP, N_ITERS)'
	@echo "make test   run the quick tests; options for pytest: make test PYTEST_ARGS='-k split'"
	@echo 'make lint   check style and types'
	@echo 'make docs   build the documentation into docs/_build/html'
	@echo 'make tutorials  run the tutorials and write them with their output'
	@echo 'make clean  remove the environment and everything that was built'

# The shell drops an option whose variable is unset or empty, and keeps spaces and signs inside a value.
demo: $(VENV)/.installed-test
	@$(BIN)/python demo/demo.py \
	  $${DATA:+--data "$$DATA"} \
	  $${TARGET_COL:+--target-col "$$TARGET_COL"} \
	  $${REFERENCE_KEY:+--reference-key "$$REFERENCE_KEY"} \
	  $${DOSE_COL:+--dose-col "$$DOSE_COL"} \
	  $${GROUP_COL:+--group-col "$$GROUP_COL"} \
	  $${SEP:+--sep "$$SEP"} \
	  $${LAYER:+--layer "$$LAYER"} \
	  $${USE_REP:+--use-rep "$$USE_REP"} \
	  $${N_ITERS:+--n-iters "$$N_ITERS"}

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going docs docs/_build/html

tutorials: $(VENV)/.installed-docs
	$(BIN)/python tools/run_tutorials.py

# Only what lies in this folder: $(VENV) may be an environment that serves other work too.
clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/_build docs/generated docs/tutorials demo/*.png

# A stamp is the last thing a set-up writes, so one that was interrupted starts again.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo 'Installing scgap[$*] into $(VENV); the first time this takes a few minutes.'
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/.created:
	@python=$$($(SHELL) tools/find-python.sh) && echo "Making $(VENV) with $$python" && "$$python" -m venv $(VENV)
	@touch $@
