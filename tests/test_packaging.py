"""Dependencies and their bounds, the wheel that is installed from them, and its command."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
# What is imported under another name than that of its package, or comes with a package that needs it.
COMES_WITH = {
    "IPython": "ipywidgets",
    "PIL": "pillow",
    "cycler": "matplotlib",
    "regex": "tiktoken",
    "ipykernel": "jupyterlab",
    "nbclient": "nbval",
    "nbformat": "nbval",
    "yaml": "pyyaml",
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYPROJECT = tomllib.loads(text("pyproject.toml"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUN_EXTRAS = ("lab", "real", "train", "test")
RUN = list(dict.fromkeys([*PROJECT["dependencies"], *(line for extra in RUN_EXTRAS for line in EXTRAS[extra])]))
LINKS = re.compile(r"\]\(([^)\s]+)|\s(?:src|href)=\"([^\"]+)")


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def links(markdown: str) -> list[str]:
    """Where the links and pictures of a page lead, but for those within the page."""
    found = (one or other for one, other in LINKS.findall(markdown))
    return [link for link in found if not link.startswith("#")]


@pytest.fixture(scope="module")
def lowest():
    spec = importlib.util.spec_from_file_location("lowest_versions", ROOT / ".ci/lowest_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_conda_environment_agrees_with_pyproject():
    environment = yaml.safe_load(text("environment.yml"))
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert [line for line in pip if not line.startswith("--")] == RUN


def test_every_import_is_a_declared_dependency():
    declared = {canonicalize_name(name) for name in requirements(RUN)}
    missing = set()
    for path in [*(ROOT / "decoding_llama3").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        own = {other.stem for other in (ROOT / "tests").rglob("*")} | {"decoding_llama3", "google"}  # of Colab
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                if canonicalize_name(COMES_WITH.get(name, name)) not in declared:
                    missing.add((name, str(path.relative_to(ROOT))))
    assert not missing, "import only what pyproject.toml declares"


def test_lowest_versions_pin_each_lower_bound_but_that_of_torch(lowest):
    pyproject = """
        [project]
        dependencies = ["torch>=1.0", "one>=1.2,<3"]
        [project.optional-dependencies]
        lab = []
        real = ["two[extra]>=0.1"]
        train = ["two[extra]>=0.1"]
        test = ["three>=4; python_version < '3.11'"]
        check = ["linter>=9"]
    """
    found = lowest.lowest_versions(pyproject, "# a comment\none==9\ntorch==2.0\n")
    assert found == ["torch==2.0", "one==1.2", "two==0.1", 'three==4; python_version < "3.11"']


@pytest.mark.parametrize("requirement", ["one", "one<3", "one==1.0", "one>=1,>=2"])
def test_a_dependency_without_one_lower_bound_is_refused(lowest, requirement):
    with pytest.raises(ValueError, match=re.escape("give it one lower bound, name>=version")):
        lowest.lower_bound(Requirement(requirement))


def test_every_dependency_has_a_lower_bound_and_a_pin_that_meets_it(lowest):
    declared = requirements([*RUN, *EXTRAS["check"]])
    pins = requirements([line for line in text("constraints.txt").splitlines() if not line.startswith("#")])
    assert pins.keys() == declared.keys() - {"tomli"}  # for Python 3.10 alone
    for name, pin in pins.items():
        (version,) = (specifier.version for specifier in pin.specifier)
        lowest.lower_bound(declared[name])
        assert version in declared[name].specifier, name


def test_the_wheel_is_built_with_versions_that_tests_have():
    assert set(PYPROJECT["build-system"]["requires"]) <= set(EXTRAS["test"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built with the tools that are installed, so that `make lowest` builds it with the lowest ones."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    zipfile.ZipFile(path).extractall(folder / "site")
    return folder / "site"


def test_an_installed_wheel_has_its_data(wheel):
    """Unpacked elsewhere and used from there: the notebooks' model and tokenizer come along."""
    script = (
        "import sys, torch; sys.path.insert(0, 'site'); import decoding_llama3 as dl;"
        "from decoding_llama3.inference.data import data_directory; print(dl.__file__, data_directory());"
        "dl.load_model('tiny', dtype=torch.float32); dl.load_tokenizer('tiny')"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=wheel.parent, check=True, capture_output=True, text=True)
    package, data = run.stdout.split()
    assert Path(data) == wheel / "decoding_llama3" / "data"
    assert Path(package).is_relative_to(wheel)


def test_type_checkers_find_types_in_the_wheel(wheel):
    assert (wheel / "decoding_llama3/py.typed").exists()


def test_the_readme_on_pypi_leads_to_files_that_exist(wheel):
    """PyPI has no files beside the README, so relative links are dead there."""
    (found,) = importlib.metadata.distributions(path=[str(wheel)])
    readme, home = found.metadata.get_payload(), PROJECT["urls"]["Homepage"]
    homes = {f"{home}/blob/main/", home.replace("github.com", "raw.githubusercontent.com") + "/main/"}
    shown, written = links(readme), links(text("README.md"))
    assert len(shown) == len(written) > 20
    for ours, theirs in zip(written, shown, strict=True):
        assert theirs in {ours, *(f"{home}{ours}" for home in homes)}
        assert theirs.startswith(("https://", "mailto:"))
        assert ours.startswith(("https://", "mailto:")) or (ROOT / ours.partition("#")[0]).exists()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)|\ssrc=\"([^\"]+)", readme)
    assert all("".join(picture).startswith("https://raw.githubusercontent.com/") for picture in pictures)


def test_the_command_and_addresses_are_in_the_wheel(wheel):
    (found,) = importlib.metadata.distributions(path=[str(wheel)])
    assert [(point.name, point.value) for point in found.entry_points] == [*PROJECT["scripts"].items()]
    assert all(line.partition(", ")[2].startswith("https://") for line in found.metadata.get_all("Project-URL"))
    assert found.metadata["Author"] == PROJECT["authors"][0]["name"]


def test_the_command_leads_to_a_function():
    ((name, target),) = PROJECT["scripts"].items()
    assert callable(importlib.metadata.EntryPoint(name, target, "console_scripts").load())


def test_help_is_shown_with_this_version_of_typer_and_click():
    """typer 0.15 fails here with click 8.2 or newer, and only when it prints an argument."""
    help_of_generate = [sys.executable, "-m", "decoding_llama3", "generate", "--help"]
    run = subprocess.run(help_of_generate, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "PROMPT" in run.stdout.upper()
