"""Part 7 - who says a word, and who is missed: a model's parts, one at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import transformer_models as figures
from decoding_llama3.lessons.show import held_out_ids, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present, token_strings
from decoding_llama3.transformer import Transformer, TransformerBlock

Writes = dict[str, Float[Tensor, "batch seq dim"]]


def journey(text: str, *subjects: Subject | None) -> list[figures.Journey]:
    """How a model comes to its next word: what it would say at each depth, attribution and silencing.

    A figure for each model. Returns what was drawn.
    """
    made = []
    for subject in present(*subjects):
        found = make_journey(subject, text)
        loudest, missed = found.parts[found.loudest], [found.parts[i] for i in found.missed]
        base, read = found.chances[-1], "".join(subject.words(text)[-3:]).strip()
        left = [chance((log_odds(base.log()) - found.lost[i]).sigmoid()) for i in found.missed]
        title = (
            f"{subject.name}, {found.word!r} after {read!r}: {loudest} adds most "
            f"({found.added[found.loudest]:+.1f} of {found.above:+.1f}); {' and '.join(missed)} are missed "
            f"most (p from {chance(base)} to {' and '.join(left)})"
        )
        alt = (
            "Three panels with a row for each part of the model, from the embedding down: the word read off the "
            "stream, what each part adds, and what it costs to be without it."
        )
        show_figure(figures.draw_journey(found, title), alt)
        odds, named = log_odds(base.log()).item(), [found.loudest, *found.missed]
        without = (f"{odds - found.lost[i]:+.1f} without {found.parts[i]}" for i in dict.fromkeys(named) if i)
        print(f"{subject.name}: log odds of {found.word!r} {odds:+.1f}; {', '.join(without)}")
        made.append(found)
    return made


def log_odds(log_p: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The logarithm of p / (1 - p), from that of p: unlike p it does not hide what is lost close to 1."""
    log_p = log_p.clamp(max=-1e-7)
    return log_p - (-log_p.expm1()).log()


def chance(p: Float[Tensor, ""]) -> str:
    """A probability in three digits where it is nearly 0 or 1, else in two."""
    return f"{p:.2f}" if 0.1 <= p <= 0.985 else f"{p:.3f}"


def make_journey(subject: Subject, text: str, draws: int = 8) -> figures.Journey:
    """The next word after `text`, followed from part to part; of a deep model the parts that add or cost most."""
    model, ids = subject.model, subject.ids(text)
    stream = probe.residual_stream(model, ids)
    lens = torch.stack([model.output(model.norm(x[0, -1])).float().softmax(dim=-1) for x in stream.values()])
    token = int(lens[-1].argmax())
    added = torch.stack(list(probe.logit_attribution(model, ids, ids.shape[1] - 1, token).values()))[:, 0].cpu()
    others = other_writes(subject, ids.shape[1], draws)
    quiet = put_in_place(model, ids, token, {part: torch.zeros_like(w[:1]) for part, w in others.items()})
    base = log_odds(lens[-1, token].cpu().log())
    lost = torch.cat([torch.full((1,), torch.nan), base - log_odds(quiet[:, 0].cpu())])
    rows = figures.telling_rows(added, lost)
    places = [place for place in list(others) if place != "embedding"]
    chosen = [places[i - 1] for i in rows if i]
    exchanged = put_in_place(model, ids, token, {part: others[part] for part in chosen}).T.cpu()
    return figures.Journey(
        parts=[["embedding", *subject.places()][i] for i in rows],
        chances=lens[rows, token].cpu(),
        said=[token_strings(lens.argmax(dim=-1), subject.tokenizer)[i] for i in rows],
        added=added.float()[rows],
        lost=lost[rows],
        exchanged=torch.cat([torch.full((draws, 1), torch.nan), base - log_odds(exchanged)], dim=1),
        word=token_strings(torch.tensor([token]), subject.tokenizer)[0],
        above=added.sum().item(),
        of=len(added),
    )


def other_writes(subject: Subject, seq: int, draws: int) -> Writes:
    """What each part writes for other texts: `draws` places of an unseen book, `seq` tokens each."""
    rows = held_out_ids(subject.model, subject.tokenizer, windows=1, length=20 * draws + seq)[0]
    starts = torch.arange(draws, device=rows.device) * 20 + 1
    ids = rows[starts[:, None] + torch.arange(seq, device=rows.device)]
    if subject.tokenizer.encode("a", bos=True)[0] == subject.tokenizer.bos_id:
        ids = torch.cat([torch.full_like(ids[:, :1], subject.tokenizer.bos_id), ids[:, 1:]], dim=1)
    return probe.writes(subject.model, ids)


