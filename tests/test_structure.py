"""The shape of the package: who may import whom, what is loaded when, how long things are."""

import ast
import collections
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "decoding_llama3"
FILES = sorted(PACKAGE.rglob("*.py"))
COMPONENTS = [path for path in FILES if path.parent == PACKAGE and not path.stem.startswith("__")]
LAYERS = [
    ("components",),
    ("inference",),
    ("inspect", "benchmark"),
    ("comparison",),
    ("experiments",),
    ("lessons",),
    ("cli",),
]
FOLDERS_ABOVE = {
    folder: sum(LAYERS[i + 1 :], tuple(other for other in layer if other != folder))
    for i, layer in enumerate(LAYERS)
    for folder in layer
}
STEMS = ["config", "norm", "rope", "attention", "kv_cache", "feed_forward", "transformer"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def folder_of(path: Path) -> str:
    """The layer that a file belongs to. The public face, __init__.py, knows the components and inference."""
    parts = path.relative_to(PACKAGE).parts
    if len(parts) > 1:
        return parts[0]
    return "inference" if path.stem == "__init__" else "components"


def module(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in it, relative imports resolved."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).with_suffix("").parts[: -node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def forbidden(path: Path, *parts: str) -> list[str]:
    names = tuple(f"decoding_llama3.{part}" for part in parts)
    return sorted(found for found in imports(path) if any(f"{found}.".startswith(f"{n}.") for n in names))


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "__main__"], ids=name)
def test_a_file_imports_only_from_folders_below_its_own(path):
    """Components are at the bottom, the command line at the top; benchmark and inspect stand side by side."""
    assert not forbidden(path, *FOLDERS_ABOVE[folder_of(path)], "__main__")


@pytest.mark.parametrize("path", COMPONENTS, ids=name)
def test_a_component_names_its_siblings_and_not_the_package(path):
    """`from decoding_llama3 import RMSNorm` would run the public face, and with it all of inference."""
    assert "decoding_llama3" not in imports(path)


def test_no_two_files_import_each_other():
    """Neither directly nor by way of others; the late imports inside functions count too."""
    of_module = {module(path): path for path in FILES}
    arrows = {path: {of_module[m] for m in imports(path) if m in of_module} - {path} for path in FILES}
    for start in FILES:
        seen, to_do = set(), list(arrows[start])
        while to_do:
            path = to_do.pop()
            if path not in seen:
                seen.add(path)
                to_do += arrows[path]
        assert start not in seen, f"{name(start)} imports itself by way of others"


@pytest.mark.parametrize("module", ["decoding_llama3", "decoding_llama3.__main__"])
def test_import_loads_nothing_heavy(module):
    """Each of these would make the first import seconds slower, or fail where it is not installed."""
    script = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert module in loaded
    assert not loaded & {"matplotlib", "ipywidgets", "IPython", "transformers", "tokenizers", "llama_models"}
    assert not {found for found in loaded if found.startswith("decoding_llama3.lessons")}


def statements(path: Path) -> int:
    """How many statements a file has; docstrings, comments and line breaks do not count."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.stmt)]
    texts = [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return len(nodes) - len(texts)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_learner_reads_all_of_llama_3_in_one_sitting():
    paths = [PACKAGE / f"{stem}.py" for stem in STEMS]
    assert sum(map(statements, paths)) <= 270, {path.stem: statements(path) for path in paths}
    assert sum(len(lines(path)) for path in paths) <= 600, {path.stem: len(lines(path)) for path in paths}


@pytest.mark.parametrize("path", [path for path in COMPONENTS if path.stem != "tokenizer"], ids=name)
def test_a_component_fits_a_browser_window(path):
    """96 columns, so that a notebook that shows its source wraps no line, and 150 lines."""
    assert len(lines(path)) <= 150
    assert not [line for line in lines(path) if len(line) > 96]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_line_of_a_notebooks_code_wraps(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    assert not [line for line in code.splitlines() if len(line) > 96]


@pytest.mark.parametrize("path", COMPONENTS, ids=name)
def test_a_forward_fits_on_one_screen(path):
    bodies = {
        f"{node.name} in line {node.lineno}": node.end_lineno - node.body[0].lineno + 1
        for node in functions(path)
        if node.name == "forward"
    }
    assert not {forward: length for forward, length in bodies.items() if length >= 20}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_exceeds_300_lines(path):
    assert len(lines(path)) <= 300


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_that_is_shipped_patches(path):
    """Parts are exchanged by `with_parts`: a patched module would be that of every model in the process."""
    assert not {found for found in imports(path) if found.startswith(("unittest", "pytest"))}


def test_a_json_file_is_read_in_one_place():
    """Catches a second reader that lets through what the first refuses. A child process answers in JSON too."""
    children = ["benchmark/processes", "inference/tokenizers/render", "inference/tokenizers/template"]
    own = ["experiments/training/state", "lessons/working_copy"]  # files that this package has written
    readers = [path for path in FILES if re.search(r"\bjson\.loads?\(", path.read_text(encoding="utf-8"))]
    expected = [PACKAGE / f"{stem}.py" for stem in ("json_files", *children, *own)]
    assert readers == sorted(expected)


def test_a_public_name_means_one_thing():
    """A command of the command line may be called like the function it calls."""
    places = collections.defaultdict(list)
    for path in FILES:
        if folder_of(path) != "cli":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                    places[node.name].append(name(path))
    assert not {public: found for public, found in places.items() if len(found) > 1}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_function_exceeds_40_lines(path):
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path)}
    assert not {function: length for function, length in lengths.items() if length > 40}


def test_every_file_is_named_for_what_it_does():
    python = [*FILES, *(ROOT / "tests").rglob("*.py")]
    assert len(python) > len(FILES) > len(COMPONENTS) > len(STEMS)
    assert not [name(path) for path in python if path.stem in ("utils", "helpers", "common", "misc")]


@pytest.mark.parametrize("stem", ["tokenizer", *STEMS])
def test_each_component_has_its_test_file(stem):
    assert (PACKAGE / f"{stem}.py").is_file()
    assert (ROOT / "tests" / f"test_{stem}.py").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_has_its_component_test_and_figures(path):
    stem = path.stem.split("_", 1)[1].replace("intro", "tokenizer")  # Part 1 belongs to the tokenizer
    for file in (f"decoding_llama3/{stem}.py", f"tests/test_{stem}.py"):
        assert (ROOT / file).is_file(), file
    figures = f"decoding_llama3/lessons/figures/{stem}.py"
    assert (ROOT / figures).is_file(), figures
    used = rf"from decoding_llama3\.lessons\.(figures|looks) import {stem}\b"
    assert re.search(used, path.read_text(encoding="utf-8")), used


def test_data_is_small_enough_to_come_with_the_package():
    sizes = {name(path): path.stat().st_size for path in (ROOT / "data").rglob("*") if path.is_file()}
    assert 0 < sum(sizes.values()) <= 25 * 1024**2, sizes
