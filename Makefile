# The few verbs people need. VENV and INSTALL are for continuous integration, which tests the built wheel.
PYTHON ?= python3
VENV ?= .venv
INSTALL ?= -e .[test]
DEV ?= -e .[dev]
DOCS ?= -e .[docs]
# The extra `flower` lowers versions of common packages, so it gets an environment of its own.
FLOWER ?= build/flower
# Whole files of tests to each process; one thread in each, because they would wait for each other.
SPREAD ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test slow test-flower check docs clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed
	$(VENV)/bin/deadreckon quickstart

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(SPREAD)

slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m slow $(SPREAD)

test-flower: $(FLOWER)/.installed
	OMP_NUM_THREADS=1 $(FLOWER)/bin/python -m pytest --noconftest -c /dev/null --rootdir . -p no:cacheprovider tests/test_flower.py

check: $(VENV)/.checked-tools
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	mkdir -p build/types && ln -sfn ../.. build/types/deadreckon
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

docs: $(VENV)/.site-tools
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25"
	$(VENV)/bin/python -m pip install --constraint constraints.txt $(INSTALL)
	touch $@

$(FLOWER)/.installed: pyproject.toml
	test -x $(FLOWER)/bin/python || $(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --upgrade "pip>=25"
	$(FLOWER)/bin/python -m pip install -e .[flower] pytest
	touch $@

$(VENV)/.checked-tools: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(DEV)
	touch $@

$(VENV)/.site-tools: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(DOCS)
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
