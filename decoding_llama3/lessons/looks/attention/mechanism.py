"""Part 5 - what is shown where attention is built."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.attention import Attention, attend
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import attention as figures
from decoding_llama3.lessons.figures import attention_models
from decoding_llama3.lessons.fonts import token_label
from decoding_llama3.lessons.show import OPENING, show_figure
from decoding_llama3.lessons.subject import Subject, token_strings
from decoding_llama3.transformer import Transformer


def places_of_repeated(subject: Subject, text: str) -> tuple[str, list[int]]:
    """The text to look at, and where the word stands in it that stands there most often.

    That is `text`, or the sentence of these notebooks where no word of `text` stands in it twice: then it says so.
    """
    places = _places_of_the_commonest(subject, text)
    if len(places) < 2:
        print(f"No word stands twice in this sentence, so this is about ours: {OPENING}")
        text, places = OPENING, _places_of_the_commonest(subject, OPENING)
    return text, places


def _places_of_the_commonest(subject: Subject, text: str) -> list[int]:
    ids = subject.ids(text)[0].tolist()
    often = max(ids[1:], key=ids.count)
    return [place for place, token in enumerate(ids) if token == often]


def repeated_word(subject: Subject, text: str, most: int = 3) -> None:
    """The likeliest words after each occurrence of one word, with attention and without."""
    text, places = places_of_repeated(subject, text)
    ids, words, model = subject.ids(text), subject.words(text), subject.model
    names = probe.names_of(model, "attention.wo")
    attending = model(ids)[0, places]
    with probe.intercepted(model, names, torch.zeros_like):
        alone = model(ids)[0, places]
    guesses = {
        kind: [_likeliest(subject, row) for row in logits[:most].softmax(-1)]
        for kind, logits in (("with attention", attending), ("without", alone))
    }
    different = [len({guessed[0][0] for guessed in by_place}) for by_place in guesses.values()]
    shown = [("... " if i > 2 else "") + "".join(words[max(1, i - 2) : i + 1]).strip() for i in places[:most]]
    counted = [f"{n} different words" if n > 1 else "one word" for n in different]
    title = (
        f"{subject.name} expects {counted[0]} after '{words[places[0]]}' in {len(shown)} places; "
        f"without attention {counted[1]}"
    )
    alt = "Bars of the three likeliest words after each occurrence: above with attention, below without."
    show_figure(figures.draw_repeated_word(shown, guesses, title), alt)


def _likeliest(subject: Subject, probabilities: Float[Tensor, " vocab"]) -> list[figures.Guess]:
    shares, tokens = probabilities.float().cpu().topk(3)
    return [
        (subject_word(subject, token), share)
        for token, share in zip(tokens.tolist(), shares.tolist(), strict=True)
    ]


def subject_word(subject: Subject, token: int) -> str:
    """What a figure calls one token of a model."""
    (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
    return word


def soft_lookup(
    q: Float[Tensor, " features"],
    k: Float[Tensor, "words features"],
    v: Float[Tensor, "words features"],
    words: Sequence[str],
) -> None:
    """One query against three words of three numbers each, every number on the page."""
    weights = (k @ q).softmax(-1)
    title = f"The query finds '{words[int(weights.argmax())].strip()}' and takes {weights.max():.0%} of its value"
    alt = "A table of number boxes: query, keys, scores, weights, values, weighted values and their sum."
    show_figure(figures.draw_lookup(q, k, v, words, title), alt)


def wiring(subject: Subject, text: str, block: int) -> None:
    """The queries of the last word of `text` in one block, wired to the keys that they share; their weights."""
    words, config = subject.words(text), subject.model.config
    weights = probe.attention_weights(subject.model, subject.ids(text))[block][0, :, -1].float().cpu()
    order = weights.max(dim=1).values.argsort(descending=True).tolist()
    favourite = [words[int(row.argmax())] for row in weights]
    other = next((head for head in order if favourite[head] != favourite[order[0]]), None)
    told = [
        f"query {head} attends to '{favourite[head]}' ({weights[head].max():.0%})"
        for head in sorted(head for head in (order[0], other) if head is not None)
    ]
    title = (
        f"Block {block} at '{words[-1]}': {config.n_heads} queries share {config.n_kv_heads} sets of keys and "
        f"values; {', '.join(told)}"
    )
    alt = "Circles of queries wired to boxes of shared keys; beside each query its weights over the words."
    show_figure(figures.draw_wiring(weights, config.n_kv_heads, words, title), alt)


def likeness(
    x: Float[Tensor, "seq dim"],
    q: Float[Tensor, "seq head_dim"],
    k: Float[Tensor, "seq head_dim"],
    words: Sequence[str],
) -> None:
    """Which token each would attend to if it compared itself with the others, and which by query and key."""
    maps = {
        "as they are: x · x / √dim": (x @ x.T / x.shape[-1] ** 0.5).softmax(-1),
        "by query and key: q · k / √head_dim": (q @ k.T / q.shape[-1] ** 0.5).softmax(-1),
    }
    itself = torch.arange(len(words))
    (alike, _), (asked, before) = (
        [int((values.argmax(-1) == itself - back).sum()) for back in (0, 1)] for values in maps.values()
    )
    title = (
        f"As they are, {alike} of {len(words)} tokens attend most to themselves; by query and key {asked} do, "
        f"and {before} attend most to the token before"
    )
    alt = "Two square maps of who attends to whom: by likeness, with the diagonal bright, and by query and key."
    show_figure(figures.draw_likeness(maps, words, title), alt)


def query_scores(scores: Float[Tensor, " seq"], words: Sequence[str], at: int) -> None:
    """The scores of one token's query with the keys of all tokens."""
    best = int(scores[: at + 1].argmax())
    title = f"To '{words[at]}' the key of '{words[best]}' scores highest of those so far, {scores[best]:.0f}"
    alt = "A bar for each word: its score with one query; words that come later are hollow."
    show_figure(figures.draw_scores(scores, words, at, title), alt)


