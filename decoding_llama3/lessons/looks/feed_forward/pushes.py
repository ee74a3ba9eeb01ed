"""Part 6 - which words a hidden feature pushes."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import feed_forward_models as figures
from decoding_llama3.lessons.looks.feed_forward.mechanism import quoted
from decoding_llama3.lessons.looks.feed_forward.words import ids_of_words
from decoding_llama3.lessons.show import is_slow, ordinary_ids, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.transformer import Transformer


def sinking(text: str, words: str, *subjects: Subject | None, draws: int = 10) -> None:
    """The feature of the last block that pushes these words, silenced: what becomes of their probability.

    As a control other features of the block, drawn by chance, are silenced.
    """
    panels, found = {}, []
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        down = f"layers.{len(model.layers) - 1}.feed_forward.w_down"
        with probe.recording(model, [down, "norm"]) as record:
            model.hidden(ids)
        chosen = slice(1, None, 6 if is_slow(model) else 1)
        h, stream = record.inputs[down][0, chosen], record.inputs["norm"][0, chosen]
        listed, columns = ids_of_words(subject, words), probe.dequantized_weight(model.get_submodule(down))
        feature, sign = pusher_of(subject, columns, listed)
        others = torch.randint(columns.shape[1], (draws,), generator=torch.Generator().manual_seed(0)).tolist()
        before = _log_p(model, stream, listed)
        change, *control = (
            _log_p(model, stream - h[:, i, None] * columns[:, i].to(h.device, h.dtype), listed) - before
            for i in (feature, *others)
        )
        said = sign * h[:, feature].float().cpu()
        names = " ".join(quoted(subject, listed))
        panels[subject.name] = f"{feature:,} pushes {names}", said, change, torch.stack(control)
        most = int(said.argmax())
        largest = max(abs(other[most].item()) for other in control)
        found.append(f"by {change[most]:+.2f} nats in {subject.name} ({draws} others: at most {largest:.2f})")
    title = f"Silenced where it says its words most, a feature changes their log p {', '.join(found)}"
    alt = "A dot per token: how much a feature says its words there, and how their log p changes without it."
    show_figure(figures.draw_sinking(panels, title), alt)


def _log_p(
    model: Transformer, stream: Float[Tensor, "tokens dim"], words: Sequence[int]
) -> Float[Tensor, " tokens"]:
    """The mean log probability of some words, read off the stream at its end."""
    return model.output(model.norm(stream)).float().log_softmax(dim=-1)[:, list(words)].mean(dim=-1).cpu()


def pusher_of(subject: Subject, columns: Float[Tensor, "dim hidden"], listed: Sequence[int]) -> tuple[int, int]:
    """The feature whose column pushes all these words most beside other tokens, and the sign it needs for that."""
    unembed = probe.dequantized_weight(subject.model.output) * subject.model.norm.weight.float().cpu()
    pushes = unembed @ columns
    ordinary = pushes[ordinary_ids(subject.tokenizer)]
    pushes = (pushes[list(listed)] - ordinary.mean(dim=0)) / ordinary.std(dim=0)
    up, down = pushes.amin(dim=0), (-pushes).amin(dim=0)
    return (int(up.argmax()), 1) if up.max() >= down.max() else (int(down.argmax()), -1)


def pushed_word(
    text: str, word: str, *subjects: Subject | None, counts: Sequence[int] = (0, 1, 2, 5, 10, 20), draws: int = 4
) -> None:
    """The probability of `word` after `text`, with the features silenced at the last token that push it most.

    Features of the upper half of the blocks. As controls others are silenced: drawn by chance, and drawn among
    those that write as much.
    """
    panels, found, rows, name, shown = {}, [], [], "", len(counts) // 2
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        token = subject.tokenizer.encode(word)[0]
        names = probe.names_of(model, "feed_forward.w_down")[len(model.layers) // 2 :]
        pushes, size = pushes_and_size(subject, ids, names, token)
        order, loud = pushes.argsort(descending=True), size.argsort(descending=True)
        generator = torch.Generator().manual_seed(0)
        sets = [order[:count] for count in counts]
        for _ in range(draws):
            sets += [torch.randperm(len(pushes), generator=generator)[:count] for count in counts]
            sets += [_others_as_loud(loud, order[:count], generator) for count in counts]
        found_p = torch.tensor(_probabilities(model, ids, token, names, sets)).view(-1, len(counts))
        pushers, others = (
            found_p[0].tolist(),
            {"drawn by chance": found_p[1::2], "that write as much": found_p[2::2]},
        )
        panels[subject.name] = counts, pushers, others
        least = found_p[1:, shown].min()
        name = quoted(subject, [token])[0]
        rows.append([subject.name, len(pushes), _listed(model, names, order[: counts[shown]], pushes)])
        found.append(f"{subject.name} from {pushers[0]:.3f} to {pushers[shown]:.3f} (others: {least:.3f} or more)")
    title = f"{counts[shown]} features silenced, {name} goes in {'; in '.join(found)}"
    alt = "The probability by how many features are silenced: those that push the word, and two kinds of others."
    show_figure(figures.draw_pushers_silenced(panels, name, title), alt)
    show_table(rows, ["model", "features", f"those that add most to the logit of {name}: block.feature"])


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
    model: Transformer, ids: Int[Tensor, "1 seq"], token: int, names: Sequence[str], sets: Sequence[Tensor]
) -> list[float]:
    """The probability of `token` at the end, with each of these sets of features silenced at the last token.

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
    return model.output(last).float().softmax(dim=-1)[:, token].tolist()


def _masked(masks: Float[Tensor, "sets hidden"]) -> Callable[[Tensor], Tensor]:
    def change(h: Tensor) -> Tensor:
        return torch.cat([h[:, :-1], h[:, -1:] * masks[:, None].to(h.device, h.dtype)], dim=1)

    return change
