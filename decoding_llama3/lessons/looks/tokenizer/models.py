"""Part 1 - what is shown of what lists and models have learned of tokens."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import tokenizer_models as figures
from decoding_llama3.lessons.looks.tokenizer.lists import (
    CODE,
    KINDS,
    NUMBERS,
    SENTENCES,
    SIGNS_APART,
    SINGLE_DIGITS,
    SINGLE_SPACES,
    pieces_by,
)
from decoding_llama3.lessons.show import TALE, show_figure
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.tokenizer import SPLIT_PATTERN, Tokenizer

Ranks = Mapping[bytes, int]
RELATED = {
    "rulers": [" king", " queen", " prince", " princess"],
    "metal": [" gold", " silver", " iron"],
    "colours": [" red", " blue", " white", " black"],
    "numbers": [" two", " three", " six", " seven"],
    "speech": [" said", " cried", " asked", " answered"],
    "beasts": [" wolf", " fox", " dog", " horse"],
    "family": [" mother", " father", " sister", " brother"],
}


def languages(llama3: Tokenizer, *subjects: Subject | None) -> None:
    """One sentence in nine languages, in bytes and in tokens."""
    lists = {subject.name: subject.tokenizer for subject in present(*subjects)} | {"Llama 3": llama3}
    counts = {
        language: {"bytes": len(text.encode())} | {name: len(t.encode(text)) for name, t in lists.items()}
        for language, text in SENTENCES.items()
    }
    most = max(counts, key=lambda language: counts[language]["Llama 3"])
    title = (
        f"Llama 3 needs {counts['English']['Llama 3']} tokens for the English sentence, "
        f"{counts[most]['Llama 3']} for the one in {most}"
    )
    alt = "For nine languages the bytes of a sentence, and its tokens with several tokenizers, as dots."
    show_figure(figures.draw_counts(counts, title), alt)


def two_vocabularies(llama3: Tokenizer) -> dict[str, float]:
    """Characters per token with Mistral 7B's 32,000 pieces and with Llama 3's list, where the former is installed.

    Returns by how much more text a token of Llama 3 holds, of each text; nothing where it is not.
    """
    package = importlib.util.find_spec("mistral_common")
    if not (package and package.submodule_search_locations and importlib.util.find_spec("sentencepiece")):
        print("for this comparison: pip install sentencepiece mistral-common, and run again")
        return {}
    import sentencepiece

    path = Path(package.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"
    old = sentencepiece.SentencePieceProcessor(model_file=str(path))
    code = {"Python code": CODE, "the code, indentation removed": " ".join(CODE.split())}
    texts = {"our tale": TALE, **SENTENCES, **code, "numbers": NUMBERS}
    held = {
        name: {
            f"{old.vocab_size():,} (Mistral 7B)": len(text) / len(old.encode(text)),
            f"{llama3.n_vocab:,} (Llama 3)": len(text) / len(llama3.encode(text)),
        }
        for name, text in texts.items()
    }
    gain = {name: after / before - 1 for name, (before, after) in ((n, v.values()) for n, v in held.items())}
    best = max(gain, key=gain.__getitem__)
    title = f"A Llama 3 token holds {gain['our tale']:.0%} more of our tale, {gain[best]:.0%} more {best}"
    alt = "Characters per token of twelve texts with both vocabularies, a pair of dots each."
    show_figure(figures.draw_pieces(held, title), alt)
    others = KINDS["eight other languages"]
    counts = len(old.encode(others)), len(llama3.encode(others))
    print(f"eight other languages: {counts[0]} tokens with {old.vocab_size():,} pieces (Mistral 7B),", end=" ")
    print(f"{counts[1]} with {llama3.n_vocab:,} (Llama 3), {counts[0] / counts[1] - 1:+.0%}")
    return gain


def taken_away(ranks: Ranks, first: int = 32_000) -> dict[str, dict[str, float]]:
    """Llama 3's tokenizer without one of four things at a time; returns how many more tokens each text needs."""
    small = {piece: rank for piece, rank in ranks.items() if rank < first}
    changed = {
        f"first {first:,}": (small, SPLIT_PATTERN),
        "single digits": (ranks, SINGLE_DIGITS),
        "signs apart": (ranks, SIGNS_APART),
        "single spaces": (ranks, SINGLE_SPACES),
    }
    before = {name: len(pieces_by(text, ranks)) for name, text in KINDS.items()}
    more = {
        what: {name: len(pieces_by(text, *how)) / before[name] - 1 for name, text in KINDS.items()}
        for what, how in changed.items()
    }
    size, digits, signs, spaces = (max(texts.values()) for texts in more.values())
    title = (
        f"Taken away: size costs up to {size:+.0%}, digits {digits:+.0%}, signs {signs:+.0%}, spaces {spaces:+.0%}"
    )
    alt = "Four panels of bars, a panel for each thing taken away: how many more tokens four texts need."
    show_figure(figures.draw_taken_away(more, title), alt)
    return more


