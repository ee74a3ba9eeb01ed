"""The register of claims: each is settled by a cell that computes, and no cell settles what is not claimed."""

import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

with (ROOT / "data" / "claims.csv").open(encoding="utf-8", newline="") as file:
    CLAIMS = list(csv.DictReader(file))


def settled() -> dict[str, list[str]]:
    """Tag: the sources of the code cells that carry it."""
    found = {}
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for tag in cell["metadata"].get("tags", []):
                if tag.startswith("claim-"):
                    assert cell["cell_type"] == "code", tag
                    found.setdefault(tag, []).append("".join(cell["source"]))
    return found


def test_claims_are_numbered_by_part_without_gaps():
    by_part = {}
    for claim in CLAIMS:
        part, number = claim["id"].split(".")
        assert part == claim["part"]
        by_part.setdefault(int(part), []).append(int(number))
    assert list(by_part) == [1, 2, 3, 4, 5, 6, 7]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_part.values())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_a_claim_has_a_verdict_and_a_cell_that_computes(claim):
    assert claim["verdict"] in ("right", "imprecise", "wrong")
    assert claim["cell"] == f"claim-{claim['id']}"
    cells = settled()[claim["cell"]]
    assert any(re.search(r"\bassert\b|\.assert_close\(", source) for source in cells)


def test_no_cell_settles_a_claim_that_is_not_in_the_register():
    assert settled().keys() == {claim["cell"] for claim in CLAIMS}
