"""Part 5 - the figures of what attention costs: numbers in, a figure out."""

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from decoding_llama3.lessons import style


def draw_sharing(n_heads: int, n_kv_heads: int, lines: Sequence[str], title: str) -> Figure:
    """Each query wired to the keys and values that serve it: one each, shared by some, or one for all."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 2.6))
    ax.set(xlim=(-1, n_heads + 0.2), ylim=(-2.6, 2.5))
    ax.axis("off")
    share = n_heads // n_kv_heads
    for kv in range(n_kv_heads):
        middle = kv * share + (share - 1) / 2
        for head in range(kv * share, (kv + 1) * share):
            ax.plot([head, middle], [1.4, 0], color=style.KEY, linewidth=1.5, zorder=1)
        wide = min(0.66, 0.3 + 0.05 * share)
        ax.add_patch(
            FancyBboxPatch(
                (middle - wide / 2, -0.65),
                wide,
                0.6,
                boxstyle="round,pad=0.05,rounding_size=0.15",
                facecolor=style.KEY,
                edgecolor=style.VALUE,
                linewidth=2,
                zorder=2,
            )
        )
    ax.plot(range(n_heads), [1.4] * n_heads, "o", color=style.QUERY, markersize=9, zorder=3)
    ax.text(-0.6, 2.05, f"{n_heads} queries", color=style.QUERY, ha="left", va="center")
    ax.text(
        -0.6,
        -1.25,
        f"{n_kv_heads} {'sets' if n_kv_heads > 1 else 'set'} of keys and values",
        color="black",
        ha="left",
        va="center",
    )
    for i, line in enumerate(lines):
        ax.text(n_heads - 0.4, -1.25 - 0.75 * i, line, ha="right", va="center")
    style.headline(figure, title)
    return figure


def draw_roofline(peak: float, bandwidth: float, points: Mapping[str, float], title: str) -> Figure:
    """The share of its arithmetic that a card can use, by the operations done with each byte read; `points` on it.

    `peak` in operations per second, `bandwidth` in bytes per second, `points` in operations per byte.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    ridge = peak / bandwidth
    ends = [0.5, ridge, 16 * ridge]
    ax.plot(ends, [100 * min(1, x / ridge) for x in ends], color=style.RESIDUAL, linewidth=3)
    ax.plot([ridge, ridge], [1e-6, 100], color="grey", linewidth=1, linestyle="--")
    ax.text(ridge * 1.1, 0.25, f"{ridge:.0f} operations\nper byte", color="dimgrey", va="bottom")
    for name, intensity in points.items():
        share = 100 * min(1, intensity / ridge)
        ax.plot(intensity, share, "o", color=style.KEY, markersize=9)
        told = f"{name}: {intensity:g}, so {share:.1f} %"
        ax.annotate(told, (intensity, share), xytext=(9, -3), textcoords="offset points", va="top")
    ax.text(1.1, 190 / ridge, "waits for memory", color="dimgrey", ha="left", va="bottom", rotation=30)
    ax.text(ridge * 1.5, 115, "computes all the time", color="dimgrey", va="bottom")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlim=(0.5, 16 * ridge), ylim=(0.1, 320))
    ax.set_yticks([0.1, 1, 10, 100], ["0.1 %", "1 %", "10 %", "100 %"])
    ax.set(xlabel="operations per byte read", ylabel="share of its operations that it can use")
    style.headline(figure, title)
    return figure


def draw_step_times(
    panels: Mapping[str, tuple[Sequence[int], Mapping[str, Sequence[float]]]], title: str
) -> Figure:
    """Milliseconds for the next token by how many tokens stand before it; a panel for each model."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.6), squeeze=False)
    for ax, (model, (lengths, seconds)) in zip(axes[0], panels.items(), strict=True):
        for (name, values), colour in zip(seconds.items(), (style.WRONG, style.KEY), strict=True):
            ax.plot(lengths, [1e3 * value for value in values], "o-", color=colour)
            ax.annotate(
                name,
                (lengths[-1], 1e3 * values[-1]),
                xytext=(-4, 7),
                textcoords="offset points",
                ha="right",
                color=colour,
            )
        ax.set(ylim=(0, None), xlabel="tokens so far")
        ax.set_title(model, fontsize=12, fontweight="normal")
        ax.margins(y=0.15)
    axes[0, 0].set_ylabel("ms for one more token")
    style.headline(figure, title)
    return figure
