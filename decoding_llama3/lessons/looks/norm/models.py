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
    """What the loudest feature is worth: the loss with its weight set to 0 in all norms, or in some of them.

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
    caption = f"{subject.name}: by how much its loss of {base:.2f} nats per token rises"
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
    """The loss with the weight of these features at 0 in these norms."""
    norms = [model.get_parameter(f"{name}.weight") for name in names]
    kept = [weight.data for weight in norms]
    for weight in norms:
        weight.data = weight.data.clone()
        weight.data[list(features)] = 0.0
    try:
        return probe.loss_of(model, ids)
    finally:
        for weight, data in zip(norms, kept, strict=True):
            weight.data = data


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
    panels, grown, rows = {}, [], []
    for subject in present(*subjects):
        before, after = at_norms(subject, text, skip=0)
        divided = [F.rms_norm(x, x.shape[-1:], eps=subject.model.config.norm_eps) for x in before.values()]
        sizes = [[x.square().mean(-1).sqrt() for x in side] for side in (before.values(), divided, after.values())]
        panels[subject.name] = [torch.stack(side) for side in sizes], subject.places()
        arrives = panels[subject.name][0][0]
        median = arrives[:, 1:].median(dim=1).values
        grown.append(f"{median[-1] / median[0]:.0f} times in {subject.name}")
        rows.append([subject.name, *in_numbers(arrives, median, subject.words(text))])
    title = (
        f"From the first norm to the last the stream grows, {' and '.join(grown)}; divided, every token is at 1"
    )
    alt = "By depth: how large tokens arrive at a norm, 1 after the division, and how large they are read."
    show_figure(figures.draw_depth(panels, title), alt)
    head = [
        "model",
        "at the first feed-forward alone",
        "first token, at most",
        "others, at most",
        "others above 3",
    ]
    show_table(
        rows, head, "How many times the stream grows; how many times the median token's RMS other tokens have"
    )


def in_numbers(
    arrives: Float[Tensor, "norms seq"], median: Float[Tensor, " norms"], words: list[str]
) -> list[str]:
    """The growth at the first feed-forward, and how far single tokens lie above the median, and where."""
    ratios = arrives / median[:, None]
    top = ratios.max(dim=0).values
    above = [word for word, ratio in zip(words[1:], top[1:].tolist(), strict=True) if ratio > 3]
    named = ", ".join(f"{above.count(word)} times {word!r}" for word in dict.fromkeys(above))
    return [f"{median[2] / median[1]:.1f}", f"{top[0]:.1f}", f"{top[1:].max():.1f}", named or "none"]


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
        found.append(f"{shares[0].max():.0%} of a token in {subject.name}")
    title = f"One feature holds up to {' and '.join(found)}"
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
        found.append(f"{shares[0].mean():.1%} of {subject.name}")
    out = []
    for share, chance, places in panels.values():
        low, high = chance.quantile(torch.tensor([0.025, 0.975]), dim=1)
        out.append(f"{int(((share < low) | (share > high)).sum())} of {len(places)} norms")
    title = f"The mean holds {', '.join(found)}; it leaves the band at {' and '.join(out)}"
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
