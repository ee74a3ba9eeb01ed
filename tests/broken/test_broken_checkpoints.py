"""The table of broken checkpoints is what loading them gives: a sentence each, in bounded memory and time."""

import json
import os
import re
import subprocess
import sys

import pytest

if not hasattr(os, "fork") or not os.path.isdir("/proc/self"):
    pytest.skip("the children are bounded as Linux does it", allow_module_level=True)

import table

ROW = re.compile(r"\| (.+?) \| (.+?) \| (.+) \|")


@pytest.fixture(scope="module")
def found():
    """What we say of each case, by layout and name.

    From an interpreter of its own: a child forked after other tests have computed would wait for torch's threads.
    """
    command = [sys.executable, table.__file__, "--ours"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return {(layout, name): said for layout, name, said in map(json.loads, lines)}


def committed() -> dict[tuple[str, str], str]:
    """Our column of the page."""
    layout, rows = "", {}
    for line in table.TABLE.read_text(encoding="utf-8").splitlines():
        layout = line.removeprefix("## ") if line.startswith("## ") else layout
        cells = re.split(r"(?<!\\) ?\| ?", line)
        if len(cells) == 5 and not line.startswith(("|---", "| case |")):
            rows[layout, cells[1]] = cells[3]
    return rows


@pytest.mark.long
def test_the_page_holds_what_we_say_today(found):
    """`python tests/broken/table.py` writes it anew."""
    expected = {key: re.split(r"(?<!\\) ?\| ?", table.line("", "", said))[3] for key, said in found.items()}
    assert committed() == expected


@pytest.mark.long
def test_every_case_ends_in_a_helpful_sentence_or_loads(found):
    assert len(found) > 150
    for key, said in found.items():
        assert "(a fault)" not in said, (key, said)
        assert not said.startswith(("crash", "no end")), (key, said)
        assert said == "loads" or (40 < len(said) < 500 and said.isprintable()), (key, said)


@pytest.mark.long
def test_nothing_loads_but_what_is_known_to(found):
    """Catches a checkpoint that is half believed."""
    loads = {name for (_, name), said in found.items() if said == "loads"}
    assert loads == {
        "nothing broken",
        "config.json with a byte order mark",
        "config.json with CRLF line ends",
        "one matrix in float64",
        "one matrix in bfloat16",
        "a shard that links to a good file elsewhere",
        "a total_size that is wrong",
        "params.json with a byte order mark",
        "two parts exchanged",  # nothing in them says which is which
    }
