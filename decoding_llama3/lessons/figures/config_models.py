"""Part 2 - the figures of what fields do in trained models, and of memory: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from decoding_llama3.lessons import style

Losses = Mapping[float, float]  # by the value of a field
Sweep = Mapping[float, Sequence[float]]  # the losses of some passages, by the value of a field


def draw_swept_fields(panels: Mapping[str, Mapping[str, tuple[float, Sweep]]], title: str) -> Figure:
    """The rise of the loss by the value of fields that stand in no matrix: a row per model, a column per field.

    A small dot per passage, a line through their means. Each field comes with the value that the model was trained
    with, which is marked. All panels have one scale, logarithmic above the grey band, so above a tenth of a nat.
    """
    fields = next(iter(panels.values()))
    figure, axes = plt.subplots(
        len(panels), len(fields), figsize=(style.WIDTH, 2.1 + 2.1 * len(panels)), squeeze=False, sharey=True
    )
    for row, (model, sweeps) in zip(axes, panels.items(), strict=True):
        for ax, (field, (trained, losses)) in zip(row, sweeps.items(), strict=True):
            values, colour = sorted(losses), style.MODEL_COLOURS.get(model, "black")
            rises = np.array([losses[value] for value in values]) - losses[trained]
            ax.plot(values, rises.mean(axis=1), "-", color=colour)
            for passage in rises.T:
                ax.plot(values, passage, "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
            ax.plot(trained, 0, "o", color=style.MARKED, markersize=10)
            ax.axhline(0, color=style.RESIDUAL, linewidth=1, linestyle="--", zorder=0)
            ax.axhspan(-0.1, 0.1, color=style.RESIDUAL, alpha=0.13, linewidth=0, zorder=0)
            for value, rise in zip(values, rises.mean(axis=1), strict=True):
                if rise > 0.25:
                    ax.annotate(f"{rise:+.1f}", (value, rise), (0, 6), textcoords="offset points", ha="center",
                                fontsize=10)  # fmt: skip
            ax.margins(x=0.1)
            whole = isinstance(trained, int)
            ax.set_xscale("log", base=2 if whole else 10)
            if whole:
                ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.set_yscale("symlog", linthresh=0.1)
            ax.set_yticks((-0.1, 0, 0.1, 1, 10), ["-0.1", "0", "+0.1", "+1", "+10"])
            ax.set_ylim(-0.13, max(30, 3 * rises.max()))
            ax.minorticks_off()
            named = f"{trained:,.0f}" if trained >= 1 else f"{trained:g}"
            ax.set_title(f"{field}, trained: {named}", fontsize=11, fontweight="normal")
        row[0].set_ylabel(f"{model}: loss, rise\n(nats per token)")
    style.headline(figure, title)
    return figure


def draw_learned_order(
    panels: Mapping[str, tuple[Sequence[str], Sequence[float], Sequence[float]]], title: str
) -> Figure:
    """Tokens in groups by when they were learned: their share of the text, and their loss; a row per model."""
    figure, axes = plt.subplots(
        len(panels), 2, figsize=(style.WIDTH, 1.2 + 2.0 * len(panels)), squeeze=False, sharex="col", sharey="row"
    )
    for row, (model, (names, shares, losses)) in zip(axes, panels.items(), strict=True):
        for ax, values, words in ((row[0], shares, [f"{s:.0%}" for s in shares]), (row[1], losses, None)):
            known = [0.0 if np.isnan(value) else value for value in values]
            ax.barh(list(names), known, color=style.NEUTRAL if ax is row[0] else style.MODEL_COLOURS.get(model))
            words = words or ["none in this text" if np.isnan(value) else f"{value:.2f}" for value in values]
            for y, (value, word) in enumerate(zip(known, words, strict=True)):
                ax.text(value, y, f" {word}", va="center", fontsize=11)
            ax.set_xlim(0, max(1.2 * max(known), ax.get_xlim()[1] if ax not in axes[0] else 0))
        row[0].invert_yaxis()
        row[0].set_ylabel(f"{model}\npieces")
        row[0].xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes[-1][0].set_xlabel("share of the text's bytes")
    axes[-1][1].set_xlabel("loss (nats per byte)")
    style.headline(figure, title)
    return figure


def draw_context_lengths(panels: Mapping[str, tuple[int, Losses]], title: str) -> Figure:
    """The loss of the same tokens with more and more text before them; what lies beyond training is shaded."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.6), squeeze=False)
    for ax, (model, (trained, losses)) in zip(axes[0], panels.items(), strict=True):
        x = range(len(losses))
        ax.plot(x, list(losses.values()), "o-", color=style.MODEL_COLOURS.get(model, "black"))
        ax.set_xticks(x, [f"{before:,}" for before in losses])
        within = [before <= trained for before in losses]
        if not all(within):
            ax.axvspan(sum(within) - 0.5, len(losses) - 0.5, color=style.WRONG, alpha=0.13, linewidth=0)
            ax.text(
                len(losses) - 0.55, 0.03, f"beyond {trained:,}", ha="right", va="bottom", color=style.WRONG,
                transform=ax.get_xaxis_transform(),
            )  # fmt: skip
        ax.set_xlim(-0.5, len(losses) - 0.5)
        ax.set_xlabel("tokens before (steps not to scale)")
        ax.set_title(f"{model}, max_seq_len {trained:,}", fontsize=12, fontweight="normal")
    axes[0][0].set_ylabel("loss (nats per token)")
    style.headline(figure, title)
    return figure