def never_met(vocabulary: int = 40, never: int = 8, steps: int = 400) -> None:
    """A small model that predicts the next token from the last; some tokens are in its tables, never in its text.

    It is trained with one table for both ends and with two; drawn are the rows before and after. Prints how far
    apart the output rows end from five other starts.
    """
    met = torch.arange(vocabulary) < vocabulary - never
    tied, untied = (_trained_tables(vocabulary, never, steps, one_table) for one_table in (True, False))
    panels = {
        "one table for both ends": tied[0],
        "two: the input table": untied[0],
        "two: the output table": untied[1],
    }
    began, ended = (_apart(rows[~met]) for rows in untied[1])
    moved = (untied[0][1] - untied[0][0])[~met].norm(dim=-1).max()
    title = (
        f"Rows never met: output {began:.1f} apart at first, {ended:.1f} at the end; input moved by {moved:.1f}"
    )
    alt = "Three planes of dots: rows of tokens never met clump in an output table, and stay in an input table."
    show_figure(figures.draw_never_met(panels, ~met, title), alt)
    others = [_trained_tables(vocabulary, never, steps, one_table=False, seed=seed)[1] for seed in range(1, 6)]
    ways = [f"{_apart(start[~met]):.1f} -> {_apart(end[~met]):.2f}" for start, end in others]
    print("mean distance of the output rows from five other starts:", ", ".join(ways))


def _apart(rows: Float[Tensor, "rows 2"]) -> float:
    """The mean distance of two different rows."""
    return torch.pdist(rows).mean().item()


