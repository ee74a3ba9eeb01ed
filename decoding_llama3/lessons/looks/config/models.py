"""Part 2 - what is shown of fields in trained models, tiny beside a real one."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
from decoding_llama3.transformer import Transformer


def nearest_rows(text: str, *subjects: Subject | None, words: int = 3, nearest: int = 4, draws: int = 5) -> None:
    """The rows of the embedding nearest to those of some words of a text, and how near rows come by chance.

    By chance: each number of a row is drawn from the values that its feature has in the learned table, so
    that what all rows share is kept.
    """
    rows = []
    for subject in present(*subjects):
        tokens = torch.tensor(_telling(subject, text)[-words:])
        others = torch.tensor(
            [piece for piece in ordinary_ids(subject.tokenizer) if piece not in set(tokens.tolist())]
        )
        table = probe.dequantized_weight(subject.model.tok_embeddings)[torch.cat((tokens, others))].float().cpu()
        best = _cosines(table, len(tokens)).topk(nearest)
        generator = torch.Generator().manual_seed(0)
        chance = torch.stack([_cosines(_drawn_anew(table, generator), len(tokens)).amax(1) for _ in range(draws)])
        for i, word in enumerate(token_strings(tokens, subject.tokenizer)):
            named = ", ".join(repr(near) for near in token_strings(others[best.indices[i]], subject.tokenizer))
            between = f"{chance[:, i].min():.2f} to {chance[:, i].max():.2f}"
            rows.append([subject.name, repr(word), named, f"{best.values[i, 0]:.2f}", between])
    show_table(rows, ["model", "token", "nearest rows", "cosine of the nearest", f"by chance, {draws} tables"])


def _cosines(table: Float[Tensor, "rows dim"], n: int) -> Float[Tensor, "n others"]:
    """The cosines of the first `n` rows with all that follow."""
    units = F.normalize(table)
    return units[:n] @ units[n:].T


def _drawn_anew(table: Float[Tensor, "rows dim"], generator: torch.Generator) -> Float[Tensor, "rows dim"]:
    return table.gather(0, torch.randint(len(table), table.shape, generator=generator))


def _telling(subject: Subject, text: str) -> list[int]:
    """The different tokens of a text, those of four bytes and more if there are any."""
    special = set(subject.tokenizer.special_ids.values())
    ids = [i for i in dict.fromkeys(subject.ids(text)[0].tolist()) if i not in special]
    return [i for i in ids if len(subject.tokenizer.token_bytes(i)) > 4] or ids


def theta_by_length(subject: Subject) -> dict[int, float]:
    """By how many nats per token a tenth of theta raises the loss, on three passages of each of three lengths."""
    model, rise = subject.model, {}
    for length in (64, 192, 511):
        passages = held_out_ids(model, subject.tokenizer, windows=3, length=length)
        with probe.configured(model, rope_theta=model.config.rope_theta / 10):
            changed = probe.loss_of(model, passages)
        rise[length] = changed - probe.loss_of(model, passages)
        print(f"on {length} tokens a tenth of theta costs {rise[length]:.2f} nats per token")
    return rise


def swept_fields(*subjects: Subject | None) -> dict[str, dict[float, float]]:
    """The loss of the same weights under other values of theta, eps and the number of heads, on three passages.

    Returns for each field by how much tiny's mean loss rises at each value.
    """
    panels, rises = {}, {}
    for subject in present(*subjects):
        model, c = subject.model, subject.model.config
        slow = is_slow(model)
        ids = held_out_ids(model, subject.tokenizer, windows=3, length=48 if slow else 192)
        values = {
            "rope_theta": [
                c.rope_theta * x for x in ((0.01, 0.1, 10, 100) if slow else (0.01, 0.1, 0.5, 2, 10, 100))
            ],
            "norm_eps": [c.norm_eps * 10**x for x in ((2, 4) if slow else (-2, 1, 2, 3, 4))],
            "n_heads": _other_heads(c.n_heads, c.queries_per_kv, c.dim, 1 if slow else 2),
        }
        trained, panels[subject.name] = _passages(model, ids), {}
        for field, others in values.items():
            losses = {getattr(c, field): trained}
            for value in others:
                shared = {"n_kv_heads": value // c.queries_per_kv} if field == "n_heads" else {}
                with probe.configured(model, **{field: value}, **shared):
                    losses[value] = _passages(model, ids)
            panels[subject.name][field] = getattr(c, field), losses
        rises[subject.name] = {
            field: {value: np.mean(found) - np.mean(trained) for value, found in losses.items()}
            for field, (_, losses) in panels[subject.name].items()
        }
    alt = "For each model three panels: the rise of the loss by theta, eps and heads, the trained values marked."
    show_figure(figures.draw_swept_fields(panels, _title(panels, rises)), alt)
    return next(iter(rises.values()))


def _title(panels: dict[str, dict], rises: dict[str, dict[str, dict[float, float]]]) -> str:
    """What ten times theta and another number of heads do to each model."""
    title = "Ten times theta raises the loss by " + ", ".join(
        f"{rises[name]['rope_theta'][10 * panels[name]['rope_theta'][0]]:.2f} ({name})" for name in panels
    )
    others = {
        name: [rise for value, rise in rises[name]["n_heads"].items() if value != panels[name]["n_heads"][0]]
        for name in panels
    }
    heads = ", ".join(f"{min(found):.1f} ({name})" for name, found in others.items() if found)
    title += f"; another n_heads by {heads} or more" if heads else ""
    return title


def _passages(model: Transformer, ids: Int[Tensor, "windows length"]) -> list[float]:
    """The mean loss of each passage."""
    return probe.next_token_losses(model(ids), ids).mean(dim=1).tolist()


def _other_heads(n_heads: int, queries_per_kv: int, dim: int, beside: int) -> list[int]:
    """Numbers of heads near the model's own that give matrices of the same shapes."""
    fits = [n for n in range(queries_per_kv, dim // 2 + 1, queries_per_kv) if dim % (2 * n) == 0]
    below, above = [n for n in fits if n < n_heads], [n for n in fits if n > n_heads]
    return below[-beside:] + above[:beside]


def learned_order(*subjects: Subject | None, first: int = 250) -> None:
    """Pieces in the order in which they were learned: each group's share of a text and its loss, by bytes."""
    panels, found = {}, []
    for subject in present(*subjects):
        bytes_and_pieces = _in_order(subject)
        n_pieces = len(ordinary_ids(subject.tokenizer))
        borders = [0, *(round(first * (n_pieces / first) ** (i / 3)) for i in range(4))]
        names = ["bytes", *(f"{low + 1:,} to {high:,}" for low, high in itertools.pairwise(borders))]
        ids, n_bytes = held_out_ids(subject.model, subject.tokenizer), _bytes_of(subject)
        losses = torch.cat([probe.next_token_losses(subject.model(row[None]), row[None])[0].cpu() for row in ids])
        text, scored = torch.tensor(subject.tokenizer.encode(held_out_text())), ids[:, 1:].flatten().cpu()
        groups = (_grouped(bytes_and_pieces[tokens], borders) for tokens in (text, scored))
        shares = [(n_bytes[text[group]].sum() / n_bytes[text].sum()).item() for group in next(groups)]
        means = [(losses[group].sum() / n_bytes[scored[group]].sum()).item() for group in next(groups)]
        panels[subject.name] = names, shares, means
        found.append(f"{shares[1]:.0%} of a text for {subject.name}")
    title = f"The first {first} pieces make {', '.join(found)}"
    alt = "Bars for groups of pieces in the order of learning: their share of the text's bytes, and loss per byte."
    show_figure(figures.draw_learned_order(panels, title), alt)


def _in_order(subject: Subject) -> Tensor:
    """For each id its place among the pieces, counted from 0 in the order of learning; -1 for what is none."""
    order = torch.full((subject.tokenizer.n_vocab,), -1)
    pieces = torch.tensor(ordinary_ids(subject.tokenizer))
    order[pieces] = torch.arange(len(pieces))
    return order


def _bytes_of(subject: Subject) -> Tensor:
    """For each id how many bytes of text it stands for: none, if it is special."""
    special = set(subject.tokenizer.special_ids.values())
    lengths = (
        0 if i in special else len(subject.tokenizer.token_bytes(i)) for i in range(subject.tokenizer.n_vocab)
    )
    return torch.tensor(list(lengths))


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
        most = ", the most tried" if best == max(losses) else ""
        found.append(f"{losses[0] - losses[best]:.1f} nats per token to {subject.name} ({best:,} tokens{most})")
    title = f"Text before is worth {'; '.join(found)}"
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
