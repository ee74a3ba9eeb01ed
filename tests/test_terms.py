"""Words before use: each term has one cell that teaches it, and no earlier part needs it to be read."""

import ast
import builtins
import dataclasses
import functools
import json
import re
from pathlib import Path

import pytest
import torch

import decoding_llama3 as dl

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PART = {  # where each term is taught
    "token": 1,
    "logit": 1,
    "softmax": 1,
    "loss": 1,
    "embedding": 2,
    "residual-stream": 3,
    "norm": 3,
    "gradient": 3,
    "query": 4,
    "key": 4,
    "value": 5,
    "head": 5,
    "gate": 6,
}
# What counts as a use of the term, in a formula or as a word of a name: `n_keys` has the word `keys`.
WORDS = {term: {term, f"{term}s"} for term in PART} | {
    "residual-stream": {"residual"},
    "query": {"query", "queries"},
    "loss": {"loss", "losses"},
}
SENTENCE = re.compile(r"[.?!:](?=[)*_\"']*(?:\s|$))")
# Lines for which a reader need not know what is behind them: a picture, a table, a check.
PLUMBING = {
    "look",
    "lab",
    "show",
    "claims",
    "checks",
    "museum",
    "own",
    "recall",
    "research",
    "rosetta",
    "oracles",
    "widgets",
}


@functools.cache
def cells(part: int) -> list[dict]:
    """The cells of a notebook, each with the `## ` section that it stands in."""
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(f"{part}_"))
    section, found = "", []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            section = [section, *re.findall(r"^## (.+)$", source(cell), flags=re.MULTILINE)][-1]
        found.append(cell | {"section": section})
    return found


def source(cell: dict) -> str:
    return "".join(cell["source"])


def teaching(term: str) -> list[tuple[int, int]]:
    """Part and place of each cell with the tag of a term."""
    tag = f"teaches-{term}"
    return [
        (part, i)
        for part in range(1, len(NOTEBOOKS) + 1)
        for i, cell in enumerate(cells(part))
        if tag in cell["metadata"].get("tags", [])
    ]


def formulas(text: str) -> list[str]:
    """What stands between dollars, without code, its output, and the words that label a brace."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\\\$|_\{\\text\{[^}]*\}\}", " ", text, flags=re.DOTALL)
    return [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, flags=re.DOTALL)]


@functools.cache
def exempt() -> set[str]:
    """Fields of a configuration and names of weights and of the parts that hold them."""
    fields = {field.name for field in dataclasses.fields(dl.LlamaConfig)}
    with torch.device("meta"):
        model = dl.Transformer(dl.LlamaConfig.from_preset("tiny"))
    weights = {name for path, _ in model.named_parameters() for name in path.split(".")}
    derived = {name for name in dir(dl.LlamaConfig) if not name.startswith("_")}
    return fields | weights | derived | {"n_heads", "n_kv_heads"}


def names_in(code: str) -> set[str]:
    """The names that a cell makes or reads; of attributes those of the package, not torch's."""
    code = re.sub(r"^\s*[%!].*$", "pass", code, flags=re.MULTILINE)
    tree, found = ast.parse(code), set()
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("decoding_llama3")
        for alias in node.names
    } | {"dl", "probe", "heads"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ours - PLUMBING
        ):
            found.add(node.attr)
    return found


def words_of(name: str) -> set[str]:
    """The words of a name: `n_kvHeads` has n, kv and heads."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower().split())


def uses(term: str, part: int) -> list[str]:
    """Where a part needs the term: in a formula, or in a name in its code. What goes further is not needed."""
    allowed, found = exempt(), []
    for i, cell in enumerate(cells(part)):
        if cell["section"] == "Going further":
            continue
        if cell["cell_type"] == "markdown":
            needed = [f for f in formulas(source(cell)) if set(re.findall(r"[a-z]+", f.lower())) & WORDS[term]]
        else:
            names = names_in(source(cell)) - allowed - set(dir(builtins))
            needed = [name for name in names if words_of(name) & WORDS[term]]
        found += [f"Part {part}, cell {i}: {name}" for name in sorted(needed)]
    return found


@pytest.mark.parametrize("term", PART)
def test_a_term_is_taught_once_and_in_its_part(term):
    assert [part for part, _ in teaching(term)] == [PART[term]]


@pytest.mark.parametrize("term", PART)
def test_the_cell_that_teaches_draws_and_stands_between_prose_and_a_question(term):
    ((part, i),) = teaching(term)
    before, cell, after = cells(part)[i - 1], cells(part)[i], cells(part)[i + 1]
    assert any("image/png" in output.get("data", {}) for output in cell["outputs"])
    assert before["cell_type"] == after["cell_type"] == "markdown"
    assert len(SENTENCE.findall(source(before))) >= 4
    assert "?" in source(after)


@pytest.mark.parametrize("term", PART)
def test_no_part_needs_a_term_before_it_is_taught(term):
    assert [use for part in range(1, PART[term]) for use in uses(term, part)] == []


def glossary() -> dict[str, tuple[str, str, str]]:
    """Word: the part, section and file in the last column of the glossary."""
    (table,) = (
        source(cell)
        for cell in cells(1)
        if cell["cell_type"] == "markdown" and "| word | in one line | taught in |" in source(cell)
    )
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[Part (\d), ([^\]]+)\]\(([^)]+)\) \|$", table, flags=re.MULTILINE)
    return {word: (part, section, file) for word, part, section, file in rows}


def test_the_glossary_has_every_word_and_leads_to_files_that_exist():
    found = glossary()
    assert {term.replace("-", " ") for term in PART} <= found.keys()
    for part, _, file in found.values():
        assert (ROOT / "notebooks" / file).is_file()
        assert file.startswith(f"{part}_")


@pytest.mark.parametrize("term", PART)
def test_the_glossary_names_the_section_in_which_a_term_is_taught(term):
    part, section, _ = glossary()[term.replace("-", " ")]
    ((where, i),) = teaching(term)
    assert (int(part), section) == (where, cells(where)[i]["section"])


def test_formulas_and_names_are_found():
    text = "costs `$x$`, and $\\text{query} \\cdot k$ or\n\n$$\\frac{a}{\\text{head}}$$ for 5 \\$ or 6 \\$"
    assert formulas(text) == ["\\text{query} \\cdot k", "\\frac{a}{\\text{head}}"]
    code = "%pip install x\nq_heads = max(d.values(), key=len)\ndef f(key, *, n): return probe.queries(n).norm()"
    assert names_in(code) == {"q_heads", "max", "d", "len", "f", "key", "n", "probe", "queries"}
    assert words_of("n_kvHeads") == {"n", "kv", "heads"}
    assert words_of("RMSNorm") == {"rms", "norm"}
    assert not {"wq", "n_heads", "attention_norm", "w_gate"} - exempt()
