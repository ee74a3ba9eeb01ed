"""Part 3 - what is shown of the norms of trained models."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import norm_models as figures
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.norm import RMSNorm
from decoding_llama3.transformer import Transformer


def exchanged_weight(subject: Subject, text: str, draws: int = 5) -> None:
    """What the loudest feature is worth: the loss with its weight set to 0 in all norms, or in some of them, for
    all tokens but the first.

    The same is done with features drawn by chance, as many as it takes to be as loud together where they are read.
    """
    ids, model, (before, after) = subject.ids(text), subject.model, at_norms(subject, text)
    feature, base = loudest_feature(before), probe.loss_of(model, ids)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for kind, part in WHERE.items():
        names = [name for name in after if part in name or (part == "last" and name == "norm")]
        read = torch.stack([F.normalize(after[name], dim=-1).square().mean(0) for name in names]).mean(0)
        groups = [as_loud(read, feature, generator) for _ in range(draws)]
        silenced = [_loss_without(model, ids, names, group) - base for group in ([feature], *groups)]
        counts = sorted(map(len, groups))
        by_chance = f"{min(silenced[1:]):+.2f} to {max(silenced[1:]):+.2f}"
        rows.append(
            [kind, f"{read[feature]:.1%}", f"{silenced[0]:+.2f}", by_chance, f"{counts[0]} to {counts[-1]}"]
        )
    caption = f"{subject.name}: by how much its loss of {base:.2f} nats per token rises (first token left alone)"
    share = f"share of feature {feature}"
    head = ["silenced in", share, f"feature {feature}", f"{draws} random groups, as loud", "features in a group"]
    show_table(rows, head, caption)


WHERE = {
    "every norm": "norm",
    "the norms before attention": "attention_norm",
    "the norms before feed-forward": "ffn_norm",
    "the last norm": "last",
}


def as_loud(read: Float[Tensor, " dim"], feature: int, generator: torch.Generator) -> list[int]:
    """Features drawn by chance until they hold the share of `feature` together, or no more are left."""
    order = [i for i in torch.randperm(len(read), generator=generator).tolist() if i != feature]
    enough = int((read[order].cumsum(0) < read[feature]).sum()) + 1
    return order[:enough]


def _loss_without(model: Transformer, ids: Tensor, names: Sequence[str], features: Sequence[int]) -> float:
    """The loss with the weight of these features at 0 in these norms, for all tokens but the first."""

    def silence(_part: torch.nn.Module, _inputs: object, read: Tensor) -> Tensor:
        read = read.clone()
        read[:, 1:, list(features)] = 0.0
        return read

    hooks = [model.get_submodule(name).register_forward_hook(silence) for name in names]
    try:
        return probe.loss_of(model, ids)
    finally:
        for hook in hooks:
            hook.remove()


def at_norms(subject: Subject, text: str, skip: int = 1) -> list[dict[str, Float[Tensor, "seq dim"]]]:
    """Each token of `text` but the first `skip` before and after each norm, by the norm's name."""
    names = [name for name, part in subject.model.named_modules() if isinstance(part, RMSNorm)]
    with probe.recording(subject.model, names) as record:
        subject.model.hidden(subject.ids(text))
    return [
        {name: side[name][0, skip:].float().cpu() for name in names} for side in (record.inputs, record.outputs)
    ]


def depth(text: str, *subjects: Subject | None) -> None:
    """The size of each token as it comes to each norm, divided, and as it is read; and a table of it."""
    panels, grown, columns = {}, [], []
    for subject in present(*subjects):
        before, after = at_norms(subject, text, skip=0)
        divided = [F.rms_norm(x, x.shape[-1:], eps=subject.model.config.norm_eps) for x in before.values()]
        sizes = [[x.square().mean(-1).sqrt() for x in side] for side in (before.values(), divided, after.values())]
        panels[subject.name] = [torch.stack(side) for side in sizes], subject.places()
        arrives = panels[subject.name][0][0]
        median = arrives[:, 1:].median(dim=1).values
        grown.append(f"{median[-1] / median[0]:.0f} times in {subject.name}")
        columns.append(in_numbers(torch.stack(list(before.values())), subject.words(text)))
    title = (
        f"From the first norm to the last the stream grows, {' and '.join(grown)}; divided, every token is at 1"
    )
    alt = "By depth: how large tokens arrive at a norm, 1 after the division, and how large they are read."
    show_figure(figures.draw_depth(panels, title), alt)
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    show_table(rows, ["tokens as they arrive at the norms", *panels])


