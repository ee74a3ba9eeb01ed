"""A stand-in for a fresh machine of Google Colab: its packages, this tree under the project's address, a kernel.

The packages lie in .venv-colab, which `make colab` sets up. What a cell installs stays there for the next
notebook, as it would not on Colab, and is removed when a rehearsal begins.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import nbformat
from nbclient import NotebookClient

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PLACE = ROOT / ".venv-colab"
PYTHON = PLACE / "bin" / "python"
HOME = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Homepage"]
MEMORY = 12 * 10**9
CARD = int(14.56 * 2**30)  # of a T4, what is free
# What would lead to this tree, to somebody's models or to somebody's token otherwise than Colab does.
LEFT_OUT = (
    "PYTHON",
    "IPYTHON",
    "JUPYTER",
    "DECODING_LLAMA3_CHECKPOINT",
    "HF_",
    "HUGGING_FACE",
    "TRANSFORMERS_",
    "MPL",
)
FORM = re.compile(
    r'^(?P<name>\w+) = (?P<value>"[^"]*")(?P<param>  # @param (?P<choices>\[.*?\])?.*)$', re.MULTILINE
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COMPLAINT = re.compile(r"^(?:.*(?:ERROR|[Ee]rror:|not found).*|Traceback.*)$", re.MULTILINE)
USUAL = ("dependency resolver", "jedi")  # Colab's ipython asks for jedi and has none; `conflicts` has the others


class Colab:
    """The machine. Its `folder` holds the repository under the project's address, and what kernels write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = (PLACE / "packages.txt").read_text(encoding="utf-8").splitlines()
        self.commit = self._commit_this_tree()
        self._write_kernel()
        self.clean()
        self.conflicts_at_first = self.conflicts()

    def clean(self) -> None:
        """Remove what was installed since .venv-colab was set up, and give back what was changed."""
        if extra := sorted(set(map(_name, self.freeze())) - set(map(_name, self.packages))):
            self.pip("uninstall", "--yes", *extra)
        if self.changed():
            self.pip("install", "--no-deps", "--requirement", str(ROOT / ".ci" / "colab_packages.txt"))
        if self.changed():
            raise ValueError(f"{PLACE} is not as it was set up, remove it: {self.changed()}")

    def pip(self, *arguments: str) -> str:
        command = [PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, env=self.environment())
        return run.stdout

    def freeze(self) -> list[str]:
        return self.pip("freeze", "--all").splitlines()

    def conflicts(self) -> list[str]:
        """What pip finds of packages that are missing, or in a version that another does not take."""
        return self.pip("check").splitlines()

    def changed(self) -> list[str]:
        """The packages that were there at first, and are no longer so."""
        return sorted(set(self.packages) - set(self.freeze()))

    def environment(self, **settings: str) -> dict[str, str]:
        """Of a process on the machine. What git asks of the project's address goes to the repository here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        redirected = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.repository.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": HOME,
        }
        # No other environment's command may stand in for one that was not installed.
        path = (place for place in os.get_exec_path() if not Path(place, "decoding-llama3").exists())
        own = {
            "PATH": os.pathsep.join([str(PYTHON.parent), *path]),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "HF_HOME": str(self.folder / "huggingface"),
            "OLLAMA_MODELS": str(self.folder / "ollama"),
            "COLAB_MEMORY": str(MEMORY),
        }
        return kept | redirected | own | settings

    def run(self, notebook: nbformat.NotebookNode, folder: Path, **settings: str) -> nbformat.NotebookNode:
        """Run all cells in an empty folder; the first that fails ends it with its source and its error."""
        assert list(folder.iterdir()) == []
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=300, kernel_name="colab", resources=resources)
        client.widget_registry.clear()  # answering an output widget it may miss the kernel's reply for ever
        before, os.environ["JUPYTER_PATH"] = os.environ.get("JUPYTER_PATH"), str(self.folder)
        try:
            return client.execute(env=self.environment(**settings))
        finally:
            os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(JUPYTER_PATH=before)

    @property
    def repository(self) -> Path:
        return self.folder / "repository.git"

    def _commit_this_tree(self) -> str:
        """Everything that git does not ignore, as it lies here, in a repository of its own."""
        author = ["-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost"]
        git = ["git", f"--git-dir={self.repository}", f"--work-tree={ROOT}", *author]
        subprocess.run([*git, "init", "--quiet"], check=True)
        with (self.repository / "info" / "exclude").open("a", encoding="utf-8") as exclude:
            exclude.write(".venv*\n")  # a link is no folder, which is all that .gitignore names
        subprocess.run([*git, "add", "--all", "."], cwd=ROOT, check=True)
        subprocess.run([*git, "commit", "--quiet", "--no-verify", "--message=this tree"], check=True)
        run = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        return run.stdout.strip()

    def _write_kernel(self) -> None:
        argv = [str(PYTHON), str(HERE / "kernel.py"), "-f", "{connection_file}"]
        place = self.folder / "kernels" / "colab"
        place.mkdir(parents=True)
        spec = {"argv": argv, "display_name": "as on Colab", "language": "python"}
        (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


def read_notebook(path: Path, until: str = "", **form: str) -> nbformat.NotebookNode:
    """The code of a notebook, with `until` only up to the cell that has this text; its form filled in."""
    notebook = nbformat.read(path, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if until:
        (last,) = (i for i, cell in enumerate(notebook.cells) if until in cell.source)
        notebook.cells = notebook.cells[: last + 1]
    for name, value in form.items():
        (cell,) = (cell for cell in notebook.cells if name in choices_of(cell.source))
        cell.source = FORM.sub(
            lambda field, name=name, value=value: (
                f"{name} = {json.dumps(value)}{field['param']}" if field["name"] == name else field[0]
            ),
            cell.source,
        )
    return notebook


def choices_of(source: str) -> dict[str, list[str]]:
    """The fields of Colab's form in a cell, with the values that each offers."""
    return {field["name"]: json.loads(field["choices"] or "[]") for field in FORM.finditer(source)}


def insert_before(notebook: nbformat.NotebookNode, text: str, source: str) -> None:
    """A cell of the rehearsal's own before the last one with this text; at the end, where none is given."""
    places = [i for i, cell in enumerate(notebook.cells) if text and text in cell.source]
    cell = nbformat.v4.new_code_cell(source, id=uuid.uuid4().hex[:8])
    notebook.cells.insert(places[-1] if places else len(notebook.cells), cell)


def text_of(cell: nbformat.NotebookNode, stream: str = "") -> str:
    """What a cell printed, on one stream or on both."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and stream in out.name)


def complaints(cell: nbformat.NotebookNode) -> list[str]:
    """What the commands of a cell complained of: an exit code does not end a cell."""
    lines = COMPLAINT.findall(COLOUR.sub("", text_of(cell)))
    return [line for line in lines if not any(word in line for word in USUAL)]


def _name(line: str) -> str:
    """Of a package in a line of `pip freeze`."""
    return re.split(r"==| @ ", line)[0]
