"""Write the address of the repository on GitHub into every link, badge and install cell.

Usage: python .ci/home.py https://github.com/owner/name
What is replaced is the address that pyproject.toml gives as the project's Homepage.
"""

import re
import subprocess
import sys
from pathlib import Path

ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}?)(?:\.git)?/?")
HOMEPAGE = re.compile(r'^Homepage = "https://github\.com/([^"]+)"$', flags=re.MULTILINE)


def move(root: Path, url: str) -> list[Path]:
    """Write the new address into each file that git knows; the files that changed."""
    new = ADDRESS.fullmatch(url)
    if new is None:
        raise ValueError(f"the address is {url!r}, expected https://github.com/owner/name")
    (old,) = HOMEPAGE.findall((root / "pyproject.toml").read_text(encoding="utf-8"))
    # github.com/... in links and installs, colab.research.google.com/github/... in what opens a notebook
    address = re.compile(rf"(github(?:\.com)?/){re.escape(old)}(?![\w-])")
    changed = []
    for path in _texts(root):
        text = path.read_bytes().decode()  # bytes: line ends stay what they are
        moved = address.sub(lambda match: match[1] + new[1], text)
        if moved != text:
            path.write_bytes(moved.encode())
            changed.append(path)
    return changed


def _texts(root: Path) -> list[Path]:
    """The text files that git knows, pyproject.toml last: after a run cut short, running again goes on."""
    names = subprocess.run(["git", "grep", "-lI", "."], cwd=root, check=True, capture_output=True, text=True)
    paths = [root / name for name in names.stdout.splitlines()]
    return sorted(paths, key=lambda path: path.name == "pyproject.toml")


if __name__ == "__main__":
    try:
        for path in move(Path(__file__).parents[1], sys.argv[1] if len(sys.argv) == 2 else ""):
            print(path.name)
    except ValueError as error:
        sys.exit(str(error))
