"""What the rehearsal of Colab rests on: the form, the list of Colab's packages, what counts as a complaint."""

import re

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from rehearsal import ROOT, choices_of, complaints, read_notebook, tomllib

from decoding_llama3.inference.checkpoint.hub_cache import HUB_NAME

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FORM = "show.real_model("


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_form_offers_tiny_smollm2_and_a_llama_to_download(path):
    (cell,) = read_notebook(path, until=FORM).cells[-1:]
    fields = choices_of(cell.source)
    assert fields.keys() == {"checkpoint", "tokenizer_elsewhere"}
    own, tiny, smollm2, *hubs = fields["checkpoint"]
    assert (own, tiny, smollm2) == ("", "tiny", "smollm2")
    assert hubs
    assert all(map(HUB_NAME.fullmatch, hubs))
    assert 'checkpoint = ""' in cell.source
    (filled,) = read_notebook(path, until=FORM, checkpoint="owner/name").cells[-1:]
    assert filled.source == cell.source.replace('checkpoint = ""', 'checkpoint = "owner/name"')


def pinned() -> dict[str, str]:
    text = (ROOT / ".ci" / "colab_packages.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def test_colab_has_nothing_too_old_for_us():
    """A lower bound above the version that Colab has would have pip exchange it there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["real"]]
    asked = {re.sub(r"[-_.]+", "-", each.name): each.specifier for each in map(Requirement, texts)}
    missing = asked.keys() - pinned().keys()
    assert missing == {"llama-models", "jaxtyping", "gguf"}
    too_old = {name for name in asked.keys() - missing if Version(pinned()[name]) not in asked[name]}
    assert too_old == set()


def test_the_rehearsal_has_the_torch_of_the_other_environments():
    (torch,) = re.findall(
        r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert pinned()["torch"] == torch


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("smollm2 is in /content already\r\n", False),
        ("\x1b[31mERROR: No matching distribution found for x\x1b[0m\r\n", True),
        ("/bin/bash: line 1: decoding-llama3: command not found\n", True),
        ("error: smollm2 cannot be kept in /content\n", True),
        ("Traceback (most recent call last):\n  ...\nOSError: no\n", True),
        (
            "ERROR: pip's dependency resolver does not ...\nipython 7.34.0 requires jedi>=0.16, which is not\n",
            False,
        ),
    ],
)
def test_a_command_that_failed_is_heard(printed, found):
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", name="stdout", text=printed)])
    assert bool(complaints(cell)) == found
