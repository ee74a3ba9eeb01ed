"""Part 5 - the figures of what attention does in trained models: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from decoding_llama3.lessons import style


def draw_handed_over(
    whole: float,
    rows: Float[Tensor, "three blocks"],
    names: tuple[str, str, str],
    units: tuple[str, str, str],
    title: str,
) -> Figure:
    """What one block's attention does to a word: three panels, a bar for each block.

    The word's probability without the block, a dashed line where none is missing; the rise of the loss on all
    other words without it; and the word's probability where the block's attention was handed over. The block
    without which the word is least likely is marked in the first two panels, the one that gives most in the third.
    """
    figure, axes = plt.subplots(3, 1, figsize=(style.WIDTH, 6.6))
    least = rows[0].argmin()
    for ax, values, name, unit, extreme in zip(
        axes, rows, names, units, (least, least, rows[2].argmax()), strict=True
    ):
        colours = [style.MARKED if block == extreme else style.QUERY for block in range(len(values))]
        ax.bar(range(len(values)), values.tolist(), color=colours, width=0.75)
        ax.set_xticks(style.thinned(len(values), 10))
        told = f"block {extreme}: {values[extreme]:{'+.2f' if ax is axes[1] else '.3f'}}"
        ax.text(0.99, 0.97, told, transform=ax.transAxes, ha="right", va="top", color=style.MARKED)
        whole_told = f" (dashed: with all, {whole:.3f})" if ax is axes[0] else ""
        ax.set_title(f"{name}{whole_told}", fontsize=12, fontweight="normal")
        ax.set_ylabel(unit)
    for ax in (axes[0], axes[2]):
        ax.set_ylim(0, 1.35)
        ax.set_yticks([0, 0.5, 1])
    axes[0].axhline(whole, color=style.PREDICTION, linewidth=1, linestyle="--")
    axes[1].margins(y=0.3)
    axes[1].axhline(0, color="black", linewidth=0.8)
    axes[2].set_xlabel("block")
    style.headline(figure, title)
    return figure


def draw_head_outputs(
    lengths: Float[Tensor, " heads"], together: float, shares: Sequence[str], title: str
) -> Figure:
    """How long the vector is that each head writes through its own columns of W_o, and how long their sum.

    `shares` says under each head whose values it has mixed.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.2))
    n = len(lengths)
    heads = ax.bar(range(n), lengths.tolist(), color=style.VALUE, width=0.7)
    whole = ax.bar(n, together, color=style.RESIDUAL, width=0.7)
    for bars in (heads, whole):
        ax.bar_label(bars, [f"{bar.get_height():.1f}" for bar in bars], padding=2)
    names = [f"head {i}\n{share}" for i, share in enumerate(shares)]
    ax.set_xticks(range(n + 1), [*(names if n <= 10 else map(str, range(n))), "their sum"])
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("length of the vector")
    ax.margins(y=0.15)
    style.headline(figure, title)
    return figure


def draw_block_heads(
    without: Float[Tensor, " heads"], alone: Float[Tensor, " heads"], whole: float, none: float, title: str
) -> Figure:
    """The probability of a word by the head of one block that is silenced, and by the head that is left alone."""
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 3.4), sharey=True)
    for ax, values, text in zip(
        axes, (without, alone), ("this head silenced", "only this head left in the block"), strict=True
    ):
        shown = ax.bar(range(len(values)), values.tolist(), color=style.QUERY, width=0.7)
        if len(values) <= 12:
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            ax.bar_label(shown, [f"{value:.2f}" for value in values.tolist()], padding=3, fontsize=11, bbox=white)
        for level, name in ((whole, "all heads"), (none, "none")):
            ax.axhline(level, color=style.PREDICTION, linewidth=1, linestyle="--")
            ax.annotate(
                name,
                (1, level),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        ax.set_xticks(style.thinned(len(values), 16))
        ax.set(ylim=(0, 1.15), xlabel="head")
        ax.set_title(text, fontsize=12, fontweight="normal")
    axes[0].set_ylabel("probability")
    style.headline(figure, title)
    return figure


def draw_head_kinds(panels: Mapping[str, Mapping[str, Float[Tensor, "layers heads"]]], title: str) -> Figure:
    """A square for each head, a row of panels for each model, a column for each kind of place it may attend to."""
    kinds = list(next(iter(panels.values())))
    height = 0.9 + sum(2.4 if len(next(iter(by_kind.values()))) <= 12 else 3.4 for by_kind in panels.values())
    figure, axes = plt.subplots(len(panels), len(kinds), figsize=(style.WIDTH, height), squeeze=False)
    for row, (name, by_kind) in zip(axes, panels.items(), strict=True):
        for ax, values in zip(row, by_kind.values(), strict=True):
            ax.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
            ax.set_xticks(style.thinned(values.shape[1]))
            ax.set_yticks(style.thinned(values.shape[0], 8))
            layer, head = divmod(int(values.argmax()), values.shape[1])
            # The number stands above: with many heads a square is narrower than it.
            ax.add_patch(
                Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=style.MARKED, linewidth=2)
            )
            ax.set_title(
                f"most {layer}.{head}: {values[layer, head]:.2f}",
                fontsize=11,
                fontweight="normal",
                color=style.MARKED,
            )
        row[0].set_ylabel(f"{name}: block")
    for ax, kind in zip(axes[0], kinds, strict=True):
        ax.annotate(kind, (0, 1), (0, 24), xycoords="axes fraction", textcoords="offset points", fontsize=12)
    for ax in axes[-1]:
        ax.set_xlabel("head")
    figure.colorbar(axes[0, 0].images[0], ax=axes, label="mean weight", shrink=0.7)
    style.headline(figure, title)
    return figure


