# Everything sets itself up: `make demo` and `make test` need Python 3.11 or newer and nothing else.
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOGETHER := -n auto --maxprocesses 4 --dist loadfile
DEMO ?= demo

# One thread per process: the engine runs one worker per core, and reruns agree to the last bit.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

# Compiled modules are kept even where PYTHONDONTWRITEBYTECODE is set, as in many container images: tests start hundreds
# of processes, each of which would compile all that it imports, for some ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup kernels system-packages demo test lint check unit consumers docs bench lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## Make the virtual environment with everything locked

$(READY): pyproject.toml requirements.lock scripts/make_environment.sh
	sh scripts/make_environment.sh $(VENV)
	@echo "compiling the kernels, once: a few minutes"
	$(BIN)/python scripts/compile_kernels.py
	touch $(READY)

system-packages:
	sh scripts/install_system_packages.sh

kernels: $(READY)
	@$(BIN)/python scripts/drop_stale_kernels.py

demo: $(READY) kernels ## Simulate a small survey, process it, report it (in ./demo)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/demo.py $(DEMO)

lint: $(READY) ## Lint and format
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts

check: lint ## Lint, types, layer contracts, documentation
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# The checks run beside the tests, on what these leave of the cores; what they said stands at the end.
test: $(READY) kernels system-packages lint ## Everything: every test, and check
	@mkdir -p build && { $(MAKE) --no-print-directory check >build/check.log 2>&1 & } && checks=$$!; \
	trap 'kill $$checks 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(TOGETHER) --durations 30; tested=$$?; \
	wait $$checks; checked=$$?; echo "make check:"; cat build/check.log; \
	[ $$tested = 0 ] || echo "make test: tests failed (pytest ended with status $$tested)" >&2; \
	[ $$checked = 0 ] || echo "make test: make check failed with status $$checked; what it said stands above" >&2; \
	[ $$tested = 0 ] && [ $$checked = 0 ]

unit: $(READY) kernels ## The quick tests only
	$(BIN)/python -m pytest $(TOGETHER) tests/unit

consumers: $(READY) ## Foreign alert clients read a night from a real Kafka (environments of their own, about 1.5 GB)
	sh scripts/make_consumer_environments.sh "" $(CURDIR)/$(BIN)/python
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -rs tests/consumers

docs: $(READY) ## Build the documentation in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(READY) ## Print every figure that the documentation claims
	$(BIN)/python -m benchmarks

lock: ## Resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --no-header \
	    --no-emit-index-url --no-annotate -o requirements.lock pyproject.toml

clean: ## Remove what this Makefile made
	rm -rf $(VENV) $(DEMO) docs/_build .mypy_cache .ruff_cache .pytest_cache build
