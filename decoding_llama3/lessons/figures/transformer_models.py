"""Part 7 - the figures of what the parts of trained models do together: arrays in, a figure out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.experiments.ablation.statistics import Difference
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures.transformer import WRITERS
from decoding_llama3.lessons.fonts import drawable

FEW = 20  # rows that have room for words


@dataclass(frozen=True)
class Journey:
    """One word on its way through a model: a row for the embedding and for each part that writes to the stream."""

    parts: Sequence[str]  # "embedding", "attention 0", "feed-forward 0", ...
    sizes: Float[Tensor, " parts"]  # of the stream after each
    chances: Float[Tensor, " parts"]  # of the word, read off the stream after each
    said: Sequence[str]  # the word that is likeliest there
    added: Float[Tensor, " parts"]  # to the logit of the word
    lost: Float[Tensor, " parts"]  # of its probability, without the part; nan for the embedding
    exchanged: Float[Tensor, "draws parts"]  # of its probability, where the part writes as for another text
    shapes: tuple[str, str, str]  # of ids, stream and logits
    word: str

    @property
    def loudest(self) -> int:
        """The row that adds most."""
        return int(self.added.argmax())

    @property
    def missed(self) -> list[int]:
        """The two rows without which most is lost, the worse first."""
        return self.lost.nan_to_num(-torch.inf).topk(2).indices.tolist()

    @property
    def against(self) -> list[int]:
        """The row that takes most away, where that is at least half of what the loudest adds."""
        worst = int(self.added.argmin())
        return [worst] if -self.added[worst] >= 0.5 * self.added.max() else []


def draw_journey(journey: Journey, title: str) -> Figure:
    """Four views of the same rows: the stream, the word read off it, what each part adds, what silence costs."""
    n = len(journey.parts)
    size = (style.WIDTH, (0.3 if n <= FEW else 0.14) * n + 2.0)
    figure, axes = plt.subplots(1, 4, figsize=size, width_ratios=(1.2, 2, 2, 2), sharey=True)
    stream, lens, adds, lost = axes
    named = {journey.loudest, *journey.missed, *journey.against}
    shown = {i for i in style.thinned(n, 30) if n <= 30 or not named & {i - 1, i + 1}} | named
    _draw_river(stream, journey)
    lens.barh(range(n), journey.chances.tolist(), color=style.PREDICTION, height=0.75)
    for i in sorted(shown):
        text = drawable(journey.said[i].strip() or "␣").replace("\n", "⏎")
        lens.text(journey.chances[i].item() + 0.03, i, text[:9], va="center", fontsize=10, color="#5F5F5F")
    lens.set(xlim=(0, 1.45), xticks=(0, 0.5, 1))
    colours = [WRITERS[part.rpartition(" ")[0] or part] for part in journey.parts]
    adds.barh(range(n), journey.added.tolist(), color=colours, height=0.75)
    lost.barh(range(n), journey.lost.nan_to_num(0).tolist(), color=colours, height=0.75)
    for i in range(1, n):
        draws = journey.exchanged[:, i].tolist()
        lost.plot(draws, [i] * len(draws), "o", color="black", markersize=2.5, alpha=0.45 if n <= FEW else 1)
    _say(adds, journey.added, {journey.loudest, *journey.against}, journey.added)
    _say(
        lost, journey.lost, {*journey.missed, *journey.against}, torch.cat([journey.lost[None], journey.exchanged])
    )
    _name_views(axes, journey.word)
    figure.supxlabel("dots: where a part is not silent, but writes what it wrote for other texts", fontsize=11)
    stream.set_yticks(sorted(shown), [journey.parts[i] for i in sorted(shown)])
    for i, tick in zip(sorted(shown), stream.get_yticklabels(), strict=True):
        if i in named:
            tick.set(color=style.MARKED, fontweight="bold")
    stream.set_ylim(n + 0.6, -1.6)
    style.headline(figure, title)
    return figure


def _name_views(axes: Sequence[Axes], word: str) -> None:
    """What each of the four panels shows, and its unit."""
    names = ("the stream", "would say, at depth", "adds to its logit", "lost if silenced")
    for ax, name, unit in zip(axes, names, ("", "probability", "logit", "probability"), strict=True):
        ax.set_title(name, fontsize=12, fontweight="normal")
        if unit:
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set_xlabel(drawable(f"{unit} of\n{word!r}"))


def _draw_river(ax: Axes, journey: Journey) -> None:
    """The stream as a band that widens as the logarithm of its size, and the parts that flow into it."""
    wide = journey.sizes.log() - journey.sizes.log().min()
    half = (0.16 + 0.5 * wide / wide.max().clamp(min=1e-9)).tolist()
    ax.fill_betweenx(range(len(half)), [-w for w in half], half, color=style.RESIDUAL, linewidth=0)
    for i, part in enumerate(journey.parts):
        if i:
            left = part.startswith("attention")
            start = -half[i] - 0.3 if left else half[i]
            ax.barh(i, 0.3, left=start, height=0.5, color=WRITERS[part.rpartition(" ")[0]])
    ids, stream, logits = journey.shapes
    ax.text(0, -0.8, ids, ha="center", va="center", fontsize=11)
    ax.text(0, len(half) - 0.05, logits, ha="center", va="center", fontsize=11)
    middle = len(half) // 2
    ax.text(0, middle, stream, ha="center", va="center", fontsize=11, color="white", rotation=90)
    ax.set(xlim=(-1.05, 1.05), xticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)


def _say(ax: Axes, values: Float[Tensor, " parts"], rows: set[int], drawn: Float[Tensor, "*draws parts"]) -> None:
    """The numbers of these bars, to the right of them; the axis has room for all that is `drawn`."""
    for i in rows:
        value = values[i].item()
        text = f"{value:+.1f}" if abs(value) >= 1.5 else f"{value:.3f}"
        ax.annotate(
            text, (max(value, 0), i), (4, 0), textcoords="offset points", va="center", color=style.MARKED,
            fontweight="bold",
        )  # fmt: skip
    low, high = min(0.0, drawn.nan_to_num(0).min().item()), max(0.0, drawn.nan_to_num(0).max().item())
    ax.set_xlim(low - 0.06 * (high - low) - 1e-9, high + 0.38 * (high - low) + 1e-9)
    ax.locator_params(axis="x", nbins=3)


def draw_lens(
    words: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "depths seq"],
    tokens: Sequence[str],
    depths: Sequence[str],
    title: str,
) -> Figure:
    """The likeliest next word read off the stream at each of `depths` (rows), after each token (columns)."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.36 * len(depths) + 2.0))
    ax.imshow(probabilities.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for depth, row in enumerate(words):
        for i, word in enumerate(row):
            ink = "white" if probabilities[depth, i] > 0.5 else "black"
            word = (word.strip() or "␣").replace("\n", "⏎")
            short = word if len(word) <= 6 else f"{word[:5]}…"
            ax.text(i, depth, drawable(short), ha="center", va="center", fontsize=9.5, color=ink)
    ax.set_xticks(range(len(tokens)), [drawable(token) for token in tokens], rotation=35, ha="right")
    ax.set_yticks(range(len(depths)), depths)
    ax.set(xlabel="after the token (darker: more probable)", ylabel="read off after")
    style.headline(figure, title)
    return figure


def draw_spared(
    panels: Mapping[str, tuple[Sequence[int], Float[Tensor, " blocks"], Float[Tensor, " pairs"]]], title: str
) -> Figure:
    """Rise of the loss without some blocks, and with each and the next exchanged; a column for each model."""
    figure, axes = plt.subplots(2, len(panels), figsize=(style.WIDTH, 4.8), squeeze=False, sharex="col")
    for (above, below), (name, (blocks, left_out, exchanged)) in zip(axes.T, panels.items(), strict=True):
        wide = 0.8 * min(after - before for before, after in pairwise(blocks))
        for ax, rises, colour in ((above, left_out, style.PREDICTION), (below, exchanged, style.RESIDUAL)):
            across = 0.0 if ax is above else 0.5
            places = [block + across for block in blocks[: len(rises)]]
            bars = ax.bar(places, rises.tolist(), wide, color=colour)
            if len(rises) <= 12:
                size = 10 if len(panels) > 1 else 12
                ax.bar_label(bars, [f"{rise:+.1f}" for rise in rises.tolist()], padding=2, fontsize=size)
            ax.set_yscale("symlog", linthresh=0.5)
            ax.set_ylim(min(0, 2.5 * rises.min().item()), 2.5 * max(0.5, rises.max().item()))
            ax.set_yticks([0, 0.5, 1, 2, 5, 10], ["0", "0.5", "1", "2", "5", "10"])
            ax.minorticks_off()
            ax.axhline(0, color="black", linewidth=0.8)
        above.set_title(name, fontsize=12, fontweight="normal")
        below.set_xticks(blocks, [str(i) for i in blocks])
        below.set_xlabel("block")
    axes[0, 0].set_ylabel("left out:\nrise of the loss")
    axes[1, 0].set_ylabel("exchanged with the\nnext: rise of the loss")
    style.headline(figure, title)
    return figure


def draw_choices(differences: Mapping[str, Mapping[str, Difference]], title: str) -> Figure:
    """Every part exchanged, one at a time: the mean paired difference of the loss and its 95 % interval.

    A group of rows for each part; an interval that holds 0 is grey.
    """
    rows = [(group, name, d) for group, found in differences.items() for name, d in found.items()]
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.27 * len(rows) + 1.8))
    for row, (_, _, d) in enumerate(rows):
        low, high = d.interval
        colour = style.RESIDUAL if low <= 0 <= high else style.WRONG if low > 0 else style.VARIANTS[3]
        ax.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(d.mean, row, "o", color=colour, markersize=6)
        ax.annotate(f"{d.mean:+.3f}", (high, row), (6, 0), textcoords="offset points", va="center", color=colour)
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(rows)), [f"{group}: {name}" for group, name, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(None, 1.15 * max(d.interval[1] for _, _, d in rows))
    ax.set_xlabel("loss minus Llama 3's (nats per character), and its 95 % interval over the seeds")
    style.headline(figure, title)
    return figure
