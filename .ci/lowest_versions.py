"""Prints pip constraints that pin each dependency in pyproject.toml to its lower bound, for `make lowest`.

torch alone keeps the pin of constraints.txt, because another build of it is gigabytes. The oldest torch has a job
of its own in .github/workflows/test.yml.
"""

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
EXTRAS = ("lab", "real", "train", "test")


def lower_bound(requirement: Requirement) -> str:
    """The version after `>=`. ValueError where there is none, or more than one."""
    bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"pyproject.toml asks for {str(requirement)!r}: give it one lower bound, name>=version")
    return bounds[0]


def lowest_versions(pyproject: str, constraints: str) -> list[str]:
    """A line per dependency: `name==lower bound`, with its marker; torch as `constraints` has it."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    lines = [line for line in constraints.splitlines() if line.startswith("torch==")]
    texts = [*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])]
    for text in dict.fromkeys(texts):  # one package may stand in two extras
        requirement = Requirement(text)
        if requirement.name != "torch":
            marker = f"; {requirement.marker}" if requirement.marker else ""
            lines.append(f"{requirement.name}=={lower_bound(requirement)}{marker}")
    return lines


if __name__ == "__main__":
    pyproject, constraints = ((ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "constraints.txt"))
    print(*lowest_versions(pyproject, constraints), sep="\n")
