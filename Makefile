# make demo   create the environment and train the demo
# make test   create the environment with the test extras, check and test
# make test-tpu-compile   all depthwise kernels through the TPU's compiler
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-tpu-compile lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/python -m podscale.train demo

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# An environment of its own: with libtpu installed JAX looks for a TPU.
test-tpu-compile:
	$(MAKE) VENV=.venv-tpu .venv-tpu/.installed-test
	.venv-tpu/bin/python -m pip install --quiet --editable '.[test,tpu]'
	.venv-tpu/bin/python -m pytest -m libtpu

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m podscale.bench step --cpu-baseline

# Some systems have a python3.x command that does not run, so each is tried.
$(BIN)/python:
	@for p in $(PYTHON) python3.12 python3.13 python3.14 python3 python; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
	    >/dev/null 2>&1; then \
	    echo "creating $(VENV) with $$($$p --version)"; \
	    $$p -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "$$p cannot create an environment: install its venv module" \
	      "(on Debian and Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "podscale needs Python 3.12 or newer; found" \
	  "$$(python3 --version 2>/dev/null || echo no python3)." \
	  "Install it, or name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .venv-tpu build dist src/*.egg-info