def in_numbers(before: Float[Tensor, "norms seq dim"], words: list[str]) -> dict[str, str]:
    """The growth at the first feed-forward, how far single tokens lie above the median, which, and in which
    feature."""
    arrives = before.square().mean(-1).sqrt()
    median = arrives[:, 1:].median(dim=1).values
    ratios = arrives / median[:, None]
    above = [word for word, ratio in zip(words[1:], ratios[:, 1:].amax(dim=0).tolist(), strict=True) if ratio > 3]
    kinds = ", ".join(f"{above.count(word)} × {word!r}" for word in dict.fromkeys(above))
    named = f"{len(above)}, all of them {above[0]!r}" if len(set(above)) == 1 else f"{len(above)}: {kinds}"
    first, largest = _largest(before, ratios, 0), 1 + int(ratios[:, 1:].amax(dim=0).argmax())
    other = _largest(before, ratios, largest)
    return {
        "RMS of the median token: growth at the first feed-forward": f"{median[2] / median[1]:.1f} times",
        "smallest RMS of a token, at any norm": f"{arrives.min():.2g}",
        "first token: at most how many times the median RMS": first[0],
        "share of its largest feature there": first[1],
        "longest other token: at most how many times the median RMS": other[0],
        "share of its largest feature": other[1],
        "other tokens with more than 3 times the median RMS": named if above else "none",
    }


def _largest(
    before: Float[Tensor, "norms seq dim"], ratios: Float[Tensor, "norms seq"], token: int
) -> tuple[str, str]:
    """How long a token is at most beside the median token, and the share of its largest feature there."""
    at = int(ratios[:, token].argmax())
    squares = before[at, token].square()
    feature = int(squares.argmax())
    return f"{ratios[at, token]:.1f}", f"{squares[feature] / squares.sum():.0%} (feature {feature})"


def loudest(text: str, *subjects: Subject | None) -> None:
    """The loudest feature of the stream: its share of what arrives at each norm, and of what is read there."""
    panels, found = {}, []
    for subject in present(*subjects):
        before, after = at_norms(subject, text)
        feature = loudest_feature(before)
        shares = [
            torch.stack([(x[:, feature].square() / x.square().sum(-1)).median() for x in side.values()])
            for side in (before, after)
        ]
        panels[subject.name] = feature, shares, subject.places()
        found.append(f"{shares[0].max():.0%} in {subject.name}")
    title = f"Of the median token's squared length one feature holds up to {' and '.join(found)}"
    alt = "By depth: the share of one feature in what arrives at a norm, and in what each kind of part reads."
    show_figure(figures.draw_loudest(panels, title), alt)


def loudest_feature(before: dict[str, Float[Tensor, "seq dim"]]) -> int:
    """The feature that holds the largest share of a token's squared length, over all tokens and norms."""
    shares = [(x.square() / x.square().sum(-1, keepdim=True)).mean(0) for x in before.values()]
    return int(torch.stack(shares).sum(0).argmax())


def mean_direction(text: str, *subjects: Subject | None, draws: int = 1000) -> None:
    """The share of a token that LayerNorm would take away with its mean, beside directions drawn by chance."""
    panels, found = {}, []
    for subject in present(*subjects):
        before, _ = at_norms(subject, text)
        dim = subject.model.config.dim
        directions = F.normalize(torch.randn(dim, draws, generator=torch.Generator().manual_seed(0)), dim=0)
        ones = torch.full((dim, 1), dim**-0.5)
        units = [F.normalize(x, dim=-1) for x in before.values()]
        shares = [torch.stack([(x @ d).square().mean(0) for x in units]) for d in (ones, directions)]
        panels[subject.name] = shares[0][:, 0], shares[1], subject.places()
        low, high = shares[1].quantile(torch.tensor([0.025, 0.975]), dim=1)
        inside = int(((shares[0][:, 0] >= low) & (shares[0][:, 0] <= high)).sum())
        found.append(f"at {inside} of {len(before)} norms of {subject.name}")
    title = f"The share along the mean lies within the band of random directions {', '.join(found)}"
    alt = "By depth: the share of a token along the direction of all ones, within the band of random directions."
    show_figure(figures.draw_mean_direction(panels, title), alt)


def weights(text: str, *subjects: Subject | None) -> None:
    """The learned weights of every norm, with those of the feature that is the loudest in `text`."""
    panels, found = {}, []
    for subject in present(*subjects):
        feature = loudest_feature(at_norms(subject, text)[0])
        parts = [part for part in subject.model.modules() if isinstance(part, RMSNorm)]
        learned = [part.weight.float().cpu() for part in parts]
        panels[subject.name] = feature, learned, subject.places()
        small = sum(int((w.abs() < w[feature].abs()).sum()) < 3 for w in learned)
        found.append(f"{small} of {len(learned)} norms of {subject.name}")
    title = f"The loudest feature has one of the 3 smallest weights in {' and '.join(found)}"
    alt = "For each norm a column of dots, its learned weights, around their median; one feature is marked."
    show_figure(figures.draw_weights(panels, title), alt)
