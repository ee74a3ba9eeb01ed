"""Part 1 - the figures of how text is cut: pieces in, a figure out."""

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import token_label

PLAIN, LEARNED, PALER = "#EEEEEE", style.NEUTRAL, "#A8D8F0"


def draw_rows(rows: Mapping[str, Sequence[bytes]], ids: Sequence[int], title: str) -> Figure:
    """One text cut in several ways, a row each with its number of pieces; under the last row the ids."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.75 * len(rows) + 1.1))
    length = max(sum(map(_width, pieces)) for pieces in rows.values())
    for y, (name, pieces) in enumerate(rows.items()):
        places = _draw_boxes(ax, pieces, 1.3 * y)
        ax.text(-0.5, 1.3 * y, name, ha="right", va="center")
        ax.text(length + 0.5, 1.3 * y, str(len(pieces)), va="center", fontweight="bold")
        if y == len(rows) - 1:
            for (left, width), token in zip(places, ids, strict=True):
                ax.text(left + width / 2, 1.3 * y + 0.72, f"{token:,}", ha="center", va="center", fontsize=11)
            ax.text(-0.5, 1.3 * y + 0.72, "ids", ha="right", va="center")
    ax.set(xlim=(-0.16 * length, 1.08 * length), ylim=(1.3 * len(rows) - 0.2, -0.6))
    ax.set_axis_off()
    style.headline(figure, title)
    return figure


def _width(piece: bytes) -> int:
    """How many characters wide a box is: no narrower than its label, nor than one byte."""
    return max(1, len(token_label(piece)))


def _draw_boxes(
    ax: Axes, pieces: Sequence[bytes], y: float, colours: Sequence[str] | None = None, start: float = 0.0
) -> list[tuple[float, float]]:
    """Boxes with the pieces in them, one after the other; returns where each starts and how wide it is."""
    if colours is None:
        colours = [PLAIN if len(piece) == 1 else (LEARNED, PALER)[i % 2] for i, piece in enumerate(pieces)]
    places, left = [], start
    for piece, colour in zip(pieces, colours, strict=True):
        width = _width(piece)
        ax.barh(y, width - 0.08, left=left, height=0.8, color=colour)
        ink = "white" if colour in ("black", style.MARKED) else "black"
        ax.text(left + width / 2 - 0.04, y, token_label(piece), ha="center", va="center", fontsize=11, color=ink)
        places.append((left, width))
        left += width
    return places


def draw_counting(
    rounds: Sequence[tuple[Sequence[Sequence[bytes]], Sequence[tuple[bytes, bytes, int]]]], title: str
) -> Figure:
    """A text cut into pieces, round after round, and beside it how often each pair of neighbours stands in it.

    Each round has the pieces of each word, and pairs with their counts: the most frequent first, which is marked.
    """
    figure, axes = plt.subplots(len(rounds), 2, figsize=(style.WIDTH, 1.45 * len(rounds) + 0.6), squeeze=False)
    figure.set_layout_engine("constrained", wspace=0.02)
    for n, (ax, (words, pairs)) in enumerate(zip(axes, rounds, strict=True), 1):
        first = pairs[0][:2]
        left = 0.0
        for pieces in words:
            places = _draw_boxes(ax[0], pieces, 0, _paired(pieces, first), left)
            left = sum(places[-1]) + 0.4
        ax[0].set(xlim=(-0.2, left), ylim=(0.75, -0.75))
        ax[0].set_axis_off()
        ax[0].set_title(f"round {n}: {sum(map(len, words))} pieces", fontsize=12, fontweight="normal")
        names = [f"{token_label(a)} + {token_label(b)}" for a, b, _ in pairs]
        colours = [style.MARKED] + [style.NEUTRAL] * (len(pairs) - 1)
        bars = ax[1].barh(range(len(pairs)), [count for *_, count in pairs], color=colours, height=0.7)
        ax[1].bar_label(bars, padding=3)
        ax[1].set_yticks(range(len(pairs)), names)
        ax[1].tick_params(axis="y", length=0)
        ax[1].invert_yaxis()
        ax[1].set(xticks=[], xlim=(0, 1.15 * max(count for _, pairs in rounds for *_, count in pairs)))
        ax[1].spines["bottom"].set_visible(False)
    for ax in axes:
        ax[0].get_gridspec().set_width_ratios((7, 3))
    style.headline(figure, title)
    return figure


def _paired(pieces: Sequence[bytes], pair: tuple[bytes, bytes]) -> list[str]:
    """The colour of each piece: marked where it is half of the pair."""
    colours, i = [PLAIN] * len(pieces), 0
    while i < len(pieces) - 1:
        if (pieces[i], pieces[i + 1]) == pair:
            colours[i] = colours[i + 1] = style.MARKED
            i += 1
        i += 1
    return colours


def draw_merges(steps: Sequence[Sequence[bytes]], ranks: Mapping[bytes, int], title: str) -> Figure:
    """A word from its bytes to its token, a row per merge; `steps` are the pieces after 0, 1, ... merges."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.34 * len(steps) + 0.7))
    length = sum(map(len, steps[0]))
    before: Sequence[bytes] = steps[0]
    for row, pieces in enumerate(steps):
        fresh = next((i for i, piece in enumerate(pieces) if piece != before[i]), None)
        left = 0
        for i, piece in enumerate(pieces):
            colour = LEARNED if i == fresh else PLAIN
            ax.barh(row, len(piece) - 0.08, left=left, height=0.82, color=colour, align="center")
            ax.text(left + len(piece) / 2 - 0.04, row, token_label(piece), ha="center", va="center", fontsize=12)
            left += len(piece)
        note = "bytes" if fresh is None else f"rank {ranks[pieces[fresh]]:,}"
        ax.text(length + 0.15, row, note, va="center", fontsize=12, color="dimgrey")
        before = pieces
    ax.set_xlim(0, length + 2)
    ax.invert_yaxis()
    ax.set_axis_off()
    style.headline(figure, title)
    return figure