def saturation(n_keys: int = 128, widths: Sequence[int] = (2, 4, 8, 16, 32, 64, 128, 256)) -> None:
    """Over how many random keys a random query spreads its weight, with and without the scale, by head_dim."""
    kept: dict[str, list[float]] = {"raw scores": [], "divided by √head_dim": []}
    for width in widths:
        q, k = torch.randn(2, n_keys, width, generator=torch.Generator().manual_seed(0))
        for values, divisor in zip(kept.values(), (1, math.sqrt(width)), strict=True):
            values.append(keys_in_use(q @ k.T / divisor))
    at = list(widths).index(128)
    raw, scaled = (values[at] for values in kept.values())
    title = (
        f"With 128 features a random query uses {raw:.1f} of {n_keys} keys; with its scores scaled, {scaled:.0f}"
    )
    alt = "Two lines over the number of features: raw scores fall to one key, scaled ones stay level."
    show_figure(figures.draw_saturation(widths, kept, n_keys, title), alt)


def keys_in_use(scores: Float[Tensor, "queries keys"]) -> float:
    """e to the mean entropy of the weights: over how many keys they are spread, as if evenly."""
    return torch.special.entr(scores.softmax(-1)).sum(-1).mean().exp().item()


def attend_everywhere(
    q: Float[Tensor, "batch heads seq head_dim"],
    k: Float[Tensor, "batch kv_heads length head_dim"],
    v: Float[Tensor, "batch kv_heads length head_dim"],
    mask: Tensor | None,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Attention without a mask: each token attends to those after it, too."""
    return attend(q, k, v, torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device))


DICE = LlamaConfig(
    dim=32,
    n_layers=1,
    n_heads=4,
    n_kv_heads=2,
    hidden_dim=64,
    vocab_size=6,
    norm_eps=1e-5,
    rope_theta=1e4,
    rope_scaling=None,
    tie_embeddings=False,
    max_seq_len=16,
)


def dice(steps: int = 200, throws: int = 16) -> dict[str, float]:
    """Two small models learn to predict dice, one with a mask and one without; returns their last losses, and that
    of the second at the last place alone, where no token stands to the right.
    """
    models = {
        "with the mask": Transformer(DICE),
        "without it": with_parts(Transformer(DICE), attend=attend_everywhere),
    }
    curves = {name: learn_dice(model, steps, throws) for name, model in models.items()}
    starts = range(0, steps - steps % 10, 10)  # each point is the mean of ten steps
    shown = {name: [sum(losses[i : i + 10]) / 10 for i in starts] for name, losses in curves.items()}
    last = {name: losses[-1] for name, losses in shown.items()}
    levels = {
        "chance, ln 6 =": math.log(6),
        f"if {throws - 1} of {throws} throws are copied, ln 6 / {throws} =": math.log(6) / throws,
    }
    rows = torch.randint(6, (256, throws + 1), generator=torch.Generator().manual_seed(1))
    logits = models["without it"](rows[:, :-1])[:, -1]
    at_the_end = F.cross_entropy(logits, rows[:, -1]).item()
    title = (
        f"The model without the mask ends at {last['without it']:.2f} nats per throw, the one with it at "
        f"{last['with the mask']:.2f}; chance allows {math.log(6):.2f}"
    )
    print(f"without the mask, at the last place of a row: {at_the_end:.2f} nats")
    alt = "Two curves of the loss: with the mask it stays at chance, without it falls far below."
    show_figure(figures.draw_dice([i + 10 for i in starts], shown, levels, title), alt)
    return last | {"at the last place": at_the_end}


def learn_dice(model: Transformer, steps: int, throws: int) -> list[float]:
    """Train `model` on rows of random throws; the loss of each step, in nats per throw."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.requires_grad_(True).parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=weight.shape[1] ** -0.5, generator=generator)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(steps):
        rows = torch.randint(6, (32, throws + 1), generator=generator)
        with torch.enable_grad():
            loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def mixture(
    weights: Float[Tensor, " seq"], v: Float[Tensor, "seq head_dim"], words: Sequence[str], at: int
) -> None:
    """What one token takes of the values of those before it."""
    weights, v = weights[: at + 1], v[: at + 1]
    best = int(weights.argmax())
    title = (
        f"'{words[at]}' gives '{words[best]}' {weights[best]:.0%} of its weight, and takes that share of its value"
    )
    alt = "Bars of the weight of each word so far; beside them its weighted value as a strip, and their sum."
    show_figure(figures.draw_mixture(weights, v, words[: at + 1], title), alt)


def two_needs() -> None:
    """Two words and what is wanted of both: by one head, which mixes them, and by two, which do not."""
    once, upon = (4, 0), (0, 4)
    outputs = {
        "one head": {"Once upon a": (2, 2), "upon Once a": (2, 2)},
        "two heads": {"Once upon a": (*once, *upon), "upon Once a": (*upon, *once)},
    }
    title = "One head hands on (2, 2) for both texts; two heads tell them apart"
    alt = "Four bar charts: one head gives the same two bars for both texts, two heads give different ones."
    show_figure(figures.draw_two_needs(outputs, title), alt)


def head_outputs(
    attention: Attention,
    y: Float[Tensor, "heads seq head_dim"],
    weights: Float[Tensor, "heads seq seq"],
    words: Sequence[str],
    at: int,
) -> None:
    """What each head writes at one token through its own columns of W_o, and their sum."""
    columns = attention.wo.weight.unflatten(1, (len(y), -1))  # (dim, heads, head_dim)
    written = torch.einsum("dhf,hf->hd", columns, y[:, at]).float().cpu()
    lengths, together = written.norm(dim=-1), written.sum(0).norm().item()
    favourite = [words[int(row.argmax())] for row in weights[:, at]]
    title = (
        f"At '{words[at]}' the vectors of the {len(y)} heads are {lengths.sum():.1f} long in all, "
        f"and {together:.1f} when added: they partly cancel"
    )
    alt = "A bar for each head: the length of the vector that it adds to the stream, and one for their sum."
    show_figure(
        attention_models.draw_head_outputs(lengths, together, list(map(token_label, favourite)), title), alt
    )


def growing_cache(subject: Subject, text: str, block: int) -> None:
    """The keys in the cache of one block after a third, two thirds and all of `text`."""
    ids, words, model = subject.ids(text), subject.words(text), subject.model
    positions, n = torch.arange(len(words), device=ids.device), len(words)
    counts, moments = [n // 3, 2 * n // 3, n], []
    caches = model.make_caches(batch=1, length=n)
    for start, end in itertools.pairwise([0, *counts]):
        model.hidden(ids[:, start:end], positions[start:end], caches)
        moments.append(caches[block].keys[0, 0].float().cpu())
    kept = all(torch.equal(moments[0][: counts[0]], later[: counts[0]]) for later in moments)
    numbers = model.config.kv_cache_bytes(1, dtype=torch.int8)
    head_dim = model.config.head_dim
    title = (
        f"Each token adds a row that {'never changes' if kept else 'changes'}: {head_dim} numbers here, "
        f"{numbers:,} with the values, all sets and all blocks"
    )
    alt = "Three pictures of one key store: after a third of the words, after two thirds, after all."
    show_figure(figures.draw_cache(moments, counts, words, f"block {block}, keys of set 0", title), alt)
