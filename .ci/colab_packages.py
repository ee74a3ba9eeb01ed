"""Prints the packages of Google Colab that the notebooks and their kernel use there, for `make colab`.

Usage: python .ci/colab_packages.py pip-freeze.gpu.txt COMMIT DATE > .ci/colab_packages.txt
The file is Colab's own list, from github.com/googlecolab/backend-info. Which of its packages are used is asked of
pip, which needs a network and takes half a minute.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASKED = (".[real]", "ipykernel", "ipywidgets", "transformers", "pip")
OURS = ("torch", "triton", "setuptools")  # torch and what it asks for in another version than Colab's has
HEAD = """\
# What Google Colab has installed before a notebook asks for anything: of its list, what we need and a kernel.
# From github.com/googlecolab/backend-info, pip-freeze.gpu.txt of {date},
# commit {commit}; made by .ci/colab_packages.py.
# Colab had Python 3.13 then, and torch 2.11.0+cu128. Here torch is the version of constraints.txt, because another
# build of it is gigabytes, and setuptools, which Colab has at 75.2.0, is one that this torch takes.
"""


def pins(freeze: str) -> dict[str, str]:
    """The lines `name==version` of a list of pip's, by the name as it is compared."""
    lines = re.findall(r"^[A-Za-z0-9._-]+==[^\s+]+$", freeze, flags=re.MULTILINE)
    return {comparable(line.partition("==")[0]): line for line in lines}


def comparable(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def used(pinned: dict[str, str], torch: str) -> set[str]:
    """Names of the packages that pip would install with these versions."""
    others = [line for name, line in pinned.items() if name not in OURS]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join([torch, *others]))
        file.flush()
        run = subprocess.run([*command, "-c", file.name, *ASKED], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return {comparable(item["metadata"]["name"]) for item in json.loads(run.stdout)["install"]}


if __name__ == "__main__":
    pinned = pins(Path(sys.argv[1]).read_text("utf-8"))
    (torch,) = re.findall(r"^torch==\S+$", (ROOT / "constraints.txt").read_text("utf-8"), flags=re.MULTILINE)
    # CUDA comes with a torch that needs it, and none is pretended.
    names = {name for name in used(pinned, torch) & pinned.keys() if not name.startswith(("nvidia-", "cuda-"))}
    print(HEAD.format(commit=sys.argv[2], date=sys.argv[3]), end="")
    print(torch, *(pinned[name] for name in sorted(names.difference(OURS))), sep="\n")