def draw_rules(pieces: Sequence[tuple[str, int]], rules: Sequence[tuple[str, str]], title: str) -> Figure:
    """A text split by rules, each piece in the colour of the rule that took it; below, each rule and its words."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.36 * len(rules) + 1.4))
    colours = dict(enumerate(style.VARIANTS))
    left = 0.0
    for piece, rule in pieces:
        label = token_label(piece)
        ax.barh(0, len(label) - 0.15, left=left, height=0.9, color=colours[rule])
        ax.text(left + len(label) / 2 - 0.08, 0, label, ha="center", va="center", fontsize=11, color="white")
        left += len(label)
    for i, (rule, words) in enumerate(rules):
        y = 1.3 + 0.75 * i
        ax.barh(y, 0.025 * left, left=0, height=0.5, color=colours[i])
        count = sum(i == other for _, other in pieces)
        ax.text(0.04 * left, y, f"{i + 1}. {words}: {count} piece{'s' * (count != 1)}", va="center")
        ax.text(0.67 * left, y, rule, va="center", family="monospace", fontsize=10.5, parse_math=False)
    ax.set(xlim=(-0.3, left + 0.3), ylim=(1.3 + 0.75 * len(rules) - 0.3, -0.7))
    ax.set_axis_off()
    style.headline(figure, title)
    return figure


def draw_conversation(rows: Sequence[Sequence[tuple[str, str]]], title: str) -> Figure:
    """Messages as rows of tokens, each with its kind: "special" (black), "put in" by the program, or "typed"."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.58 * len(rows) + 0.95))
    looks = {"special": "black", "put in": "#D0D0D0", "typed": LEARNED}
    named = {"special": "special token", "put in": "text, put in by the program", "typed": "text, typed"}
    right = 0.0
    for y, tokens in enumerate(rows):
        left = 0.0
        for text, kind in tokens:
            label = text.removeprefix("<|").removesuffix("|>") if kind == "special" else token_label(text)
            width = max(len(label), 1) + 0.8
            ax.barh(y, width - 0.15, left=left, height=0.74, color=looks[kind])
            ink = "white" if kind == "special" else "black"
            ax.text(left + width / 2 - 0.08, y, label, ha="center", va="center", fontsize=10.5, color=ink)
            left += width
        right = max(right, left)
    ax.set(xlim=(-0.3, right + 0.3), ylim=(len(rows) - 0.4, -0.6))
    ax.set_axis_off()
    patches = [Patch(color=looks[kind], label=name) for kind, name in named.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)
    style.headline(figure, title)
    return figure


def draw_cuts(cuts: Mapping[int, Sequence[bytes]], title: str) -> Figure:
    """One text, a row for each size of the vocabulary, as boxes of pieces; single bytes are grey."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.62 * len(cuts) + 0.7))
    length = 0
    for y, (size, pieces) in enumerate(cuts.items()):
        places = _draw_boxes(ax, pieces, y)
        length = max(length, sum(places[-1]))
        ax.text(-0.6, y, f"{size:,}", ha="right", va="center")
        ax.text(sum(places[-1]) + 0.5, y, f"{len(pieces)}", va="center")
    ax.set_xlim(-0.09 * length, 1.07 * length)
    ax.invert_yaxis()
    ax.set_axis_off()
    style.headline(figure, title)
    return figure


def draw_other_cuts(losses: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Bits per character of one text, a row of dots for each way to give it to a model."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.5 * len(losses) + 1.1))
    for y, (_, values) in enumerate(losses.items()):
        ax.plot(
            values, [y] * len(values), "o", color=style.PREDICTION, alpha=0.35, markeredgewidth=0, markersize=8
        )
        middle = sorted(values)[len(values) // 2]
        ax.annotate(f"{middle:.1f}", (max(values), y), xytext=(9, 0), textcoords="offset points", va="center")
    highest = max(max(values) for values in losses.values())
    ax.axvline(8, color=style.RESIDUAL, linestyle="--", linewidth=1)
    ax.text(8, -0.75, "a byte drawn blindly", ha="center", va="bottom", color="dimgrey", fontsize=11)
    ax.set_yticks(range(len(losses)), list(losses))
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.1 * max(highest, 8)), ylim=(len(losses) - 0.5, -0.7), xlabel="bits per character")
    style.headline(figure, title)
    return figure
