# Everything a fresh machine needs is Python 3.11 to 3.13, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files run beside each other; many of them wait for servers.
WORKERS ?= 2
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS ?= 120
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

.PHONY: help venv demo ui weights browser test test-full lint lock simulator simulated clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

venv: $(VENV)/.ready  ## Make the environment from the hash lock

# The lock names everything, so nothing is resolved again: pip's resolver would take another version for an extra.
$(VENV)/.ready: requirements.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv  ## Extract the bundled examples with the embedded Qwen, through the Prefect flow
	$(BIN)/python -m flows.demo

lint: venv  ## Style, types and one-way imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

weights: venv
	-$(BIN)/quarry model pull local-0.5b  # without it the tests of the embedded model are skipped, and say so

browser:  ## Chromium for the tests of the HTML report (Debian's, when this is root and it is missing)
	@test -x /usr/bin/chromium || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no Chromium at /usr/bin/chromium: the tests of the report in a browser are skipped, and say so"

test: lint weights browser  ## Everything a landing needs (15 minutes at most on 2 cores)
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(WORKERS) --dist loadfile

test-full: lint weights browser  ## The same with property tests that look for new cases, and the slow tests
	$(BIN)/python -m pytest --hypothesis-profile default

lock:  ## Resolve the dependencies again (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --extra dev pyproject.toml -o requirements-dev.lock

ui: venv  ## Prefect's server, Quarry's deployments and a worker on this machine, until Ctrl-C (flags: make ui FLAGS="--port 4300")
	$(BIN)/python -m flows.ui $(FLAGS)

simulator: venv  ## A Qwen-like service on loopback, until Ctrl-C (flags: make simulator FLAGS="--faults 429=0.2 --rpm 600")
	$(BIN)/python -m tests.fakes.qwen --answer from-schema --rules documented --cache $(FLAGS)

JOB ?= examples/nightly_tags.toml

simulated: venv  ## One example job against the simulator: no key, invented answers (make simulated JOB=examples/receipts_from_images.toml)
	$(BIN)/python -m tests.fakes.qwen --answer from-schema --rules documented --run $(BIN)/quarry run $(JOB)

clean:  ## Remove the environment and the demo's output
	rm -rf $(VENV) *-out
