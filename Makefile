# Everything a user or CI needs; each target sets itself up from nothing.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready
PACK ?= ../shared/parity/siamfc
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5

.PHONY: setup demo test lint types unit parity notebooks slow clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import cv2' || (echo 'OpenCV needs libGL: installing libgl1 and libglib2.0-0' && \
	  apt-get update -qq && apt-get install -y -qq libgl1 libglib2.0-0)
	touch $@

# Train a small tracker on the synthetic world, track a clip, score the trackers, write video and report.
demo: $(SETUP)
	$(BIN)/python -m eval.demo --output demo

test: lint types unit

lint: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(SETUP)
	$(BIN)/mypy

# One process a core; neighbours stay together, so that they share what they compile.
unit: $(SETUP)
	$(BIN)/python -m pytest -q -n auto --dist worksteal

# Parity with the published codes: make parity PACK=../shared/parity/siamfc
parity: $(SETUP)
	$(BIN)/python -m tests.parity $(PACK)

notebooks: $(SETUP)
	$(BIN)/python -m pytest -q -m notebook

slow: $(SETUP)
	$(BIN)/python -m pytest -q -m slow

clean:
	rm -rf .venv .cache demo runs results .pytest_cache .mypy_cache .ruff_cache
