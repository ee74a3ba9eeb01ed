"""Part 7 - what is shown where the model is put together."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.lessons.figures import transformer as figures
from decoding_llama3.lessons.show import show_figure
from decoding_llama3.lessons.subject import Subject, token_strings
from decoding_llama3.transformer import Transformer, TransformerBlock


class Rewired(TransformerBlock):
    """A block with the parts of the package's own, put together otherwise by `wire`."""

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        rotation: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        return self.wire(x, lambda y: self.attention(y, positions, rotation, mask, cache))

    def wire(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """What the block makes of x."""
        raise NotImplementedError


class Overwriting(Rewired):
    """Attention's result takes the place of the stream, and so does the feed-forward's."""

    def wire(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        return self.feed_forward(self.ffn_norm(attention(self.attention_norm(x))))


class Parallel(Rewired):
    """Both parts read x: the feed-forward does not see what attention has just written."""

    def wire(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        return x + attention(self.attention_norm(x)) + self.feed_forward(self.ffn_norm(x))


class OtherOrder(Rewired):
    """The feed-forward first."""

    def wire(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        h = x + self.feed_forward(self.ffn_norm(x))
        return h + attention(self.attention_norm(h))


class NormsExchanged(Rewired):
    """Each part reads through the norm of the other."""

    def wire(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        h = x + attention(self.ffn_norm(x))
        return h + self.feed_forward(self.attention_norm(h))


WIRINGS = {
    "no sum": Overwriting,
    "both read x": Parallel,
    "other order": OtherOrder,
    "norms exchanged": NormsExchanged,
}


def wirings(subject: Subject, text: str) -> dict[str, float]:
    """The loss of a model, and of copies whose blocks are wired otherwise: the same weights, the same shapes."""
    ids, model = subject.ids(text), subject.model
    each = {name: probe.next_token_losses(with_parts(model, block=b)(ids), ids) for name, b in WIRINGS.items()}
    changed = {name: values.mean().item() for name, values in each.items()}
    losses = {"as trained": probe.loss_of(model, ids), **changed}
    least, second, *_ = sorted(changed, key=changed.__getitem__)
    worst = max(changed, key=changed.__getitem__)
    title = (
        f"The same weights, wired in {len(changed)} other ways: the loss goes from {losses['as trained']:.1f} "
        f"to between {changed[least]:.1f} and {changed[worst]:.1f} ({worst})"
    )
    alt = "Bars of the loss: as trained, and with blocks wired in other ways, beside knowing nothing."
    show_figure(figures.draw_wirings(losses, math.log(model.config.vocab_size), title), alt)
    apart = (each[second] - each[least]).flatten()
    half = 1.96 * apart.std() / len(apart) ** 0.5
    print(f"{second} minus {least}: {apart.mean():.2f} ± {half:.2f} nats per token, over {len(apart)} tokens")
    return losses


def shape_ladder(subject: Subject, text: str, other: str = "llama3-8b") -> None:
    """The shape of every tensor between ids and logits, read off the running model, and off a large one.

    The large one runs on the meta device: shapes alone, no numbers.
    """
    n, models = subject.ids(text).shape[1], {}
    models[subject.name] = _shapes(subject.model, n)
    with torch.device("meta"):
        models[other] = _shapes(Transformer(LlamaConfig.from_preset(other)), n)
    rungs = [(label, kind, [shapes[label] for shapes in models.values()]) for label, kind in LADDER.items()]
    depths = subject.model.config.n_layers, LlamaConfig.from_preset(other).n_layers
    names = [f"{name}: {depth} such blocks" for name, depth in zip(models, depths, strict=True)]
    (_, dim), (_, dim_8b) = (shapes["x: the stream"] for shapes in models.values())
    title = (
        f"{n} ids become {n} x {dim:,} numbers, and leave every block as {n} x {dim:,}; "
        f"in the 8B as {n} x {dim_8b:,}"
    )
    alt = "Two columns of bars, tiny and the 8B: the shape of each tensor from ids through a block to the logits."
    show_figure(figures.draw_shape_ladder(rungs, names, range(2, 16), title), alt)


LADDER = {
    "t: ids": "token",
    "x: the stream": "stream",
    "N₁(x): a copy, normalised": "norm",
    "queries": "query",
    "keys": "key",
    "values": "value",
    "who attends to whom": "query",
    "heads, side by side": "value",
    "A: attention writes": "query",
    "h = x + A": "stream",
    "N₂(h): a copy, normalised": "norm",
    "gate": "feed-forward",
    "value branch": "feed-forward",
    "gate times value branch": "feed-forward",
    "F: feed-forward writes": "feed-forward",
    "x' = h + F": "stream",
    "N(x): the last norm": "norm",
    "z: logits": "logits",
}


def _shapes(model: Transformer, n: int) -> dict[str, list[int]]:
    """The shapes of one sequence of `n` tokens, without the axis of the batch, by the labels of `LADDER`."""
    names = ["tok_embeddings", "norm", "output"]
    names += [f"layers.0.{part}" for part in ("attention_norm", "attention", "feed_forward")]
    names += ["layers.0", "layers.0.attention.wo", "layers.0.feed_forward.w_down", "layers.0.ffn_norm"]
    names += [f"layers.0.attention.{w}" for w in ("wq", "wk", "wv")]
    names += [f"layers.0.feed_forward.{w}" for w in ("w_gate", "w_up")]
    tokens = torch.zeros(1, n, dtype=torch.int64, device=model.norm.weight.device)
    with probe.recording(model, names) as record:
        model(tokens)
    seen = {name: list(value.shape[1:]) for name, value in record.outputs.items()}
    read = {name: list(value.shape[1:]) for name, value in record.inputs.items()}
    head_dim = model.config.head_dim
    q, k, v = ([seen[f"layers.0.attention.{w}"][-1] // head_dim, n, head_dim] for w in ("wq", "wk", "wv"))
    found = [
        read["tok_embeddings"],
        seen["tok_embeddings"],
        seen["layers.0.attention_norm"],
        q,
        k,
        v,
        [q[0], n, n],
    ]
    found += [read["layers.0.attention.wo"], seen["layers.0.attention"], read["layers.0.ffn_norm"]]
    found += [seen["layers.0.ffn_norm"], *(seen[f"layers.0.feed_forward.{w}"] for w in ("w_gate", "w_up"))]
    found += [read["layers.0.feed_forward.w_down"]]
    found += [seen["layers.0.feed_forward"], seen["layers.0"], seen["norm"], seen["output"]]
    return dict(zip(LADDER, found, strict=True))


def by_hand(words: Sequence[str], *stages: Float[Tensor, "tokens features"]) -> list[str]:
    """The stream of the model made by hand: after the embedding, after attention, after the feed-forward.

    Returns the word that it says after each token, "nothing" where no word is ahead.
    """
    next_words = stages[-1][:, -len(words) :]
    said = [words[int(row.argmax())] if row.max() > 0 else "nothing" for row in next_words]
    names = ("x: embedding", "h: and attention", "x': and feed-forward")
    last = words[len(said) - 1]
    title = f"A model made by hand: after {last!r} it says {said[-1]!r}, and every number is a 0 or a 1"
    if stages[-1].unique().tolist() != [0, 1]:
        title = f"A model made by hand: after {last!r} it says {said[-1]!r}"
    alt = "Three panels of squares, a row for each of three words: what each part has written into the stream."
    show_figure(figures.draw_by_hand(dict(zip(names, stages, strict=True)), words, said, title), alt)
    return said


def walk(subject: Subject, text: str) -> None:
    """The stream of the last token of `text` as a walk: towards the word that comes out, and aside."""
    model, ids = subject.model, subject.ids(text)
    stream = torch.stack([x[0, -1] for x in probe.residual_stream(model, ids).values()])
    logits = model.output(model.norm(stream)).float().cpu()
    token = int(logits[-1].argmax())
    worth = logits[:, token] - logits.mean(dim=-1)
    towards = F.normalize(word_direction(model, token), dim=0)
    stream = stream.float().cpu()
    reached = stream @ towards
    rest = stream - reached[:, None] * towards
    across = rest @ torch.linalg.svd(rest.diff(dim=0), full_matrices=False).Vh[0]
    (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
    path = torch.stack([reached, across], dim=1)
    parts, steps = subject.places()[:-1], path.diff(dim=0)
    longest = int(steps.norm(dim=-1).argmax())
    title = (
        f"{int((steps[:, 0] > 0).sum())} of {len(steps)} steps lead towards {word!r}; the longest, "
        f"{parts[longest]}, takes its logit from {worth[longest]:+.1f} to {worth[longest + 1]:+.1f}"
    )
    alt = "Left, a path of lines in a plane, blue for attention; right, the word's logit at each depth as bars."
    note = f"The vector grows from {stream[0].norm():.1f} to {stream[-1].norm():.0f} long; "
    note += f"at the end {path[-1].norm():.0f} of it lie in this plane."
    if stream[0].norm() > stream[-1].norm():
        note = note.replace("grows", "shrinks")
    show_figure(figures.draw_walk(path, worth, parts, word, title, note), alt)


def word_direction(model: Transformer, token: int) -> Float[Tensor, " dim"]:
    """The direction of the stream along which the logit of `token` rises above the mean of all."""
    output = probe.dequantized_weight(model.output)
    return model.norm.weight.detach().float().cpu() * (output[token] - output.mean(dim=0))


def last_logits(subject: Subject, text: str) -> None:
    """The logits after the last token of `text`, and what softmax makes of the five largest."""
    logits = subject.model(subject.ids(text))[0, -1].cpu()
    p, tokens = logits.softmax(dim=-1).topk(5)
    words = [*map(repr, token_strings(tokens, subject.tokenizer))]
    title = (
        f"Of {len(logits):,} logits the largest, {logits.max():.1f}, is that of {words[0]}; "
        f"softmax gives this token {p[0]:.0%}"
    )
    alt = "Left, a histogram of all logits with the largest marked; right, the five likeliest words as bars."
    show_figure(figures.draw_logits(logits, words, p.tolist(), title), alt)


def sampled(subject: Subject, text: str, temperature: float, top_p: float) -> Figure:
    """The five likeliest next words and all others: as the model has them, and as the sampler draws them."""
    logits = subject.model(subject.ids(text))[0, -1].cpu()
    plain = logits.softmax(dim=-1)
    p, order = (logits / temperature).softmax(dim=-1).sort(descending=True)
    kept = p.where(p.cumsum(dim=-1) - p <= top_p, 0) if top_p < 1 else p
    drawn = torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
    first = plain.topk(5).indices
    words = [*map(repr, token_strings(first, subject.tokenizer)), f"{len(plain) - 5:,} others"]
    bars = {
        name: [*values[first].tolist(), 1 - values[first].sum().item()]
        for name, values in (("as the model has them", plain), ("as they are drawn", drawn))
    }
    left = int((drawn > 0).sum())
    title = (
        f"Temperature {temperature:g}, top-p {top_p:g}: {left:,} of {len(plain):,} words are left, "
        f"the first with {drawn.max():.0%}"
    )
    return figures.draw_sampling(words, bars, title)


def pairs_of_letters(
    read: Int[Tensor, " characters"], unseen: Int[Tensor, "windows length"], vocab: int
) -> tuple[float, float]:
    """The loss of a table of pairs counted on `read`: on this text itself, and on `unseen`; nats per character."""
    counts = torch.full((vocab, vocab), 0.01)  # next to nothing for a pair that never came
    counts.index_put_((read[:-1], read[1:]), torch.ones(len(read) - 1), accumulate=True)
    logs = (counts / counts.sum(dim=1, keepdim=True)).log()
    return -logs[read[:-1], read[1:]].mean().item(), -logs[unseen[:, :-1], unseen[:, 1:]].mean().item()


def lesson(
    losses: Sequence[float], pupil: nn.Module, unseen: Float[Tensor, "windows length"], vocab: int, counted: float
) -> float:
    """The curve of a training, and the loss of its model on text that it never saw, in nats per character."""
    guesses: Callable[[Tensor], Tensor] = pupil
    held_out = probe.next_token_losses(guesses(unseen).detach(), unseen).mean().item()
    last = sum(losses[-20:]) / len(losses[-20:])
    title = (
        f"{len(losses)} steps: {last:.2f} nats per character at the end on what it reads, {held_out:.2f} on "
        f"unseen text; the shares of the characters give {counted:.2f}"
    )
    alt = "A line: the loss of each training step, beside knowing nothing, counting, and the loss on unseen text."
    show_figure(figures.draw_lesson(losses, math.log(vocab), counted, held_out, title), alt)
    return held_out
