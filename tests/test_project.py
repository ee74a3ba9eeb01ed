"""The project as a newcomer meets it: notebooks, README, data."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOME = PROJECT["urls"]["Homepage"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["1_intro", "2_config", "3_norm", "4_rope", "5_attention", "6_feed_forward", "7_transformer"]


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_in_a_checkout_data_lies_beside_the_package():
    from decoding_llama3.inference.data import data_directory

    assert data_directory() == ROOT / "data"


def test_the_seven_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_run_top_to_bottom_and_is_clean(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert len(source(cell).splitlines()) <= 25, source(cell)
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", output
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_have_alt_text(path):
    pictures = [
        out for cell in cells(path, "code") for out in cell["outputs"] if "image/png" in out.get("data", {})
    ]
    assert len(pictures) >= 7  # the architecture, and six more
    for picture in pictures:
        alt = picture["metadata"]["image/png"]["alt"]
        assert len(alt.split()) >= 6
        assert alt.endswith("".join(picture["data"]["text/plain"]))


# Why a cell's output may differ from run to run, by what its code has: the only ones that nbval does not compare.
NOT_COMPARED = {
    r"show\.set_up\(\)": "names the machine's dtype",
    r"widgets\.explore\(": "a widget that has no kernel when the notebook is opened",
    r"timings?\(|_times\(|\bmoments\(": "prints times",
    r"dl\.generate\((.|\n)*(temperature=|0\.8)": "draws a text, and another processor draws another",
    r"\btrain\(|training\.initialize|look\.dice\(": "shows what was trained here, on this processor",
    r"two_vocabularies\(llama3\)": "needs Meta's sample text, which is not installed everywhere",
}


def test_only_outputs_that_must_differ_are_not_compared():
    ignored = [
        source(cell)
        for path in NOTEBOOKS
        for cell in cells(path, "code")
        if "nbval-ignore-output" in cell["metadata"].get("tags", [])
    ]
    assert [code for code in ignored if not any(re.search(reason, code) for reason in NOT_COMPARED)] == []
    assert [reason for reason in NOT_COMPARED if not any(re.search(reason, code) for code in ignored)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_whose_output_is_not_compared_still_asserts(path):
    for cell in cells(path, "code"):
        if "nbval-ignore-output" in cell["metadata"].get("tags", []) and "set_up()" not in source(cell):
            assert "assert" in source(cell), source(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_fetched_when_a_notebook_opens(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    outputs = [out.get("data", {}) for cell in cells(path, "code") for out in cell["outputs"]]
    texts = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    texts += ["".join(text) for data in outputs for kind, text in data.items() if kind.startswith("text/")]
    for text in texts:
        assert not re.search(r"!\[[^\]]*\]\(\s*<?(https?:)?//", text), text
        assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//(?![^>]*</a>)""", text), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_links_and_install_lead_home(path):
    owner_and_name = HOME.removeprefix("https://github.com/")
    head = source(cells(path, "markdown")[0])
    assert f"https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{path.name}" in head
    assert f"git+{HOME}" in source(cells(path, "code")[0])


SECTIONS = (
    "The question",
    "Build it",
    "The real thing",
    "See it",
    "Against the alternatives",
    "What it costs",
    "What the series says",
    "On the real model",
    "Exercises",
    "Recap",
)
# Of a part whose figures show tiny beside the real model: the claims come after the exercises.
SIDE_BY_SIDE = (*SECTIONS[:6], "Exercises", "What the series says", "Recap")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_part_has_the_same_sections_in_the_same_order(path):
    prose = "\n".join(map(source, cells(path, "markdown")))
    found = [name for name in re.findall(r"^## (.+)$", prose, flags=re.MULTILINE) if name in SECTIONS]
    side_by_side = "lessons.looks" in source(cells(path, "code")[0])
    assert found == list(SIDE_BY_SIDE if side_by_side else SECTIONS)
    assert "**Sources" in prose
    assert "**What this could not show" in prose
    assert "**To discuss" in prose


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_part_asks_recalls_explores_and_has_exercises(path):
    code = "\n".join(map(source, cells(path, "code")))
    assert code.count("recall.ask(") == code.count("widgets.explore(") == code.count("show.real_model(") == 1
    assert len(re.findall(r"^(?:checks\.\w+|research)\.help\(\)", code, flags=re.MULTILINE)) == 5
    assert "show.mark(prediction" in code


def minutes(path: Path) -> float:
    """What reading takes at 230 words a minute, 8 seconds a line of code, and 40 seconds a figure."""
    words = sum(len(source(cell).split()) for cell in cells(path, "markdown"))
    lines = sum(bool(line.strip()) for cell in cells(path, "code") for line in source(cell).splitlines())
    outputs = [out for cell in cells(path, "code") for out in cell["outputs"]]
    figures = sum("image/png" in out.get("data", {}) for out in outputs)
    return words / 230 + (8 * lines + 40 * figures) / 60


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stated_reading_time_is_what_reading_takes(path):
    if "lessons.looks" in source(cells(path, "code")[0]):
        stated = re.search(r"^Reading (\d+) min\b", source(cells(path, "markdown")[0]), flags=re.MULTILINE)
        assert abs(int(stated[1]) / minutes(path) - 1) < 0.1


def test_readme_names_every_part_with_files_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"](notebooks/{name}.ipynb)" in readme
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_data_readme_gives_the_digest_of_every_file():
    """A file changed without its record, or recorded without being there, is seen."""
    listed = dict(
        re.findall(
            r"\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|", (ROOT / "data/README.md").read_text(encoding="utf-8")
        )
    )
    files = [path for path in (ROOT / "data").rglob("*") if path.is_file() and path.name != "README.md"]
    digests = {
        str(path.relative_to(ROOT / "data")): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert listed == digests


def test_nothing_sanitises_outputs():
    """Strict comparison: no pattern may swallow a number before outputs are compared."""
    assert "sanitize" not in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "sanitize" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