def draw_memory_need(
    formats: Mapping[str, float],
    lengths: Sequence[int],
    needs: Mapping[str, Sequence[float]],
    scores: float,
    title: str,
) -> Figure:
    """Left, GB of the weights in some number formats; right, GB of all that is needed, by the context.

    `needs` are stacked in their order; lines at 24 and 80 GB are the sizes of cards. `scores` is what does not
    fit the picture: GB for the last length, if attention wrote all its scores down.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0), width_ratios=(2, 3))
    left.barh(list(formats), list(formats.values()), color=style.RESIDUAL)
    for y, value in enumerate(formats.values()):
        left.text(value, y, f" {value:.1f}", va="center")
    left.invert_yaxis()
    left.set(xlabel="weights (GB)", xlim=(0, 1.25 * max(formats.values())))
    colours = (style.RESIDUAL, style.KEY, style.FEED_FORWARD, style.PREDICTION)[: len(needs)]
    bottom, x = np.zeros(len(lengths)), np.arange(len(lengths))
    for (name, values), colour in zip(needs.items(), colours, strict=True):
        right.bar(x, values, bottom=bottom, color=colour, label=name, width=0.7)
        bottom = bottom + np.array(values)
    for card in (24, 80):
        right.axhline(card, color="black", linewidth=1, linestyle="--")
        right.text(-0.45, card, f"a card of {card} GB", va="bottom", fontsize=11)
    right.set_xticks(x, [f"{length:,}" for length in lengths])
    right.set(xlabel="tokens in the context", ylabel="GB", ylim=(0, max(150, 1.3 * bottom.max())))
    right.legend(loc="upper left")
    right.text(
        len(lengths) - 0.6, 1.04 * bottom[-1], f"if ever written down:\nscores, {scores:,.0f} GB", ha="right",
        va="bottom", color="dimgrey", fontsize=11, linespacing=1.3,
    )  # fmt: skip
    style.headline(figure, title)
    return figure


def draw_equal_work(
    groups: Mapping[str, Mapping[str, float]],
    baseline: float,
    read: Mapping[str, Mapping[float, tuple[float, str]]],
    title: str,
) -> Figure:
    """Left, bits per byte of shapes that had the same work, in groups, a dashed line at the `baseline`.

    Right, the same against the tokens that were read, a line for each width, the work written at each point.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.2), width_ratios=(3, 2))
    left.axvline(baseline, color=style.RESIDUAL, linewidth=1, linestyle="--", zorder=0)
    y, names = 0.0, {}
    for (group, found), colour in style.with_looks(groups.items(), style.VARIANTS):
        left.text(0, y - 0.75, group, color=colour, va="center", fontsize=11, fontweight="bold",
                  transform=left.get_yaxis_transform())  # fmt: skip
        for name, value in found.items():
            left.plot(value, y, "o", color=colour, markersize=8)
            left.text(value, y, f"  {value:.3f}", va="center", color=colour, fontsize=11)
            names[y] = name
            y += 1
        y += 0.9
    left.set_yticks(list(names), list(names.values()))
    left.invert_yaxis()
    left.xaxis.set_major_locator(MaxNLocator(4))
    low, high = left.get_xlim()
    left.set(xlim=(low, high + 0.25 * (high - low)), xlabel="bits per byte, held-out text (lower is better)")
    for (name, by_tokens), colour in style.with_looks(read.items(), (style.VARIANTS[0], *style.VARIANTS[4:])):
        millions = [tokens / 1e6 for tokens in by_tokens]
        right.plot(millions, [bits for bits, _ in by_tokens.values()], "o-", color=colour, label=name)
        for x, (bits, work) in zip(millions, by_tokens.values(), strict=True):
            right.annotate(work, (x, bits), (6, 3), textcoords="offset points", fontsize=10, color=colour)
    right.set_xscale("log")
    right.set_xticks((0.5, 1, 2, 5, 10), ["0.5", "1", "2", "5", "10"])
    right.minorticks_off()
    right.set(xlabel="tokens read (millions)", ylabel="bits per byte", xlim=(0.6, 16))
    right.legend()
    style.headline(figure, title)
    return figure
