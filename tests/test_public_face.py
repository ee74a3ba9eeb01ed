"""`import decoding_llama3 as dl`: its names are imported when first used, and are otherwise as usual."""

import ast
import copy
import pickle
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import decoding_llama3 as dl

FACE = Path(dl.__file__)


def in_fresh_python(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_the_package_does_not_import_torch():
    script = "import sys, decoding_llama3; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert in_fresh_python(script) == "False False"


def test_every_public_name_is_that_of_its_file():
    for module, names in dl._MODULES.items():
        for name in names:
            file = __import__(f"decoding_llama3.{module}", fromlist=["*"])
            assert getattr(dl, name) is getattr(file, name)
            assert name in vars(dl), "the second use does not search again"


def test_names_files_and_imports_for_type_checkers_agree():
    (block,) = (node for node in ast.parse(FACE.read_text(encoding="utf-8")).body if isinstance(node, ast.If))
    imported = {node.module.partition(".")[2]: tuple(a.name for a in node.names) for node in block.body}
    assert imported == dl._MODULES
    assert dl.__all__ == [name for names in imported.values() for name in names]


def test_a_star_import_brings_all_names_and_no_more():
    script = "from decoding_llama3 import *; print(*(name for name in dir() if not name.startswith('__')))"
    assert set(in_fresh_python(script).split()) == set(dl.__all__)


@pytest.mark.parametrize(
    "name",
    [
        "attention.attend",
        "config.LlamaConfig",
        "tokenizer.Tokenizer",
        "inference.data.data_directory",
        "inference.generator.Generator",
        "benchmark.measure_limits",
        "lessons",
        "inspect",
    ],
)
def test_files_and_folders_are_reached_after_a_plain_import(name):
    assert in_fresh_python(f"import decoding_llama3 as dl; print(dl.{name} is not None)") == "True"


def test_a_folder_that_is_already_imported_in_part_is_whole():
    """Python itself sets `dl.inference` then, and no one asks the package for it."""
    script = (
        "import decoding_llama3.inference.devices, decoding_llama3 as dl; print(dl.inference.generator.generate)"
    )
    assert "function generate" in in_fresh_python(script)


@pytest.mark.parametrize("module", [dl, dl.inference], ids=lambda module: module.__name__)
def test_a_name_that_is_not_there_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Transfromer'"):
        getattr(module, "Transfromer")  # noqa: B009
    assert not hasattr(module, "__wrapped__")
    with pytest.raises(ImportError):
        exec(f"from {module.__name__} import Transfromer")


def test_completion_shows_names_and_files_before_they_are_used():
    script = "import decoding_llama3 as dl; print(*dir(dl))"
    found = set(in_fresh_python(script).split())
    assert set(dl.__all__) | {"attention", "inference", "lessons", "cli", "__doc__", "__file__"} <= found
    assert not [name for name in found if name.startswith("_") and not name.startswith("__")]


def test_public_names_are_pickled_and_copied_by_their_own_file():
    for name in ("LlamaConfig", "Transformer", "generate"):
        assert pickle.loads(pickle.dumps(getattr(dl, name))) is getattr(dl, name)
    config = dl.LlamaConfig.from_preset("tiny")
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)


def test_a_name_can_be_patched_and_comes_back():
    before = dl.load_model
    with mock.patch.object(dl, "load_model", "patched"):
        assert dl.load_model == "patched"
    assert dl.load_model is before
