"""The two test commands, CI, and the files about the project: they agree and follow their schemas."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text("pyproject.toml"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUN = [*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["real"], *EXTRAS["train"], *EXTRAS["test"]]
JOBS = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_linters_are_in_the_extra_for_make_check_alone():
    assert requirements(EXTRAS["check"]).keys().isdisjoint(requirements(RUN))


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_test_needs_no_linter_and_make_check_runs_every_step(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    (tmp_path / ".ci").mkdir()
    for name in ("lowest_versions.py", "colab_packages.txt"):
        shutil.copy(ROOT / ".ci" / name, tmp_path / ".ci")

    def commands(target: str) -> str:
        run = subprocess.run(["make", "-n", target], cwd=tmp_path, check=True, capture_output=True, text=True)
        return run.stdout

    steps = ["ruff check", "ruff format --check", "check-jsonschema", "--nbval tests notebooks", "TYPED=1"]
    steps += ["bin/pyright", "-m 'long and not gpu'", "-m colab tests/colab", "download smollm2"]
    check = commands("check")
    assert ".venv-lowest/bin/python -m pytest" in commands("lowest")
    assert [step for step in steps if step not in check] == []
    assert [step for step in steps if step in commands("test")] == ["--nbval tests notebooks", "download smollm2"]
    assert "check]" not in commands("test")


STUBS = {
    "dpkg-query": 'case "$*" in *installed-already*) echo "install ok installed";; *) exit 1;; esac',
    "sudo": 'exec "$@"',
    "apt-get": 'echo "apt-get $*" >> "$CALLS"',
    "make": 'echo "make $*" >> "$CALLS"',
}


@pytest.mark.skipif(sys.platform != "linux", reason="Debian's package manager is asked")
@pytest.mark.parametrize(
    ("listed", "installed"),
    [
        ("# nothing\n", None),
        ("installed-already # a reason\n", None),
        ("one\n# two\ninstalled-already\nthree # why\n", "one three"),
    ],
)
def test_ci_installs_what_is_listed_and_missing_then_runs_make_check(tmp_path, listed, installed):
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "apt-packages.txt").write_text(listed)
    for name, line in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    calls = tmp_path / "calls"
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls)}
    subprocess.run([tmp_path / ".ci/run"], check=True, env=env, capture_output=True)
    apt = ["apt-get update", f"apt-get install -y --no-install-recommends {installed}"] if installed else []
    assert calls.read_text().splitlines() == [*apt, "make check"]


def test_formatting_knows_every_component():
    """One that is missing in the list would be formatted at two widths."""
    listed = tomllib.loads(text("pyproject.toml"))["tool"]["ruff"]["format"]["exclude"]
    components = (path.name for path in (ROOT / "decoding_llama3").glob("*.py") if path.name != "__main__.py")
    assert sorted(listed) == sorted(
        ["*.md", "notebooks/*.ipynb", *(f"decoding_llama3/{name}" for name in components)]
    )


def test_the_workflow_runs_the_oldest_python_and_the_oldest_torch():
    matrix = JOBS["test"]["strategy"]["matrix"]["include"]
    pythons = {row["python"] for row in matrix}
    classifiers = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    by_age = sorted(classifiers, key=lambda version: int(version.partition(".")[2]))
    assert PROJECT["requires-python"] == f">={by_age[0]}"
    assert {by_age[0], by_age[-1]} <= pythons <= classifiers
    (oldest,) = (row["torch"] for row in matrix if row["torch"] != "torch")
    (specifier,) = requirements(RUN)["torch"].specifier
    assert oldest == f"torch=={specifier.version}.0"


def test_the_workflow_gives_the_two_commands_and_runs_all_checks():
    commands = [step.get("run", "") for job in JOBS.values() for step in job["steps"]]
    assert ".ci/run" in commands
    assert any('--editable ".[lab,real,train,test]"' in command for command in commands)
    assert any(command.endswith("--nbval-lax tests notebooks") for command in commands)


@pytest.mark.long
@pytest.mark.parametrize(
    ("schema", "name", "fault"),
    [
        ("vendor.github-workflows", ".github/workflows/test.yml", ("runs-on", "run-on")),
        ("custom.github-workflows-require-timeout", ".github/workflows/test.yml", ("timeout-minutes: 60", "")),
        ("vendor.citation-file-format", "CITATION.cff", ("authors", "writers")),
    ],
)
def test_files_follow_their_schemas_and_a_fault_is_seen(tmp_path, schema, name, fault):
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml"]
    broken = tmp_path / Path(name).name
    broken.write_text(text(name).replace(*fault), encoding="utf-8")
    subprocess.run([*tool, ROOT / name], check=True, capture_output=True)
    assert subprocess.run([*tool, broken], capture_output=True).returncode == 1


@pytest.mark.long
def test_the_pre_commit_configuration_is_valid_and_fetches_nothing():
    config = ROOT / ".pre-commit-config.yaml"
    run = [sys.executable, "-m", "pre_commit", "validate-config", config]
    subprocess.run(run, check=True, capture_output=True)
    repos = yaml.safe_load(config.read_text(encoding="utf-8"))["repos"]
    assert {repo["repo"] for repo in repos} == {"local"}
    assert {hook["language"] for repo in repos for hook in repo["hooks"]} == {"system"}


def test_citation_agrees_with_pyproject():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["license"] in PROJECT["license"]


def test_changelog_has_this_version_its_date_and_a_link_for_each():
    changelog = text("CHANGELOG.md")
    headings = re.findall(r"^## (.+)$", changelog, flags=re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    assert headings[1].startswith(f"[{PROJECT['version']}]")
    for heading in headings:
        assert f"\n{heading.partition(' ')[0]}: {PROJECT['urls']['Repository']}/" in changelog