def put_in_place(
    model: Transformer, ids: Int[Tensor, "1 seq"], token: int, puts: Writes
) -> Float[Tensor, "parts draws"]:
    """The logarithm of the probability of `token` where a part writes, at every place, what `puts` has for it.

    Each part of `puts` by itself. A batch that grows by the rows of a part where these begin to differ from the
    first row.
    """
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation = model.rotation_at(positions)
    x = model.tok_embeddings(ids)
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, TransformerBlock)
        h = x + layer.attention(layer.attention_norm(x), positions, rotation)
        h = torch.cat([h, x[:1] + puts.get(f"{i}.attention", x[:0])])
        x = h + layer.feed_forward(layer.ffn_norm(h))
        x = torch.cat([x, h[:1] + puts.get(f"{i}.feed_forward", h[:0])])
    few = model.norm(x[1:, -1]).split(64)  # at once: logits are large
    logs = torch.cat([model.output(rows).float().log_softmax(dim=-1)[:, token] for rows in few])
    return logs.view(-1, next(len(put) for part, put in puts.items() if part != "embedding"))


@contextmanager
def _writing(model: Transformer, part: str, put: Float[Tensor, "batch seq dim"]) -> Iterator[None]:
    """While the context is open, `part` writes `put`."""

    def write(module: torch.nn.Module, args: tuple, output: Tensor) -> Tensor:
        return put

    handle = model.get_submodule(f"layers.{part}").register_forward_hook(write)
    try:
        yield
    finally:
        handle.remove()


