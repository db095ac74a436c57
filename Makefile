.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
LOWEST := .venv-lowest

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

setup: $(VENV)/installed ## make the virtual environment from requirements.lock

# The stamp is newer than the lock once everything in it is installed: a second call does nothing
$(VENV)/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "Making $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing the packages of requirements.lock (5.5 GB on the disk, half a minute or more) ..."
	$(RUN) -m uv pip install --quiet --compile-bytecode --python $(RUN) --require-hashes -r requirements.lock
	@touch $@

fit: setup ## train ResNet-20 on scikit-learn's digits, then test it (a minute on a laptop, no download)
	$(RUN) main.py fit --config configs/digits/resnet20.yaml
	$(RUN) main.py test --ckpt_path runs/digits/resnet20

test: setup ## run the tests (the long ones too: make test ARGS='-m "slow or not slow"')
	$(RUN) -m pytest $(ARGS)

test-lowest: setup ## run the tests with the lowest versions that pyproject.toml allows
	@echo "Making $(LOWEST) and installing the lowest versions (half a minute or more) ..."
	$(RUN) -m uv venv --quiet --clear --python $(RUN) $(LOWEST)
	$(RUN) -m uv pip install --quiet --compile-bytecode --python $(LOWEST)/bin/python --resolution lowest-direct --group dev --requirements pyproject.toml
	$(LOWEST)/bin/python -m pytest $(ARGS)

lint: setup ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

smoke: setup ## train every experiment for one batch of noise at its own image size (2 minutes on two idle cores)
	$(RUN) -m pytest tests/test_configs.py -k test_experiment_trains_a_batch_at_its_own_size -m slow -v -n 0 --durations=0

zoo: setup ## count every architecture and lay it beside its paper
	$(RUN) -m reports.zoo

compare: setup ## compare the runs under runs/: which is better, why, and is the difference real (comparison.html)
	$(RUN) -m reports.compare runs --html comparison.html

benchmark: setup ## images per second against a plain PyTorch loop, side by side
	$(RUN) -m benchmarks

audit: setup ## look for known vulnerabilities of the locked packages (asks pypi.org)
	$(RUN) .ci/audit.py

lock: setup ## pin every dependency anew, for Linux, macOS and Windows
	$(RUN) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml --output-file requirements.lock

.PHONY: help setup fit test test-lowest lint smoke zoo compare benchmark audit lock
