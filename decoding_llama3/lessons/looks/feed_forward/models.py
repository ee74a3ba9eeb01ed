"""Part 6 - what is shown of the feed-forward networks of trained models."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import feed_forward_models as figures
from decoding_llama3.lessons.show import held_out_text, is_slow, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.transformer import Transformer

WRITERS = {"attention": "attention.wo", "feed-forward": "feed_forward.w_down"}


def some_ids(subject: Subject, text: str, most: int = 64) -> Int[Tensor, "1 seq"]:
    """Begin-of-text and the tokens of `text`; the first `most` of them where each run takes seconds."""
    ids = subject.ids(text)
    return ids[:, :most] if is_slow(subject.model) else ids


@contextmanager
def rewritten(model: nn.Module, names: Iterable[str], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While the context is open, the modules called `names` give `change(y)` in place of y."""
    handles = []
    try:
        for name in names:
            module = model.get_submodule(name)
            handles.append(module.register_forward_hook(lambda *there: change(there[-1])))
        yield
    finally:
        for handle in handles:
            handle.remove()


def silenced_parts(subject: Subject, text: str) -> Mapping[str, list[float]]:
    """The loss without attention, and without the feed-forward, of all blocks, of block 0 and of the others.

    Returns these losses by the part.
    """
    model, ids = subject.model, subject.ids(text)
    losses, before = {}, probe.loss_of(model, ids)
    for part, writer in WRITERS.items():
        names, losses[part] = probe.names_of(model, writer), []
        for chosen in (names, names[:1], names[1:]):
            with probe.intercepted(model, chosen, torch.zeros_like):  # what reads zeros writes zeros
                losses[part].append(probe.loss_of(model, ids))
    rows = [[part, *(f"{loss:.2f}" for loss in row)] for part, row in losses.items()]
    last = len(model.layers) - 1
    header = ["silenced", "in all blocks", "in block 0 alone", f"in blocks 1 to {last}"]
    knowing_nothing = torch.tensor(float(model.config.vocab_size)).log()
    caption = f"loss in nats per token: {before:.2f} with all parts, {knowing_nothing:.2f} knowing nothing"
    show_table(rows, header, caption)
    return losses


