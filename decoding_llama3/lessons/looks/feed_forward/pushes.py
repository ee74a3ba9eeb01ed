"""Part 6 - which words a hidden feature pushes."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import feed_forward_models as figures
from decoding_llama3.lessons.looks.feed_forward.mechanism import quoted
from decoding_llama3.lessons.looks.feed_forward.models import some_ids
from decoding_llama3.lessons.looks.feed_forward.words import ids_of_words
from decoding_llama3.lessons.show import ordinary_ids, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.transformer import Transformer

CONTROLS = ("drawn by chance", "that write as much")


def sinking(text: str, words: str, *subjects: Subject | None, draws: int = 5) -> None:
    """The feature of the last block but one that pushes these words, silenced: what becomes of their probability.

    As a control other features of the block are silenced, at each token one of the ten that write there most
    nearly as much.
    """
    panels, found = {}, []
    for subject in present(*subjects):
        model, ids = subject.model, some_ids(subject, text)
        block = max(0, len(model.layers) - 2)
        down = f"layers.{block}.feed_forward.w_down"
        columns = probe.dequantized_weight(model.get_submodule(down))
        listed = ids_of_words(subject, words)
        feature, sign = pusher_of(subject, columns, listed)
        with probe.recording(model, [f"layers.{block}", down]) as record:
            model.hidden(ids)
        stream, h = record.outputs[f"layers.{block}"], record.inputs[down][0]
        silenced = [torch.full((len(h),), feature)]
        silenced += _as_loud(h.float().cpu().abs() * columns.norm(dim=0), feature, draws)
        taken = [(h.gather(1, i[:, None].to(h.device)) * columns.T[i].to(h.device, h.dtype)) for i in silenced]
        streams = [stream, *(stream - some for some in taken)]
        before, change, *control = (_log_p_from(model, some, block + 1, listed) for some in streams)
        change, control = change - before, torch.stack(control) - before
        said = sign * h[1:, feature].float().cpu()
        loudest = said.abs().argsort(descending=True)[: -(-len(said) // 5)]
        panels[subject.name] = (
            f"{block}.{feature} pushes {' '.join(quoted(subject, listed))}",
            said,
            change,
            control,
        )
        own, others = (values[..., loudest].abs().mean() for values in (change, control))
        found.append(f"{own:.2f} nats in {subject.name} (others {others:.2f})")
    title = f"Where the feature is loud, silencing it moves its words by {', '.join(found)}"
    alt = "A dot per token: the feature there, with its sign, and how the log p of its words changes without it."
    show_figure(figures.draw_sinking(panels, title), alt)


def _as_loud(size: Float[Tensor, "tokens hidden"], feature: int, draws: int) -> list[Int[Tensor, " tokens"]]:
    """For each token another feature, one of the ten that write most nearly as much there; drawn several times."""
    apart = (size - size[:, [feature]]).abs()
    apart[:, feature] = torch.inf
    near = apart.topk(min(10, size.shape[1] - 1), largest=False).indices
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(near.shape[1], (draws, len(size), 1), generator=generator)
    return [near.gather(1, some)[:, 0] for some in drawn]


def _log_p_from(
    model: Transformer, stream: Float[Tensor, "1 seq dim"], block: int, words: Sequence[int]
) -> Float[Tensor, " seq-1"]:
    """The mean log probability of some words after each token, from the stream that comes to a block."""
    positions = torch.arange(stream.shape[1], device=stream.device)
    rotation = model.rotation_at(positions)
    for layer in list(model.layers)[block:]:
        stream = layer(stream, positions, rotation)
    log_p = model.output(model.norm(stream[0, 1:])).float().log_softmax(dim=-1)
    return log_p[:, list(words)].mean(dim=-1).cpu()


def pusher_of(subject: Subject, columns: Float[Tensor, "dim hidden"], listed: Sequence[int]) -> tuple[int, int]:
    """The feature whose column pushes all these words most beside other tokens, and the sign it needs for that."""
    unembed = probe.dequantized_weight(subject.model.output) * subject.model.norm.weight.float().cpu()
    pushes = unembed @ columns
    ordinary = pushes[ordinary_ids(subject.tokenizer)]
    pushes = (pushes[list(listed)] - ordinary.mean(dim=0)) / ordinary.std(dim=0)
    up, down = pushes.amin(dim=0), (-pushes).amin(dim=0)
    return (int(up.argmax()), 1) if up.max() >= down.max() else (int(down.argmax()), -1)


def pushed_word(
    text: str,
    word: str,
    *subjects: Subject | None,
    counts: Sequence[int] = (0, 1, 2, 3, 4, 5, 10, 20),
    draws: int = 4,
) -> None:
    """The probability of `word` after `text`, with the features silenced at the last token that push it most.

    Features of the upper half of the blocks. As controls others are silenced: drawn by chance, and drawn among
    those that write as much.
    """
    panels, found, rows, name, shown = {}, [], [], "", min(5, len(counts) - 2)
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        token = subject.tokenizer.encode(word)[0]
        names = probe.names_of(model, "feed_forward.w_down")[len(model.layers) // 2 :]
        pushes, size = pushes_and_size(subject, ids, names, token)
        order = pushes.argsort(descending=True)
        sets = _sets_to_silence(order, size, counts, draws)
        p = _probabilities(model, ids, names, [*sets, order[counts[shown] :], order])
        found_p, (kept, none_kept) = p[:-2, token].view(-1, len(counts)), p[-2:, token].tolist()
        pushers, others = found_p[0].tolist(), dict(zip(CONTROLS, (found_p[1::2], found_p[2::2]), strict=True))
        panels[subject.name] = counts, pushers, others
        least = found_p[1:, shown].min()
        name = quoted(subject, [token])[0]
        firsts = _firsts(counts, quoted(subject, p[: len(counts)].argmax(dim=-1).tolist()))
        odds = " ".join(f"{value:+.1f}" for value in torch.logit(found_p[0].double()).tolist())
        listed = _listed(model, names, order[: counts[shown]], pushes)
        rows.append([subject.name, len(pushes), listed, odds, firsts, f"{kept:.3f} ({none_kept:.3f})"])
        found.append(f"{subject.name} from {pushers[0]:.3f} to {pushers[shown]:.3f} (others: {least:.3f} or more)")
    title = f"{counts[shown]} features silenced, {name} goes in {'; in '.join(found)}"
    alt = "The probability by how many features are silenced: those that push the word, and two kinds of others."
    show_figure(figures.draw_pushers_silenced(panels, name, title), alt)
    added = f"those that add most to the logit of {name}: block.feature"
    odds = f"log odds with {', '.join(map(str, counts))} silenced"
    kept = f"probability with only these {counts[shown]} kept (none kept)"
    show_table(rows, ["model", "features", added, odds, "the likeliest word", kept])


def _sets_to_silence(order: Tensor, size: Tensor, counts: Sequence[int], draws: int) -> list[Tensor]:
    """The first of `order`, as many as each count says; then for each draw as many by chance, and as loud ones."""
    generator, loud = torch.Generator().manual_seed(0), size.argsort(descending=True)
    sets = [order[:count] for count in counts]
    for _ in range(draws):
        sets += [torch.randperm(len(order), generator=generator)[:count] for count in counts]
        sets += [_others_as_loud(loud, order[:count], generator) for count in counts]
    return sets


def _firsts(counts: Sequence[int], words: Sequence[str]) -> str:
    """The likeliest word at each count, with the counts from which on it is another."""
    changes = [i for i in range(len(words)) if i == 0 or words[i] != words[i - 1]]
    return ", ".join(f"from {counts[i]} on {words[i]}" for i in changes)


def _listed(model: Transformer, names: Sequence[str], features: Tensor, pushes: Tensor) -> str:
    hidden, first = model.config.hidden_dim, len(model.layers) - len(names)
    return " · ".join(f"{first + i // hidden}.{i % hidden} {pushes[i]:+.2f}" for i in features.tolist())


def pushes_and_size(
    subject: Subject, ids: Int[Tensor, "1 seq"], names: Sequence[str], token: int
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """What each feature of these matrices adds at the last token to the logit of `token`, and how much it writes.

    The logit is counted from the mean of all, and the last norm's scale is held fixed.
    """
    model = subject.model
    with probe.recording(model, [*names, "norm"]) as record:
        model.hidden(ids)
    last = record.inputs["norm"][0, -1].float().cpu()
    scale = model.norm.weight.float().cpu() * torch.rsqrt(last.square().mean() + model.norm.eps)
    unembed = probe.dequantized_weight(model.output)
    direction = scale * (unembed[token] - unembed.mean(dim=0))
    pushes, size = [], []
    for matrix in names:
        h, columns = (
            record.inputs[matrix][0, -1].float().cpu(),
            probe.dequantized_weight(model.get_submodule(matrix)),
        )
        pushes.append(h * (direction @ columns))
        size.append(h.abs() * columns.norm(dim=0))
    return torch.cat(pushes), torch.cat(size)


def _others_as_loud(loud: Tensor, pushers: Tensor, generator: torch.Generator) -> Tensor:
    among = loud[: 5 * len(pushers)]
    among = among[~torch.isin(among, pushers)]
    return among[torch.randperm(len(among), generator=generator)[: len(pushers)]]


def _probabilities(
    model: Transformer, ids: Int[Tensor, "1 seq"], names: Sequence[str], sets: Sequence[Tensor]
) -> Float[Tensor, "sets vocab"]:
    """The probabilities at the end, with each of these sets of features silenced at the last token.

    A row of one batch for each set.
    """
    hidden = model.config.hidden_dim
    with ExitStack() as stack:
        for i, matrix in enumerate(names):
            masks = torch.ones(len(sets), hidden)
            for mask, silenced in zip(masks, sets, strict=True):
                mask[silenced[silenced // hidden == i] % hidden] = 0
            stack.enter_context(probe.intercepted(model, [matrix], _masked(masks)))
        last = model.hidden(ids.expand(len(sets), -1))[:, -1]
    return model.output(last).float().softmax(dim=-1).cpu()


def _masked(masks: Float[Tensor, "sets hidden"]) -> Callable[[Tensor], Tensor]:
    def change(h: Tensor) -> Tensor:
        return torch.cat([h[:, :-1], h[:, -1:] * masks[:, None].to(h.device, h.dtype)], dim=1)

    return change
