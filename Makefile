# make demo   create the environment and train the demo
# make test   create the environment with the test extras, check and test
# make test-slow   the tests that take long
# make test-share   today's tenth of the tests that take long; or SHARE=3/10
# make mutation   mutation testing, for hours; see tests/mutation/README.md
# make fuzz   damaged files and odd values for every reader, for minutes
# make test-tpu-compile   all depthwise kernels through the TPU's compiler
# make bench   every public op on this CPU beside plain JAX
# make docs   the documentation site, into build/site; works offline
# make compare   fail if estimates for a TPU are worse than bench/baseline
VENV := .venv
# Of its own: with the TPU's compiler installed JAX looks for a TPU.
TEST_VENV := .venv-test
TEST_BIN := $(TEST_VENV)/bin
FOLDERS := kernels collectives model train bench tests docs

# Share 1 to 10 of the slow tests, by the day.
SHARE ?= $(shell echo $$(($$(date +%s) / 86400 % 10 + 1)))/10

.PHONY: demo test test-slow test-share fuzz test-tpu-compile mutation lint \
  bench docs compare clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(VENV)/bin/python -m podscale.train demo

test: lint
	$(TEST_BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m pytest -n 2 -m "slow and not libtpu"

test-share: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m pytest -n 2 -m slow --share $(SHARE)

fuzz: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m pytest -n 2 -m slow tests/fuzz

test-tpu-compile: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m pytest -n 2 -m libtpu

mutation: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m mutmut run $(MUTANTS)
	$(TEST_BIN)/python tests/mutation/scores.py

lint: $(TEST_VENV)/.installed
	$(TEST_BIN)/ruff format --check .
	$(TEST_BIN)/ruff check .
	$(TEST_BIN)/mypy
	$(TEST_BIN)/lint-imports
	$(TEST_BIN)/python tests/lint/docstring_openers.py $(FOLDERS)

bench: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m pytest --benchmark-only --benchmark-autosave

docs: $(TEST_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(TEST_BIN)/python -m mkdocs build --strict

# Fails on a loss of more than 2 per cent. With another version of the compiler
# than the baseline names, it lists the differences and does not fail.
compare: $(TEST_VENV)/.installed
	$(TEST_BIN)/python -m podscale.bench lars --chip v5e --topology 2x2 \
	  --compare bench/baseline/lars-v5e.json
	$(TEST_BIN)/python -m podscale.bench kernels --chip v5e --resolution 32 \
	  --batch-size 8 --compare bench/baseline/kernels-v5e.json

# Some systems have a python3.x command that does not run, so each is tried.
%/bin/python:
	@for p in $(PYTHON) python3.12 python3.13 python3.14 python3 python; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
	    >/dev/null 2>&1; then \
	    echo "creating $* with $$($$p --version)"; \
	    $$p -m venv $* && exit 0; \
	    rm -rf $*; \
	    echo "$$p cannot create an environment: install its venv module" \
	      "(on Debian and Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "podscale needs Python 3.12 or newer; found" \
	  "$$(python3 --version 2>/dev/null || echo no python3)." \
	  "Install it, or name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable .
	@touch $@

$(TEST_VENV)/.installed: pyproject.toml | $(TEST_BIN)/python
	$(TEST_BIN)/python -m pip install --quiet --editable '.[test,tpu]'
	@touch $@

clean:
	rm -rf $(VENV) $(TEST_VENV) build dist src/*.egg-info
