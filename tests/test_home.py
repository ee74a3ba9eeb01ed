"""`make home`: the address of the repository, moved everywhere at once."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("home", ROOT / ".ci" / "home.py")
home = importlib.util.module_from_spec(spec)
spec.loader.exec_module(home)


def git(*arguments: str | Path, folder: Path = ROOT) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout


@pytest.fixture
def copy(tmp_path):
    """The texts of this project that name an address, but not this one, in a repository of their own."""
    for name in git("grep", "-lI", "github", "--", ":!tests/test_home.py").splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git("init", "-q", folder=tmp_path)
    git("add", "--all", folder=tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    names = git("ls-files", folder=folder).splitlines()
    return {name: (folder / name).read_bytes().decode() for name in names}


def test_every_link_badge_and_install_cell_follows(copy):
    before = contents(copy)
    home.move(copy, "https://github.com/someone/llamas.git")
    after = contents(copy)
    addresses = r"github(?:\.com)?/([\w-]+/[\w.-]+)"
    changed = [name for name in before if before[name] != after[name]]
    assert {"pyproject.toml", "README.md", "CITATION.cff", "SECURITY.md", "CHANGELOG.md"} < set(changed)
    assert sum(name.startswith("notebooks/") for name in changed) == 7
    for name in changed:
        assert after[name].replace("someone/llamas", "decoding-llama3/decoding-llama3") == before[name]
    ours = [match for text in after.values() for match in re.findall(addresses, text)]
    assert ours.count("someone/llamas") >= 7 * 2 + 5
    assert not [match for match in ours if match.startswith("decoding-llama3/")]


def test_moving_twice_and_back_is_as_before(copy):
    before = contents(copy)
    for address in ("someone/llamas", "someone/llamas", "decoding-llama3/decoding-llama3"):
        home.move(copy, f"https://github.com/{address}")
    assert contents(copy) == before


@pytest.mark.parametrize("url", ["", "someone/llamas", "https://example.org/a/b", "https://github.com/someone"])
def test_an_address_that_colab_cannot_open_changes_nothing(copy, url):
    before = contents(copy)
    with pytest.raises(ValueError, match=r"expected https://github\.com/owner/name"):
        home.move(copy, url)
    assert contents(copy) == before