def told(subject: Subject, text: str, draws: int = 8) -> dict[str, tuple[float, list[float]]]:
    """What the part that adds most to the next word still adds when a part before it is silent, or misled.

    Misled: it writes what it wrote for one of `draws` other texts. Shows the attentions; returns both by part, the
    second sorted.
    """
    model, ids = subject.model, subject.ids(text)
    token, place = int(model(ids)[0, -1].argmax()), ids.shape[1] - 1
    whole = probe.logit_attribution(model, ids, place, token)
    loudest = max(whole, key=lambda name: whole[name].item())
    found = {"none": (whole[loudest].item(), [whole[loudest].item()])}
    for part, written in other_writes(subject, ids.shape[1], draws).items():
        if part == loudest:
            break
        if part != "embedding":
            puts = torch.cat([torch.zeros_like(written[:1]), written])
            with _writing(model, part, puts):
                left = probe.logit_attribution(model, ids.expand(len(puts), -1), place, token)[loudest].tolist()
            found[_in_words(part)] = left[0], sorted(left[1:])
    rows = [
        [name, f"{silent:+.1f}", f"{others[0]:+.1f} to {others[-1]:+.1f}" if len(others) > 1 else ""]
        for name, (silent, others) in found.items()
        if not name.startswith("feed-forward")
    ]
    (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
    header = ["without it", "silent", f"misled ({draws} other texts)"]
    show_table(rows, header, f"What {_in_words(loudest)} still adds to the logit of {word!r}")
    return found


def hidden(subject: Subject, text: str, teller: str) -> dict[str, tuple[float, float]]:
    """What the part that adds most still adds where only some later parts do not see what `teller` wrote.

    `teller` is named as in a figure, "attention 3". Returns its share of the logit and the word's probability, by
    those who do not see.
    """
    model, ids = subject.model, subject.ids(text)
    token, place = int(model(ids)[0, -1].argmax()), ids.shape[1] - 1
    whole = probe.logit_attribution(model, ids, place, token)
    names = {_in_words(part): part for part in whole}
    loudest = max(whole, key=lambda part: whole[part].item())
    order = list(whole)
    between = order[order.index(names[teller]) + 1 : order.index(loudest)]
    blind = {"nobody": [], f"{_in_words(loudest)} alone": [loudest]}
    blind |= {f"{_in_words(part)} alone": [part] for part in between}
    blind |= {f"all before {_in_words(loudest)}": between, "all of these": [*between, loudest]}
    found = {}
    for name, readers in blind.items():
        added = _run_hiding(model, ids, names[teller], readers)
        final = torch.stack([write[:, -1] for write in added.values()]).sum(dim=0)
        share = probe.share_of_logit(model, added[loudest][:, -1][None], final, token)
        p = model.output(model.norm(final))[0].float().softmax(dim=-1)[token]
        found[name] = share.item(), p.item()
    (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
    rows = [[name, f"{share:+.1f}", chance(torch.tensor(p))] for name, (share, p) in found.items()]
    header = [f"{teller} is hidden from", f"{_in_words(loudest)} adds", f"p of {word!r}"]
    show_table(rows, header)
    return found


def _run_hiding(model: Transformer, ids: Int[Tensor, "1 seq"], teller: str, readers: list[str]) -> Writes:
    """What each part writes where `readers` read the stream without the write of `teller`."""
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation = model.rotation_at(positions)
    added = {"embedding": model.tok_embeddings(ids)}
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, TransformerBlock)
        for part in (f"{i}.attention", f"{i}.feed_forward"):
            read = torch.stack([w for name, w in added.items() if part not in readers or name != teller]).sum(
                dim=0
            )
            if part.endswith("attention"):
                added[part] = layer.attention(layer.attention_norm(read), positions, rotation)
            else:
                added[part] = layer.feed_forward(layer.ffn_norm(read))
    return added


def _in_words(part: str) -> str:
    """What a figure calls a part: "attention 3" for "3.attention"."""
    return " ".join(reversed(part.replace("_", "-").split(".")))


def every_place(subject: Subject, text: str) -> list[tuple[str, str, str, str, str]]:
    """Who says each next word of a text, and who is missed: token, word, and the parts by name.

    These are the part that adds most, the part whose silence costs most, and the attention of which this is so.
    """
    model, ids = subject.model, subject.ids(text)
    words, found, rows = subject.words(text), [], []
    for n in range(1, ids.shape[1] + 1):
        p = model(ids[:, :n])[0, -1].float().log_softmax(dim=-1)
        token = int(p.argmax())
        added = probe.logit_attribution(model, ids[:, :n], n - 1, token)
        loudest = max(added, key=lambda part: added[part].item())
        zeros = {part: torch.zeros_like(w) for part, w in probe.writes(model, ids[:, :n]).items()}
        parts = [part for part in zeros if part != "embedding"]
        left = put_in_place(model, ids[:, :n], token, zeros)[:, 0]
        cost = dict(zip(parts, (log_odds(p[token]) - log_odds(left)).tolist(), strict=True))
        missed = max(cost, key=cost.__getitem__)
        attention = max((part for part in parts if "attention" in part), key=cost.__getitem__)
        (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
        found.append((words[n - 1], word, *map(_in_words, (loudest, missed, attention))))
        values = ((loudest, added[loudest].item()), (missed, cost[missed]), (attention, cost[attention]))
        named = (f"{_in_words(part)}: {value:+.1f}" for part, value in values)
        rows.append([repr(words[n - 1]), f"{word!r} ({chance(p[token].exp())})", *named])
    header = [
        "after",
        "it says",
        "adds most (logit)",
        "missed most (log odds)",
        "the attention missed most (log odds)",
    ]
    show_table(rows, header, folded="The table, a row for each token")
    adds, missed = (Counter(row[i] for row in found).most_common() for i in (2, 3))
    print("adds most:", ", ".join(f"{part} at {n} of {len(found)} places" for part, n in adds), end="; ")
    print("missed most:", ", ".join(f"{part} at {n}" for part, n in missed))
    return found


def said_again(subject: Subject, rows: int = 8, length: int = 20) -> dict[str, float]:
    """What each part adds to the right word where random words are said a second time, on average."""
    model, tokenizer = subject.model, subject.tokenizer
    drawn = torch.Generator().manual_seed(0)
    words = torch.randint(300, model.config.vocab_size - 300, (rows, length), generator=drawn)
    begin = torch.full((rows, 1), tokenizer.bos_id)
    ids = torch.cat([begin, words, words], dim=1).to(model.norm.weight.device)
    before = slice(length + 2, 2 * length)  # from the third word on, when two have been heard again
    added, answers = probe.writes(model, ids), ids[:, length + 3 :]
    final = torch.stack([write[:, before] for write in added.values()]).sum(dim=0)
    scale = torch.rsqrt(final.square().mean(dim=-1, keepdim=True) + model.norm.eps) * model.norm.weight
    table = probe.dequantized_weight(model.output)
    towards = scale * (table[answers] - table.mean(dim=0))
    means = {
        _in_words(part): (write[:, before] * towards).sum(dim=-1).mean().item() for part, write in added.items()
    }
    right = (model(ids).argmax(dim=-1)[:, before] == answers).float().mean().item()
    first = sorted(means, key=means.__getitem__, reverse=True)[:3]
    print(
        f"{length} random words said again: right at {right:.0%} of {answers.numel()} places; most is added by",
        end=" ",
    )
    print(", ".join(f"{part} ({means[part]:+.1f})" for part in first))
    return means
