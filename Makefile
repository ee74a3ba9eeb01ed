# Two commands: `make lab` opens the notebooks, `make test` runs every notebook and test. Each sets up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# For example LAB_OPTIONS="--no-browser --port=9999"
LAB_OPTIONS ?=
# Run once more with the shapes of their signatures executed.
COMPONENTS := config norm rope attention kv_cache feed_forward transformer
TYPED_TESTS := $(COMPONENTS:%=tests/test_%.py) tests/references

.PHONY: lab test clean

lab: .venv/installed
	$(BIN)/python -m decoding_llama3.lessons.working_copy notebooks lab
	$(BIN)/jupyter lab --notebook-dir=lab $(LAB_OPTIONS)

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	TYPED=1 $(BIN)/python -m pytest $(TYPED_TESTS)
	$(BIN)/python -m pytest --nbval tests notebooks

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up .venv: this takes some minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lab,train,test]'
	touch $@

clean:
	rm -rf .venv build dist