def _trained_tables(
    vocabulary: int, never: int, steps: int, one_table: bool, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Each table of the model, the input table first, before and after training."""
    generator = torch.Generator().manual_seed(seed)
    met = vocabulary - never
    followers = torch.randint(met, (met, 3), generator=generator)
    shares = torch.tensor([0.6, 0.3, 0.1]).expand(met, 3)
    wanted = torch.zeros(met, vocabulary).scatter_add_(1, followers, shares)
    tables = [torch.randn(vocabulary, 2, generator=generator) for _ in range(1 if one_table else 2)]
    matrix = torch.eye(2) + 0.3 * torch.randn(2, 2, generator=generator)
    start = [table.clone() for table in tables]
    weights = [weight.requires_grad_() for weight in (*tables, matrix)]
    optimizer = torch.optim.Adam(weights, lr=0.05)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(tables[0][:met] @ matrix @ tables[-1].T, wanted).backward()
            optimizer.step()
    return list(zip(start, [table.detach() for table in tables], strict=True))


def untrained(*subjects: Subject | None, most: int = 4) -> None:
    """The tokens whose rows of the output table lie where those of tokens never met do; prints which these are."""
    panels, found, told = {}, [], []
    for subject in present(*subjects):
        measured = never_met_rows(subject)
        if measured is None:
            print(f"{subject.name}: no clump among the special tokens, so nothing shows how a row never met looks")
            continue
        likeness, border, reference = measured
        lengths = probe.dequantized_weight(subject.model.output)[: len(likeness)].norm(dim=-1)
        special = set(subject.tokenizer.special_ids.values())
        others = [token for token in (likeness > border).nonzero().flatten().tolist() if token not in special]
        texts = {token: subject.tokenizer.token_bytes(token) for token in others}
        longest = sorted(texts.values(), key=lambda text: -len(text.strip()))
        names = [figures.shown_name(text) for text in longest if text.strip().isalpha()][: 3 * most : 3]
        n_bytes = sum(len(text) == 1 for text in texts.values())
        panels[subject.name] = likeness, lengths, border, reference
        found.append(f"{len(others)} of {subject.name}")
        ringed = reference.nonzero().flatten().tolist()
        shown = [subject.tokenizer.token_bytes(token).decode() for token in ringed]
        told += [
            f"ringed in {subject.name}: {', '.join(shown[:3])} and {len(shown) - 3} more",
            f"black in {subject.name}: {n_bytes} bytes, {len(others) - n_bytes} pieces such as {', '.join(names)}",
        ]
    if panels:
        title = f"Tokens that look never met, special ones apart: {', '.join(found)}"
        alt = "For each model a cloud of dots, a token each: those like rows never met stand black at the right."
        show_figure(figures.draw_untrained(panels, title), alt)
        print("\n".join(told))


def untrained_of(subject: Subject) -> Bool[Tensor, " vocab"]:
    """The same for one model, undrawn; nothing found raises ValueError."""
    measured = never_met_rows(subject)
    if measured is None:
        raise ValueError(
            f"{subject.name} has no three special tokens whose rows lie together: compare none with them"
        )
    likeness, border, _ = measured
    return likeness > border


def never_met_rows(subject: Subject) -> tuple[Float[Tensor, " vocab"], float, Bool[Tensor, " vocab"]] | None:
    """How near each row of the output table is to those of special tokens that no text has, and the border.

    These are found as the largest clump of special tokens: rows that end at one place were pushed together. Where
    their rows are nearly zero, nearness is shortness. None if three special tokens are nowhere together.
    """
    table = probe.dequantized_weight(subject.model.output)[: subject.tokenizer.n_vocab]
    special = torch.tensor(sorted(token for token in subject.tokenizer.special_ids.values() if token < len(table)))
    lengths, typical = table.norm(dim=-1), table.norm(dim=-1).median()
    reference = torch.zeros(len(table), dtype=torch.bool)
    short = special[lengths[special] < 0.1 * typical]
    if len(short) >= 3:
        reference[short] = True
        likeness = 1 - lengths / lengths.max()
    else:
        directions = F.normalize(table, dim=-1)
        together = directions[special] @ directions[special].T > 0.95
        near = together[together.sum(dim=1).argmax()]
        if near.sum() < 3:
            return None
        reference[special[near]] = True
        likeness = directions @ F.normalize(directions[reference].mean(dim=0), dim=-1)
    ordinary = torch.ones(len(table), dtype=torch.bool)
    ordinary[special] = False
    border = (likeness[reference].min() + likeness[ordinary].median()) / 2
    return likeness, border.item(), reference


def alike(*subjects: Subject | None) -> None:
    """Whether words of one kind have rows of one direction: the cosine within kinds and between.

    Prints the words, and for each kind both means.
    """
    panels, found = {}, []
    print("; ".join(f"{kind}:{''.join(words)}" for kind, words in RELATED.items()))
    for subject in present(*subjects):
        kinds = {kind: _single(words, subject.tokenizer) for kind, words in RELATED.items()}
        kinds = {kind: words for kind, words in kinds.items() if words}
        ids = [subject.tokenizer.encode(word)[0] for words in kinds.values() for word in words]
        directions = F.normalize(probe.dequantized_weight(subject.model.tok_embeddings)[ids], dim=-1)
        cosines = directions @ directions.T
        kind = torch.tensor([i for i, words in enumerate(kinds.values()) for _ in words])
        pairs = torch.ones_like(cosines, dtype=torch.bool).triu(1)
        same = kind[:, None] == kind
        within, between = cosines[pairs & same].mean().item(), cosines[pairs & ~same].mean().item()
        panels[subject.name] = cosines, kinds
        found.append(f"{subject.name} {within:.2f}, {between:.2f}")
        means = [
            f"{what} {cosines[pairs & same & own].mean():.2f} / {cosines[own & ~same].mean():.2f}"
            for what, own in ((what, (kind == i)[:, None].expand_as(same)) for i, what in enumerate(kinds))
        ]
        print(f"{subject.name}, within / to all others: {', '.join(means)}")
    title = f"Mean cosine within kinds and between: {'; '.join(found)}"
    alt = "A triangle of cosines between rows of words for each model, each kind framed along its edge."
    show_figure(figures.draw_similarity(panels, title), alt)


def _single(words: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """The words that are one token."""
    return [word for word in words if len(tokenizer.encode(word)) == 1]