def draw_forming(steps: Sequence[int], accuracy: Mapping[str, Float[Tensor, "seeds steps"]], title: str) -> Figure:
    """The share of repeated letters that is predicted, by step: a thin line per seed, for each model."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for (name, values), colour in style.with_looks(accuracy.items(), style.VARIANTS):
        for seed in values.tolist():
            ax.plot(steps, [100 * share for share in seed], color=colour, linewidth=1.3, alpha=0.7)
        end = 100 * values[:, -1].mean().item()
        below = end > 50
        ax.annotate(
            name,
            (steps[-1], end),
            xytext=(-2, -18 if below else 10),
            textcoords="offset points",
            ha="right",
            color=colour,
        )
    ax.set(xlabel="step of training", ylabel="predicted (per cent)", ylim=(0, 104))
    ax.set_xlim(0, steps[-1])
    style.headline(figure, title)
    return figure


def draw_silenced_heads(
    rise: Float[Tensor, "blocks heads"],
    half: Float[Tensor, "blocks heads"],
    together: Float[Tensor, " blocks"],
    title: str,
) -> Figure:
    """Rise of the loss without each head, a dot with its interval; and without all heads of a block, a bar."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0), width_ratios=(2.2, 1))
    n_heads = rise.shape[1]
    most = divmod(int(rise.argmax()), n_heads)
    for block, (row, reach) in enumerate(zip(rise.tolist(), half.tolist(), strict=True)):
        for head, (value, interval) in enumerate(zip(row, reach, strict=True)):
            x = block + 0.7 * ((head + 0.5) / n_heads - 0.5)
            colour = style.MARKED if (block, head) == most else style.QUERY
            left.errorbar(x, value, yerr=interval, fmt="o", color=colour, markersize=5, linewidth=1.2)
            if (block, head) == most:
                told = f"head {block}.{head}: {value:.3f}"
                left.annotate(
                    told, (x, value + interval), (-3, 4), textcoords="offset points", ha="left", color=colour
                )
    left.axhline(0, color="black", linewidth=0.8)
    left.margins(y=0.12)
    left.set_xticks(range(len(rise)))
    left.set(xlabel="block; from left to right its heads", ylabel="rise of the loss (nats per token)")
    left.set_title("one head silenced", fontsize=12, fontweight="normal")
    shown = right.bar(range(len(together)), together.tolist(), color=style.QUERY, width=0.7)
    right.bar_label(shown, [f"{value:.2f}" for value in together.tolist()], padding=2, fontsize=11)
    right.plot(range(len(together)), rise.sum(1).tolist(), "D", color="black", markersize=5)
    right.text(0.02, 0.98, "diamonds: the sum of\nits heads, one by one", transform=right.transAxes, va="top")
    right.set_xticks(range(len(together)))
    right.margins(y=0.35)
    right.set(xlabel="block")
    right.set_title("all heads of a block", fontsize=12, fontweight="normal")
    style.headline(figure, title)
    return figure
