"""Part 7 - the figures of what the parts of trained models do together: arrays in, a figure out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    chances: Float[Tensor, " parts"]  # of the word, read off the stream after each
    said: Sequence[str]  # the word that is likeliest there
    added: Float[Tensor, " parts"]  # to the logit of the word
    lost: Float[Tensor, " parts"]  # by how much its log odds fall without the part; nan for the embedding
    exchanged: Float[Tensor, "draws parts"]  # the same where the part writes as for another text
    word: str
    above: float  # the word's logit, counted from the mean of all
    of: int  # how many rows the model has

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


def telling_rows(added: Float[Tensor, " parts"], lost: Float[Tensor, " parts"]) -> list[int]:
    """All rows where they are few; else the first, the last and those that add, take or cost most."""
    n = len(added)
    if n <= FEW:
        return list(range(n))
    most = [values.nan_to_num(0).abs().topk(FEW // 2 - 1).indices.tolist() for values in (added, lost)]
    return sorted({0, n - 1, *most[0], *most[1]})


def draw_journey(journey: Journey, title: str) -> Figure:
    """Three views of the same rows: the word read off the stream, what each part adds, what silence costs."""
    n = len(journey.parts)
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 0.28 * n + 2.2), sharey=True)
    lens, adds, lost = axes
    named = {journey.loudest, *journey.missed, *journey.against}
    lens.barh(range(n), journey.chances.tolist(), color=style.PREDICTION, height=0.75)
    for i, (word, p) in enumerate(zip(journey.said, journey.chances.tolist(), strict=True)):
        text = drawable(word.strip() or "␣").replace("\n", "⏎")
        lens.text(p + 0.03, i, text[:9], va="center", fontsize=10, color="#5F5F5F")
    lens.set(xlim=(0, 1.45), xticks=(0, 0.5, 1))
    colours = [WRITERS[part.rpartition(" ")[0] or part] for part in journey.parts]
    adds.barh(range(n), journey.added.tolist(), color=colours, height=0.75)
    lost.barh(range(n), journey.lost.nan_to_num(0).tolist(), color=colours, height=0.75)
    for i in range(1, n):
        draws = journey.exchanged[:, i].tolist()
        lost.plot(draws, [i] * len(draws), "o", color="black", markersize=2.5, alpha=0.6)
    _say(adds, journey.added, named, journey.added)
    _say(lost, journey.lost, named, torch.cat([journey.lost[None], journey.exchanged]))
    _name_views(axes, journey.word)
    figure.supxlabel(_foot(journey), fontsize=11)
    lens.set_yticks(range(n), journey.parts)
    for i, tick in enumerate(lens.get_yticklabels()):
        if i in named:
            tick.set(color=style.MARKED, fontweight="bold")
    lens.set_ylim(n - 0.4, -0.6)
    style.headline(figure, title)
    return figure


def _foot(journey: Journey) -> str:
    """How the panels are to be read."""
    left, draws = len(journey.parts), len(journey.exchanged)
    note = "bar on the right: the part is silent at all tokens of the text (to the left of 0: the word gains);\n"
    note += f"dots: it writes instead what it wrote for {draws} other texts"
    few = f"\n{left} of {journey.of} rows: those that add, take away or cost most, and both ends"
    return note + (few if left < journey.of else "")


def _name_views(axes: Sequence[Axes], word: str) -> None:
    """What each of the three panels shows, and its unit."""
    names = ("1 How far?", "2 Who adds?", "3 Who is needed?")
    units = (
        "probability, read off there, of",
        "share of the final logit of",
        "log odds lost without it, of",
    )
    for ax, name, unit in zip(axes, names, units, strict=True):
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel(drawable(f"{unit}\n{word!r}"), fontsize=11)


def _say(ax: Axes, values: Float[Tensor, " parts"], rows: set[int], drawn: Float[Tensor, "*draws parts"]) -> None:
    """The numbers of these bars, to the right of all that is `drawn` there; the axis has room for it."""
    for i in sorted(rows):
        value = values[i].item()
        text = f"{value:+.1f}"
        ax.annotate(
            text, (max(0, drawn[..., i].max().item()), i), (4, 0), textcoords="offset points", va="center",
            color=style.MARKED,
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
    panels: Mapping[str, tuple[Float[Tensor, " blocks"], Float[Tensor, " blocks"]]], title: str
) -> Figure:
    """Rise of the loss without each block and half of its interval; a row for each model, tall bars cut."""
    figure, axes = plt.subplots(len(panels), 1, figsize=(style.WIDTH, 2.1 * len(panels) + 1.2), squeeze=False)
    for ax, (name, (rises, half)) in zip(axes[:, 0], panels.items(), strict=True):
        usual = rises.sort().values[: max(1, len(rises) - len(rises) // 6)]  # all but the few tallest
        top = min(1.3 * rises.max().item(), 1.8 * max(0.1, usual.max().item()))
        cut = [i for i, rise in enumerate(rises.tolist()) if rise > top]
        ax.bar(range(len(rises)), rises.clamp(max=top).tolist(), 0.75, color=style.PREDICTION)
        whole = [i for i in range(len(rises)) if i not in cut]
        ax.errorbar(whole, rises[whole].tolist(), half[whole].tolist(), fmt="none", color=style.MARKED, capsize=3)
        for i in cut:
            ax.plot([i - 0.45, i + 0.45], [0.8 * top, 0.86 * top], color="white", linewidth=3)
            ax.text(i, top, f"{rises[i]:.1f}", ha="center", va="bottom", fontsize=10)
        low = min(0.0, (rises - half)[whole].min().item())
        ax.set_ylim(1.1 * low, max(1.25 * top, 1.05 * (rises + half)[whole].max().item()))
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(style.thinned(len(rises), 30))
        ax.set_title(f"{name} (a cut bar: off the scale)" if cut else name, fontsize=12, fontweight="normal")
        ax.set_ylabel("rise of the loss\n(nats per token)")
    axes[-1, 0].set_xlabel("block left out")
    figure.supxlabel("line: 95 % interval over the tokens", fontsize=11)
    style.headline(figure, title)
    return figure


def draw_choices(differences: Mapping[str, Mapping[str, Difference]], title: str) -> Figure:
    """Every part exchanged, one at a time: the mean paired difference of the loss and its 95 % interval.

    A group of rows for each part. Filled: the mean is beyond twice the standard deviation; hollow: it is not, but
    the interval leaves out 0; grey: it holds 0.
    """
    rows = [(group, name, d) for group, found in differences.items() for name, d in found.items()]
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.27 * len(rows) + 1.8))
    for row, (_, _, d) in enumerate(rows):
        low, high = d.interval
        colour = style.RESIDUAL if low <= 0 <= high else style.WRONG if low > 0 else style.VARIANTS[3]
        ax.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        inside = colour if d.verdict != "none" or low <= 0 <= high else "white"
        ax.plot(d.mean, row, "o", color=colour, markerfacecolor=inside, markersize=7)
        ax.annotate(f"{d.mean:+.3f}", (high, row), (6, 0), textcoords="offset points", va="center", color=colour)
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(rows)), [f"{group}: {name}" for group, name, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(None, 1.15 * max(d.interval[1] for _, _, d in rows))
    ax.set_xlabel("loss minus that of the small Llama (nats per character)")
    note = "line: 95 % interval; filled: mean beyond twice the standard deviation\n"
    figure.supxlabel(note + "hollow: only the interval leaves out 0; grey: it holds 0", fontsize=11)
    style.headline(figure, title)
    return figure