def as_table(text: str, *subjects: Subject | None, draws: int = 3) -> None:
    """The feed-forward of one block silenced, or replaced by one vector per token of the vocabulary.

    A token's vector is the mean of what the block writes for it after some other beginnings. As controls all
    tokens get one vector, the mean of these, or each that of another token of the text. Begin-of-text keeps its
    own: nothing stands before it, so a table has it exactly.
    """
    panels, found = {}, []
    for subject in present(*subjects):
        model, ids, n = subject.model, some_ids(subject, text), len(subject.model.layers)
        blocks = sorted({0, n // 2, n - 1}) if is_slow(model) else list(range(n))
        names, before = probe.names_of(model, "feed_forward"), probe.loss_of(model, ids)
        first, rows = table_rows(subject, ids, names, 3 if is_slow(model) else 8)
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(ids.shape[1] - 1, generator=generator) for _ in range(draws)]
        rises = {
            kind: []
            for kind in (
                "silenced",
                "one vector for all",
                "rows of other tokens (line: all draws)",
                "each its own row",
            )
        }
        for block in blocks:
            own = rows[block]
            choices = [0 * own, own.mean(dim=0).expand_as(own), *(own[order] for order in orders), own]
            written = torch.stack([torch.cat([first[block], vectors]) for vectors in choices])
            silenced, one, *others, right = _losses_with(model, ids, names[block], written) - before
            for row, found_here in zip(rises.values(), ([silenced], [one], others, [right]), strict=True):
                row.append(torch.stack(found_here))
        panels[subject.name] = blocks, {kind: torch.stack(row) for kind, row in rises.items()}
        silenced, _, _, right = (row[0].mean() for row in rises.values())
        found.append(f"{subject.name} {right:+.2f} (silenced {silenced:+.1f})")
    title = f"A table in place of block 0's feed-forward costs, in nats per token: {', '.join(found)}"
    alt = (
        "Bars by block: the rise of the loss when silenced, with one vector, other tokens' rows, each token's own."
    )
    show_figure(figures.draw_as_table(panels, title), alt)


def table_rows(
    subject: Subject, ids: Int[Tensor, "1 seq"], names: list[str], beginnings: int, length: int = 4
) -> tuple[list[Float[Tensor, "1 dim"]], list[Float[Tensor, "seq-1 dim"]]]:
    """What the modules `names` write for begin-of-text, and for each later token of `ids` after other beginnings.

    These are `length` tokens each, drawn from the held-out book; what is written is averaged over them.
    """
    book = torch.tensor(subject.tokenizer.encode(held_out_text()), device=ids.device)
    starts = torch.randint(len(book) - length, (beginnings,), generator=torch.Generator().manual_seed(0)).tolist()
    kinds, which = ids[0, 1:].unique(return_inverse=True)
    first, found = [], []
    for start in starts:
        before = torch.cat([ids[0, :1], book[start : start + length]]).expand(len(kinds), -1)
        with probe.recording(subject.model, names) as record:
            subject.model.hidden(torch.cat([before, kinds[:, None]], dim=1))
        first = [record.outputs[name][0, :1] for name in names]
        found.append([record.outputs[name][which, -1] for name in names])
    return first, [torch.stack(some).mean(dim=0) for some in zip(*found, strict=True)]


def _losses_with(
    model: Transformer, ids: Int[Tensor, "1 seq"], name: str, written: Float[Tensor, "ways seq dim"]
) -> Float[Tensor, " ways"]:
    """The loss with each of these in the place of what a module writes; a row of one batch for each."""
    rows = ids.expand(len(written), -1)
    with rewritten(model, [name], lambda _: written):
        return probe.next_token_losses(model(rows).float(), rows).mean(dim=-1).cpu()


def closed_gates(text: str, *subjects: Subject | None, draws: int = 3) -> None:
    """How many gates read less than 0, what these pass on, and what it costs to close them altogether.

    Or to let them all pass on the same, their mean in the block. As a control as many gates, drawn by chance, are
    closed.
    """
    panels, found, rows = {}, [], []
    for subject in present(*subjects):
        model, ids = subject.model, some_ids(subject, text)
        gates, downs = (probe.names_of(model, f"feed_forward.{w}") for w in ("w_gate", "w_down"))
        with probe.recording(model, [*gates, *downs]) as record:
            before = probe.loss_of(model, ids)
        # begin-of-text is left out: in many models its h drown all others
        g = torch.cat([record.outputs[name][0, 1:].float().cpu().flatten() for name in gates])
        h = torch.cat([record.inputs[name][0, 1:].float().cpu().flatten() for name in downs]).square()
        share, carried = (g < 0).float().mean().item(), (h[g < 0].sum() / h.sum()).item()
        panels[subject.name] = g[:: 1 + len(g) // 500_000], share, carried
        found.append(f"{share:.0%} in {subject.name}")
        with rewritten(model, gates, F.relu):
            closed = probe.loss_of(model, ids) - before
        with ExitStack() as stack:
            for name in gates:
                stack.enter_context(rewritten(model, [name], _all_alike(record.outputs[name])))
            alike = probe.loss_of(model, ids) - before
        generator, chance = torch.Generator().manual_seed(0), []
        for _ in range(2 if is_slow(model) else draws):
            with rewritten(model, gates, _zeroing(share, generator)):
                chance.append(probe.loss_of(model, ids) - before)
        rows.append([subject.name, f"{closed:+.2f}", f"{alike:+.2f}", f"{min(chance):+.2f} to {max(chance):+.2f}"])
    alt = "A histogram of what the gates read, the side below zero coloured, with two shares."
    show_figure(figures.draw_gate_inputs(panels, f"Gates that read less than 0: {', '.join(found)}"), alt)
    header = ["rise of the loss", "those below 0 closed", "set to their mean", "as many closed by chance"]
    show_table(rows, header)


def _all_alike(g: Tensor) -> Callable[[Tensor], Tensor]:
    """Gates that read less than 0 read one number: that for which the gate is the mean of theirs."""
    mean, lowest = F.silu(g[g < 0].float()).mean(), -1.2785  # where silu is lowest; from there on it rises
    numbers = torch.linspace(lowest, 0, 100_001, device=g.device)
    same = numbers[(F.silu(numbers) - mean).abs().argmin()].to(g.dtype)
    return lambda y: torch.where(y < 0, same, y)


def _zeroing(share: float, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda y: y * (torch.rand(y.shape, generator=generator) >= share).to(y.device)


def strongest_few(text: str, *subjects: Subject | None, draws: int = 2) -> None:
    """The loss when only some hidden features of each block are kept: the strongest of each token.

    As controls the same for all tokens, those that are strongest on average; and some by chance for each token.
    """
    panels, found = {}, []
    for subject in present(*subjects):
        model, ids = subject.model, some_ids(subject, text)
        shares = (0.1, 0.3, 0.5) if is_slow(model) else (0.03, 0.1, 0.2, 0.3, 0.5, 0.7)
        names, generator = probe.names_of(model, "feed_forward.w_down"), torch.Generator().manual_seed(0)
        with probe.recording(model, names) as record:
            before = probe.loss_of(model, ids)
        loud = [record.inputs[name][0, 1:].float().abs().mean(dim=0) for name in names]

        rises = {"by chance": [], "the same for all tokens": [], "the strongest of each token": []}
        for _ in range(1 if is_slow(model) else draws):
            sizes = [_drawn(generator)] * len(names)
            rises["by chance"].append([_rise_keeping(model, ids, share, sizes, before) for share in shares])
        same = [_always(size) for size in loud]
        own = [torch.abs] * len(names)
        for row, sizes in ((rises["the same for all tokens"], same), (rises["the strongest of each token"], own)):
            row.append([_rise_keeping(model, ids, share, sizes, before) for share in shares])
        panels[subject.name] = shares, rises
        (strongest,), (common,) = rises["the strongest of each token"], rises["the same for all tokens"]
        at = next((i for i, rise in enumerate(strongest) if rise < 0.05), len(shares) - 1)
        found.append(f"{shares[at]:.0%} of {subject.name}'s {strongest[at]:+.2f} or {common[at]:+.1f}")
    title = f"Loss if each token keeps its own strongest features, or all the same: {', '.join(found)}"
    alt = "The rise of the loss by the share of hidden features kept, in three ways to choose them."
    show_figure(figures.draw_few(panels, title), alt)


def _drawn(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda h: torch.rand(h.shape, generator=generator).to(h.device)


def _always(size: Float[Tensor, " hidden"]) -> Callable[[Tensor], Tensor]:
    return lambda h: size.expand(h.shape)


def _rise_keeping(
    model: Transformer, ids: Tensor, share: float, sizes: Sequence[Callable[[Tensor], Tensor]], before: float
) -> float:
    """How much the loss rises when only the features of the largest `sizes` are kept, of a block each."""
    with ExitStack() as stack:
        for name, size in zip(probe.names_of(model, "feed_forward.w_down"), sizes, strict=True):
            stack.enter_context(probe.intercepted(model, [name], _keeping(share, size)))
        return probe.loss_of(model, ids) - before


def _keeping(share: float, size_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(h: Tensor) -> Tensor:
        size = size_of(h).float()
        weakest = size.topk(max(1, round(share * h.shape[-1])), dim=-1).values[..., -1:]
        return h * (size >= weakest)

    return keep
