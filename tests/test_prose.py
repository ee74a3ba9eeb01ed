"""A lint for this project's own tics of style, over notebooks, README, docs, and the words in figures.

Each tic has the right word, a sentence in which it must be found, and one in which it must not.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "data/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LESSONS = ROOT / "decoding_llama3" / "lessons"
DRAWN = sorted([*(LESSONS / "figures").rglob("*.py"), *(LESSONS / "looks").rglob("*.py")])

COUNTED = (
    r"(characters?|bits?|nats?|bytes?|tokens?|seconds?|milliseconds|[kKMGT]i?B|[MGT]?FLOPs?|[GT]FLOP/s|loss(es)?"
    r"|words|parameters|operations|steps|megabytes|weights|queries|joules?|hours)"
)
WHOLE = r"(token|byte|character|second|minute|hour|user|card|GPU|step|block|layer|seed|row|word|parameter|weight)"


@dataclass(frozen=True)
class Tic:
    """`pattern` in prose, and what to write in its place; a sentence that has it, and one that has not."""

    pattern: str
    remedy: str
    wrong: str
    right: str


TICS = {
    "a for per": Tic(
        rf"\b{COUNTED} an? {WHOLE}\b",
        "write 'per': nats per token",
        "It loses 3.2 nats a token.",
        "It loses 3.2 nats per token, and reads bytes as a word is read.",
    ),
    "behind for after": Tic(  # of places in a text or in a model; behind a screen or in a race is English
        r"\b(tokens?|words?|texts?|copy|copies|norms?|stands?|comes?|directly|right) behind\b"
        r"|\bbehind (it|the (last|first|previous|next|same|tokens?|words?|texts?|norms?|sums?)|each|'|\")",
        "'after' for what follows, 'before' for what precedes",
        "A token behind the last one is the next.",
        "The token after it is the next, ReLU is behind in all five races, and the norms stand before the parts.",
    ),
    "last time": Tic(
        r"\blast time\b",
        "'previous occurrence'",
        "It looks at the last time this word stood.",
        "It looks at the previous occurrence of this word, the last one in time.",
    ),
    "guess": Tic(  # of a model; a reader may guess
        r"\b(models?|tiny|tokens?|heads?|text|it)( has to| have to| must| can)? guess(es|ed)?\b"
        r"|\b(its|tiny's|model's|three|next) guess(es)?\b",
        "'predict', 'prediction'",
        "The model guesses the next token.",
        "The model predicts the next token, and a name for a feature is a guess.",
    ),
    "exclamation mark": Tic(
        r"(?<=[\w)])!(?=\s|$)",
        "say it without",
        "All of them are found!",
        "There are `4!` orders, and a != b.",
    ),
    "dash": Tic(
        "—|\\w – \\w", "a comma, a colon, or two sentences", "One head — the third — copies.", "Parts 4–6."
    ),
    "houses": Tic(
        r"\b(two|three|other|their) houses\b",
        "'implementations'",
        "Names in three houses differ.",
        "The woman had a house of her own.",
    ),
    "matter": Tic(
        r"\b(is|are) the matter of\b",
        "'the subject of'",
        "The cache is the matter of Part 5.",
        "The cache is the subject of Part 5.",
    ),
    "interface": Tic(r"\bby its interface\b", "'API'", "Gemini Pro (by its interface)", "Gemini Pro (API)"),
    "author's note": Tic(
        r"\b[Ll]ooks? (is|are) (a )?functions?\b|\btaken at a real checkpoint\b",
        "a note of the author to himself: leave it out",
        "Each such look is a function of a model.",
        "Look at the function of the gate.",
    ),
    "verdict in brackets": Tic(
        r"\((right|wrong|imprecise|nearly right)[:;,)]",
        "one table of claims; in prose a sentence",
        "Queries meet keys (right, step 1).",
        "It is right (see step 1), and the left is wrong.",
    ),
    "verdict after a number": Tic(
        r"\d: (none|higher|lower)\b",
        "a sentence; 'nothing is shown' beside its interval",
        "MHA -0.011: none",
        "None of the five is higher.",
    ),
    "protocol": Tic(
        r"\b[Aa]nd settled (on the way|above)\b",
        "one table of claims",
        "And settled on the way: keys are rotated.",
        "The claim was settled in step 2.",
    ),
    "vouch": Tic(
        r"\bseeds would vouch\b|\bas far as (five )?seeds can tell\b",
        "give the interval that the seeds leave open",
        "Nothing that five seeds would vouch for.",
        "Five seeds leave open -0.06 to +0.06.",
    ),
    "it": Tic(
        r"\d ?% of it( all)?\b",
        "name what the share is of",
        "One pair holds 15% of it all.",
        "One pair holds 15% of the attention, and of items 3.",
    ),
    "have in mind": Tic(
        r"\b(model|tiny|it|token) has in mind\b",
        "say what is meant: the last vector of the stream",
        "The row is compared with what the model has in mind.",
        "What the author has in mind.",
    ),
    "invented people": Tic(
        r"\b[Rr]eaders? (found|told|said|report(ed)?)\b|\b[Uu]sers? told\b",
        "nobody was asked: leave it out",
        "Readers found this hard.",
        "A reader may find this hard.",
    ),
    "this machine": Tic(
        r"(?<![\w.])/(home|root|Users)/", "no path of one machine", "see /home/ann/x", "see docs/home/x"
    ),
}


def prose(markdown: str) -> str:
    """Text without code, formulas and addresses."""
    text = re.sub(r"```.*?```|``.*?``|`[^`\n]*`", "`x`", markdown, flags=re.DOTALL)
    text = re.sub(r"\$\$.+?\$\$|\$[^$\n]+\$", "`x`", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)|https?://\S+|!\[", "]", text)


def faults(text: str) -> list[str]:
    """Each tic in a text: its name, the words around it and what to write."""
    text = re.sub(r"\s+", " ", prose(text))
    return [
        f"{name}: '...{text[max(0, found.start() - 30) : found.end() + 20]}...': {tic.remedy}"
        for name, tic in TICS.items()
        for found in re.finditer(tic.pattern, text)
    ]


def texts_of_notebook(path: Path) -> list[tuple[str, str]]:
    """Markdown cells, and what figures say in words, each with its place."""
    found = []
    for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "markdown":
            found.append((f"cell {i}", "".join(cell["source"])))
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            found.append((f"figure of cell {i}", alt))
    return found


def texts_of_module(path: Path) -> list[tuple[str, str]]:
    """Docstrings and strings of a module, each with its line; of an f-string the parts between the braces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (f"line {node.lineno}", node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("name", TICS)
def test_a_tic_is_found_and_what_is_right_is_not(name):
    assert [fault for fault in faults(TICS[name].wrong) if fault.startswith(f"{name}:")]
    assert faults(TICS[name].right) == []


def test_code_formulas_and_addresses_are_no_prose():
    assert (
        faults("`tokens a second` and $a!$ and\n```\nbehind\n```\n[here](https://x.org/behind) ![alt](behind.png)")
        == []
    )
    assert len(faults("`x` tokens\na second, and behind it")) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_none_of_our_tics(path):
    assert [f"{where}: {fault}" for where, text in texts_of_notebook(path) for fault in faults(text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_have_none_of_our_tics(path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: str(path.relative_to(LESSONS)))
def test_titles_and_docstrings_of_figures_have_none_of_our_tics(path):
    assert [f"{where}: {fault}" for where, text in texts_of_module(path) for fault in faults(text)] == []
