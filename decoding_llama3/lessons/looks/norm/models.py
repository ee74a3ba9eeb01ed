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


def exchanged_weight(subject: Subject, text: str, draws: int = 8) -> None:
    """What the loudest feature is worth: its weights in all norms set to the median of the norm, or to 0.

    The same is done with features drawn by chance.
    """
    ids, model = subject.ids(text), subject.model
    norms = [part for part in model.modules() if isinstance(part, RMSNorm)]
    feature = loudest_feature(at_norms(subject, text)[0])
    others = torch.randint(model.config.dim, (draws,), generator=torch.Generator().manual_seed(0)).tolist()
    before, rows = probe.loss_of(model, ids), []
    for what in ("turned up to the median", "silenced"):
        losses = {
            chosen: _loss_with_weight(model, ids, norms, chosen, what) - before for chosen in (feature, *others)
        }
        by_chance = sorted(losses[other] for other in others)
        rows.append([what, f"{losses[feature]:+.2f}", f"{by_chance[0]:+.2f} to {by_chance[-1]:+.2f}"])
    caption = f"{subject.name}: loss {before:.2f} nats per token with all weights as they are"
    show_table(rows, ["in every norm", f"feature {feature}", f"{draws} features by chance"], caption)


def _loss_with_weight(model: Transformer, ids: Tensor, norms: Sequence[RMSNorm], feature: int, what: str) -> float:
    kept = [norm.weight.data for norm in norms]
    for norm in norms:
        norm.weight.data = norm.weight.data.clone()
        norm.weight.data[feature] = norm.weight.data.abs().median() if what.startswith("turned") else 0.0
    try:
        return probe.loss_of(model, ids)
    finally:
        for norm, weight in zip(norms, kept, strict=True):
            norm.weight.data = weight


def at_norms(subject: Subject, text: str) -> list[dict[str, Float[Tensor, "seq dim"]]]:
    """Each token of `text` but the first before and after each norm, by the norm's name."""
    names = [name for name, part in subject.model.named_modules() if isinstance(part, RMSNorm)]
    with probe.recording(subject.model, names) as record:
        subject.model.hidden(subject.ids(text))
    return [{name: side[name][0, 1:].float().cpu() for name in names} for side in (record.inputs, record.outputs)]


def depth(text: str, *subjects: Subject | None) -> None:
    """The size of each token as it comes to each norm, divided by its RMS, and as it is read."""
    panels, grown = {}, []
    for subject in present(*subjects):
        before, after = at_norms(subject, text)
        divided = [F.rms_norm(x, x.shape[-1:], eps=subject.model.config.norm_eps) for x in before.values()]
        rows = [[x.square().mean(-1).sqrt() for x in side] for side in (before.values(), divided, after.values())]
        panels[subject.name] = [torch.stack(side) for side in rows], subject.places()
        stream = panels[subject.name][0][0].median(dim=1).values
        grown.append(f"{subject.name}'s {stream[-1] / stream[0]:.0f} times")
    title = f"From the first norm to the last the stream grows, {', '.join(grown)}; divided, every token is at 1"
    alt = "By depth: how large tokens arrive at a norm, 1 after the division, and how large they are read."
    show_figure(figures.draw_depth(panels, title), alt)


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
        top = int(shares[0].argmax())
        arrives, read = (f"{share[top]:.0%}" for share in shares)
        place = panels[subject.name][2][top]
        found.append(
            f"{subject.name}'s feature {feature}: {arrives} of what arrives at {place}, {read} of what is read"
        )
    title = "; ".join(found)
    alt = "For each norm a pair of bars: the share of one feature in what arrives and in what is read."
    show_figure(figures.draw_loudest(panels, title), alt)


def loudest_feature(before: dict[str, Float[Tensor, "seq dim"]]) -> int:
    """The feature that holds the largest share of a token's squared length, over all tokens and norms."""
    shares = [(x.square() / x.square().sum(-1, keepdim=True)).mean(0) for x in before.values()]
    return int(torch.stack(shares).sum(0).argmax())


def mean_direction(text: str, *subjects: Subject | None, draws: int = 200) -> None:
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
    by_chance = all((share <= chance.quantile(0.975, dim=1)).all() for share, chance, _ in panels.values())
    verdict = "no more than chance" if by_chance else "in places more than chance"
    title = f"The mean, which LayerNorm takes away, holds {' and '.join(found)}: {verdict}"
    alt = "By depth: the share of a token along the direction of all ones, within the band of random directions."
    show_figure(figures.draw_mean_direction(panels, title), alt)


def weights(*subjects: Subject | None) -> None:
    """The learned weights of every norm."""
    panels, found = {}, []
    for subject in present(*subjects):
        parts = [part for part in subject.model.modules() if isinstance(part, RMSNorm)]
        panels[subject.name] = [part.weight.float().cpu() for part in parts], subject.places()
        below = (torch.cat(panels[subject.name][0]) < 1).float().mean()
        found.append(f"{below:.0%} of {subject.name}'s")
    title = f"The weights started at 1: {' and '.join(found)} are below it now"
    alt = "For each norm a column of dots, its learned weights, around their median."
    show_figure(figures.draw_weights(panels, title), alt)
