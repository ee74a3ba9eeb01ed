"""Part 7 - what is shown of trained models as a whole."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.experiments import ablation
from decoding_llama3.experiments.ablation.statistics import Difference
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import transformer_models as figures
from decoding_llama3.lessons.looks.transformer.credit import chance
from decoding_llama3.lessons.show import is_slow, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present, token_strings
from decoding_llama3.transformer import Transformer


def lens(text: str, *subjects: Subject | None) -> None:
    """The word that a model would say at each depth, after each token of `text`; a figure for each model."""
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        depths = [x[0].softmax(dim=-1).max(dim=-1) for x in probe.logit_lens(model, ids)]
        p, best = (torch.stack(side).cpu() for side in zip(*depths, strict=True))  # (depths, seq)
        n, same = len(best), (best == best[-1]).sum(dim=-1).tolist()
        words, names = subject.words(text), ["embedding", *(f"block {i}" for i in range(n - 1))]
        half, late = n // 2, max(0, n - 2)
        title = (
            f"{subject.name}: of its {len(words)} predictions {same[half]} can be read off after {names[half]}, "
            f"{same[late]} after {names[late]}"
        )
        shown = sorted({round(i * (n - 1) / 8) for i in range(9)}) if n > 9 else list(range(n))
        said = [token_strings(best[i], subject.tokenizer) for i in shown]
        alt = "A grid of words: rows are depths, columns tokens; darker cells are more probable."
        show_figure(figures.draw_lens(said, p[shown], words, [names[i] for i in shown], title), alt)


def lens_losses(subject: Subject, text: str) -> list[float]:
    """The loss on `text` of what is read off the stream after each block, in nats per token."""
    ids = subject.ids(text)
    return [probe.next_token_losses(z, ids).mean().item() for z in probe.logit_lens(subject.model, ids)[1:]]


def spared(text: str, *subjects: Subject | None) -> dict[str, Float[Tensor, " blocks"]]:
    """Rise of the loss without each block, with its interval over the tokens; of a slow model on the first 64.

    Returns the mean rises by model.
    """
    panels, found = {}, []
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        ids = ids[:, :64] if is_slow(model) else ids
        rises = without_each_block(model, ids).cpu()
        mean, half = rises.mean(dim=1), 1.96 * rises.std(dim=1) / rises.shape[1] ** 0.5
        panels[f"{subject.name}, {rises.shape[1]} tokens"] = mean, half
        first = int(mean.argmax())
        found.append(
            f"{subject.name} loses {mean[first]:.1f} nats without block {first}, {mean.median():.2f} without "
            f"the median one of {len(mean)}"
        )
        held = int((mean <= half).logical_and(mean >= -half).sum())
        most = [f"{i} ({mean[i]:+.1f})" for i in range(len(mean)) if mean[i] - half[i] > 0 and mean[i] >= 1]
        print(f"{subject.name}: a nat or more without {', '.join(most) or 'none'}; {held} intervals hold 0")
    alt = "Bars: rise of the loss without each block, for each model, with intervals."
    show_figure(figures.draw_spared(panels, "; ".join(found)), alt)
    return {name: mean for name, (mean, _) in panels.items()}


def without_each_block(model: Transformer, ids: Int[Tensor, "1 seq"]) -> Float[Tensor, "blocks seq-1"]:
    """By how much each token's loss rises without each block: a batch that grows by a row for each."""
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation, x = model.rotation_at(positions), model.tok_embeddings(ids)
    for layer in model.layers:
        x = torch.cat([layer(x, positions, rotation), x[:1]])
    losses = torch.cat([probe.next_token_losses(model.output(model.norm(row)).float(), ids) for row in x.split(1)])
    return losses[1:] - losses[:1]


def neighbours(subject: Subject, text: str, begin: str) -> list[tuple[float, float]]:
    """Blocks and their next neighbours exchanged: the rise of the loss on `text`, and p of the word after `begin`.

    Returns both for each pair, those of the model as it is first.
    """
    model, order = subject.model, list(range(subject.model.config.n_layers))
    ids, short = subject.ids(text), subject.ids(begin)
    token = int(model(short)[0, -1].argmax())
    pairs = [f"{i} and {i + 1}" for i in order[:-1]]
    orders = [order, *([*order[:i], i + 1, i, *order[i + 2 :]] for i in order[:-1])]
    each_loss = [probe.next_token_losses(probe.run_layers(model, ids, each), ids).flatten() for each in orders]
    losses = [values.mean().item() for values in each_loss]
    halves = [1.96 * (values - each_loss[0]).std().item() / len(values) ** 0.5 for values in each_loss]
    chances = [probe.run_layers(model, short, each)[0, -1].softmax(dim=-1)[token] for each in orders]
    rises = [f"{loss - losses[0]:+.2f} ± {half:.2f}" for loss, half in zip(losses, halves, strict=True)]
    rows = [
        [name, f"{loss:.2f}", rise if name in pairs else "", chance(p)]
        for name, loss, rise, p in zip(("none", *pairs), losses, rises, chances, strict=True)
    ]
    (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
    header = ["exchanged blocks", "loss (nats per token)", "rise", f"p of {word!r} after {begin!r}"]
    show_table(rows, header)
    return [(loss - losses[0], p.item()) for loss, p in zip(losses, chances, strict=True)]


CHOICES = ("position", "norm", "feed_forward", "kv_heads", "scale", "tying")
INSTEAD = {"scale": {"none": "not scaled"}, "norm": {"none": "no norm"}, "position": {"none": "no positions"}}


def choices() -> dict[str, Difference]:
    """Every part of a small Llama exchanged, one at a time: the lab's kept trainings, paired by their seeds."""
    by_group = {group: ablation.verdict(group) for group in CHOICES}
    named = {
        group.replace("_", "-"): {INSTEAD.get(group, {}).get(name, name): d for name, d in found.items()}
        for group, found in by_group.items()
    }
    every = {name: d for found in named.values() for name, d in found.items()}
    higher, lower = (sum(d.verdict == word for d in every.values()) for word in ("higher", "lower"))
    close = sum(d.verdict == "none" and d.interval[0] > 0 for d in every.values())
    title = (
        f"Of {len(every)} exchanges {higher} end higher than the small Llama, {lower} lower; "
        f"{close} are candidates, {len(every) - higher - lower - close} are not told apart"
    )
    alt = (
        "A dot with its interval for every exchanged part: how much higher or lower the loss of its training ends."
    )
    show_figure(figures.draw_choices(named, title), alt)
    return every
