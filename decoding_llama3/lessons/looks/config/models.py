"""Part 2 - what is shown of fields in trained models, tiny beside a real one."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import config_models as figures
from decoding_llama3.lessons.show import (
    held_out_ids,
    held_out_text,
    is_slow,
    ordinary_ids,
    show_figure,
    show_table,
)
from decoding_llama3.lessons.subject import Subject, present, token_strings


def nearest_rows(text: str, *subjects: Subject | None, words: int = 3, nearest: int = 5) -> None:
    """The rows of the embedding that are nearest to those of some words of a text, and in a table of chance."""
    rows = []
    for subject in present(*subjects):
        table = probe.dequantized_weight(subject.model.tok_embeddings)
        generator = torch.Generator().manual_seed(0)
        chance = F.normalize(torch.randn(table.shape, generator=generator)) * table.norm(dim=1, keepdim=True)
        candidates = torch.tensor(ordinary_ids(subject.tokenizer))
        for token in _telling(subject, text)[-words:]:
            found = [_nearest(rows_of, token, candidates, nearest) for rows_of in (table, chance)]
            named = [", ".join(repr(word) for word in token_strings(ids, subject.tokenizer)) for ids, _ in found]
            (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
            rows.append([subject.name, repr(word), named[0], f"{found[0][1]:.2f}", named[1], f"{found[1][1]:.2f}"])
    header = ["model", "token", "nearest rows", "distance", "in a table of chance", "distance"]
    show_table(rows, header, "distance: of the nearest row, in units of the median distance to all rows")


def _telling(subject: Subject, text: str) -> list[int]:
    """The different tokens of a text, those of four bytes and more if there are any."""
    special = set(subject.tokenizer.special_ids.values())
    ids = [i for i in dict.fromkeys(subject.ids(text)[0].tolist()) if i not in special]
    return [i for i in ids if len(subject.tokenizer.token_bytes(i)) > 4] or ids


def _nearest(
    table: Float[Tensor, "vocab dim"], token: int, candidates: Tensor, count: int
) -> tuple[Tensor, float]:
    """The ids of the nearest other rows, and the distance of the first in units of the median."""
    others = candidates[candidates != token]
    distances = (table[others] - table[token]).norm(dim=1)
    order = distances.argsort()
    return others[order[:count]], (distances[order[0]] / distances.median()).item()


def swept_fields(*subjects: Subject | None) -> dict[str, float]:
    """The loss of the same weights under other values of theta, eps and the number of heads.

    Returns the value of each field at which tiny's loss is lowest.
    """
    panels, best = {}, {}
    for subject in present(*subjects):
        model, c = subject.model, subject.model.config
        slow = is_slow(model)
        ids = held_out_ids(model, subject.tokenizer, windows=1 if slow else 2, length=128 if slow else 256)
        values = {
            "rope_theta": [
                c.rope_theta * 10**x for x in ((-2, -1, 1, 2) if slow else (-2, -1, -0.5, 0.5, 1, 2, 4))
            ],
            "norm_eps": [c.norm_eps * 10**x for x in ((2, 4) if slow else (-2, 1, 2, 3, 4))],
            "n_heads": _other_heads(c.n_heads, c.queries_per_kv, c.dim, 1 if slow else 2),
        }
        trained, panels[subject.name] = probe.loss_of(model, ids), {}
        for field, others in values.items():
            losses = {getattr(c, field): trained}
            for value in others:
                shared = {"n_kv_heads": value // c.queries_per_kv} if field == "n_heads" else {}
                with probe.configured(model, **{field: value}, **shared):
                    losses[value] = probe.loss_of(model, ids)
            panels[subject.name][field] = getattr(c, field), losses
            best.setdefault(field, min(losses, key=losses.__getitem__))
    lowest = [
        f"{name}'s at theta {min(sweeps['rope_theta'][1], key=sweeps['rope_theta'][1].get):,.0f}, trained with "
        f"{sweeps['rope_theta'][0]:,.0f}"
        for name, sweeps in panels.items()
    ]
    title = f"Of the values tried, the loss is lowest: {'; '.join(lowest)}"
    alt = "For each model three panels: the rise of the loss by theta, eps and heads, the trained values marked."
    show_figure(figures.draw_swept_fields(panels, title), alt)
    return best


def _other_heads(n_heads: int, queries_per_kv: int, dim: int, beside: int) -> list[int]:
    """Numbers of heads near the model's own that give matrices of the same shapes."""
    fits = [n for n in range(queries_per_kv, dim // 2 + 1, queries_per_kv) if dim % (2 * n) == 0]
    below, above = [n for n in fits if n < n_heads], [n for n in fits if n > n_heads]
    return below[-beside:] + above[:beside]


def learned_order(*subjects: Subject | None, first: int = 250) -> None:
    """Pieces in the order in which they were learned: their share of a text, and the mean loss of each group."""
    panels, found = {}, []
    for subject in present(*subjects):
        bytes_and_pieces = _in_order(subject)
        n_pieces = len(ordinary_ids(subject.tokenizer))
        borders = [0, *(round(first * (n_pieces / first) ** (i / 3)) for i in range(4))]
        names = ["bytes", *(f"{low + 1:,} to {high:,}" for low, high in itertools.pairwise(borders))]
        text = bytes_and_pieces[torch.tensor(subject.tokenizer.encode(held_out_text()))]
        ids = held_out_ids(subject.model, subject.tokenizer)
        losses = [probe.next_token_losses(subject.model(row[None]), row[None])[0].cpu() for row in ids]
        groups = _grouped(text, borders), _grouped(bytes_and_pieces[ids[:, 1:].flatten().cpu()], borders)
        shares = [group.float().mean().item() for group in groups[0]]
        means = [torch.cat(losses)[group].mean().item() for group in groups[1]]
        panels[subject.name] = names, shares, means
        found.append(f"{shares[1]:.0%} of the text in {subject.name}'s tokens")
    title = f"The first {first} pieces make {', '.join(found)}"
    alt = "Bars for groups of pieces in the order of learning: share of the text, and mean loss."
    show_figure(figures.draw_learned_order(panels, title), alt)


def _in_order(subject: Subject) -> Tensor:
    """For each id its place among the pieces, counted from 0 in the order of learning; -1 for what is none."""
    order = torch.full((subject.tokenizer.n_vocab,), -1)
    pieces = torch.tensor(ordinary_ids(subject.tokenizer))
    order[pieces] = torch.arange(len(pieces))
    return order


def _grouped(places: Tensor, borders: Sequence[int]) -> list[Tensor]:
    """Which tokens belong to each group: those that are no pieces, then those between two borders."""
    return [places < 0, *((places >= low) & (places < high) for low, high in itertools.pairwise(borders))]


def context_lengths(*subjects: Subject | None) -> dict[int, float]:
    """The loss of the same tokens of a book, with more and more of the text before them; returns tiny's."""
    panels, found = {}, []
    for subject in present(*subjects):
        slow = is_slow(subject.model)
        befores = (0, 4, 16, 64, 256) if slow else (0, 4, 16, 64, 256, 448, 640, 1024)
        windows, length = (2, 48) if slow else (6, 64)
        panels[subject.name] = subject.model.config.max_seq_len, _loss_after(subject, befores, windows, length)
        losses = panels[subject.name][1]
        best = min(losses, key=losses.get)
        found.append(
            f"{losses[0] - losses[best]:.1f} nats per token to {subject.name}, the most with {best:,} tokens"
        )
    title = f"Context is worth {'; '.join(found)}"
    alt = "The loss by the number of tokens before; what lies beyond the length of training is shaded."
    show_figure(figures.draw_context_lengths(panels, title), alt)
    return next(iter(panels.values()))[1]


def _loss_after(subject: Subject, befores: Sequence[int], windows: int, length: int) -> dict[int, float]:
    """Mean loss of the same tokens, `windows` times `length` of them, after begin-of-text and `before` tokens."""
    model, tokenizer, losses = subject.model, subject.tokenizer, {}
    text = tokenizer.encode(held_out_text())
    starts = range(max(befores), max(befores) + windows * length, length)
    for before in befores:
        rows = [[tokenizer.bos_id, *text[start - before : start + length]] for start in starts]
        ids = torch.tensor(rows, device=model.norm.weight.device)
        logits = model.output(model.hidden(ids)[:, -length - 1 : -1]).float()
        losses[before] = F.cross_entropy(logits.flatten(0, 1), ids[:, -length:].flatten()).item()
    return losses
