# The course: `make help` lists what can be made. Nothing here is needed to use the package.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# The Python that .venv is made from: make PYTHON=python3.12 lab
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# What .venv was made for: to learn (the extra `course`), or to test and lint as well (`dev`).
INSTALLED := $(VENV)/.installed-course
FOR_DEV := $(VENV)/.installed-dev
INSTALLING := .venv.installing
DEMO := data/demo/demo.json
FRESH := build/freshness
LOWEST := build/lowest

# The stored notebooks hold the demo's results, so these targets always run on the demo.
ON_DEMO := CXR_DATA=demo CXR_SCALE=demo

# How many processes share the tests; with 0 there is one, for a debugger.
WORKERS ?= 2
UNIT := pytest -q -n $(WORKERS) --dist loadfile --doctest-modules
# Notebooks two at a time. One pretrains while the others do what needs nothing of it: 05 trains the
# detectors of 04, then 03 and 04 find all that they take from another notebook.
TURNS := $(foreach n,02 00 01 06 05 03 04,$(wildcard notebooks/$(n)_*.ipynb))
IN_TURN := $(TURNS) $(filter-out $(TURNS),$(wildcard notebooks/*.ipynb))
NBVAL := pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --nbval

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo lab test check lint course notebooks site test-real benchmark freshness lowest clean

help: ## show this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## make .venv with the pinned dependencies of the course and this package

# An interrupted installation leaves $(INSTALLING) behind: then .venv is made anew.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is not Python 3.11 or newer: install one and name it, as in  make PYTHON=python3.12 setup" >&2; exit 1; }
	@if [ -e $(INSTALLING) ] || ! $(PY) -m pip --version >/dev/null 2>&1 \
	    || ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: install its venv module (on Debian and Ubuntu: python3-venv)" >&2; exit 1; }; fi
	@echo "Installing the pinned dependencies into $(VENV) (several GB at the first time)"
	@touch $(INSTALLING)
	@$(PY) -m pip install -c constraints.txt -e '.[$*]' || { status=$$?; \
	  [ $$status -ge 128 ] || rm -f $(INSTALLING); \
	  echo "pip could not install the dependencies: see its message above, then call make again" >&2; exit $$status; }
	@rm -f $(INSTALLING)
	@$(PY) -m cxr_helpers.course.core.machine
	@touch $(INSTALLED) $@

demo: $(DEMO) ## make the synthetic demo data in data/demo

$(DEMO): $(wildcard data_scripts/*demo*.py cxr_helpers/phantom/*.py) | $(INSTALLED)
	@$(PY) data_scripts/make_demo.py
	@touch $@

lab: $(INSTALLED) $(DEMO) ## open JupyterLab at the first notebook, with settings of its own
	@$(PY) -m cxr_helpers.course.lab

lint: $(FOR_DEV)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

check: lint ## lint, doctests and the unit tests that are not slow, for daily work
	@$(ON_DEMO) $(PY) -m $(UNIT) --durations=5 -m "not real and not slow" cxr_helpers tools tests

test: lint $(DEMO) ## lint, doctests, all unit tests, then every notebook against its stored outputs
	@$(ON_DEMO) $(PY) -m $(UNIT) --durations=15 cxr_helpers tools tests
	@$(ON_DEMO) OMP_NUM_THREADS=1 $(PY) -m $(NBVAL) --durations=15 $(IN_TURN)

test-real: $(FOR_DEV) ## notebooks 01 to 03 on real radiographs (CXR_REAL=folder)
	@$(PY) -m pytest -q -s -rs --durations=5 -m real tests/project/test_real_radiographs.py

course: $(INSTALLED) ## run the notebooks in order and show the results (CXR_DATA, CXR_SCALE)
	@$(PY) -m tools.run

notebooks: $(FOR_DEV) $(DEMO) ## rebuild the executed notebooks from notebooks/source
	@$(ON_DEMO) $(PY) -m tools.notebooks build

site: $(FOR_DEV) ## build the pages of the course in build/site, offline
	@rm -rf build/site build/doctrees docs/api/generated
	@$(ON_DEMO) $(PY) -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/site
	@echo "The pages are ready: open build/site/index.html"

benchmark: $(INSTALLED) ## run every benchmark; results go to runs/benchmarks
	@status=0; for script in benchmarks/*.py; do \
	  [ -e "$$script" ] || continue; echo "== $$script"; $(PY) "$$script" || status=1; done; exit $$status

freshness: ## test with the newest releases that pyproject.toml allows
	@rm -rf $(FRESH) && git clone -q . $(FRESH)/course && $(PYTHON) -m venv $(FRESH)/env
	@cd $(FRESH)/course && export $(ON_DEMO) && fresh="../env/bin/python -m" \
	  && $$fresh pip install -q --upgrade -e '.[dev,gpl]' && $$fresh pip list --format=freeze >../installed.txt \
	  && ../env/bin/python data_scripts/make_demo.py && { status=0; $$fresh pip check || status=1; \
	  $$fresh $(UNIT) cxr_helpers tools tests || status=1; \
	  OMP_NUM_THREADS=1 $$fresh $(NBVAL) $(IN_TURN) || status=1; \
	  echo "Newer than pinned:"; grep -ivxFf constraints.txt ../installed.txt; exit $$status; }

lowest: ## check with the lowest releases that pyproject.toml allows (PYTHON=python3.11)
	@rm -rf $(LOWEST) && git clone -q . $(LOWEST)/course && $(PYTHON) -m venv $(LOWEST)/env
	@cd $(LOWEST)/course && export $(ON_DEMO) && lowest="../env/bin/python -m" \
	  && $$lowest pip install -q -c lowest.txt -e '.[dev]' && $$lowest pip check \
	  && $$lowest $(UNIT) -m "not real and not slow" cxr_helpers tools tests

clean: ## remove .venv, the demo data, its results and caches (results on other data stay)
	rm -rf $(VENV) $(INSTALLING) data/demo data/phantoms_* runs/demo build docs/api/generated *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
