"""Part 1 - the figures of its second half, an announcement read with care: numbers in, a figure out."""

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import token_label

LLAMA3 = style.MODEL_COLOURS["Llama 3 8B"]
_STEP_COLOURS = style.MODEL_COLOURS | {"shared keys": style.KEY, "wider feed-forward": style.FEED_FORWARD}


def draw_waterfall(steps: Sequence[tuple[str, int]], title: str) -> Figure:
    """Parameters of the first model, then what each change adds or takes, in units; the end is the sum."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.5))
    total = 0
    for x, (name, count) in enumerate(steps):
        ax.bar(x, count / 1e9, bottom=total / 1e9, color=_STEP_COLOURS.get(name, style.NEUTRAL), width=0.62)
        total += count
        text = f"{count / 1e9:.3f}" if x == 0 else f"{count / 1e6:+,.0f} million"
        ax.annotate(
            text, (x, max(total, total - count) / 1e9), xytext=(0, 5), textcoords="offset points", ha="center"
        )
    ax.bar(len(steps), total / 1e9, color=LLAMA3, width=0.62)
    ax.annotate(
        f"{total / 1e9:.3f}", (len(steps), total / 1e9), xytext=(0, 5), textcoords="offset points", ha="center"
    )
    ax.set_xticks(range(len(steps) + 1), [*(name for name, _ in steps), "Llama 3 8B"])
    ax.set(ylabel="parameters (10⁹), from 5 on", ylim=(5, 8.6))
    style.headline(figure, title)
    return figure


def draw_gaps(gaps: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """By how many points a model is ahead of the better of two others: a row per kind, a named dot per test."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 1.25 * len(gaps) + 0.9))
    highest = max(max(row.values()) for row in gaps.values())
    for y, row in enumerate(gaps.values()):
        low, high = min(row.values()), max(row.values())
        ax.plot([low, high], [y, y], color="#DDDDDD", zorder=0)
        ordered = sorted(row.items(), key=lambda item: item[1])
        ax.plot([gap for _, gap in ordered], [y] * len(ordered), "o", color=LLAMA3, markersize=9)
        names = [f"{test} {gap:+.1f}" for test, gap in ordered]
        if high - low < 0.2 * highest:  # too near each other for a name each
            ax.text(high + 0.03 * highest, y, ", ".join(names), va="center", fontsize=11)
            continue
        for i, (name, (_, gap)) in enumerate(zip(names, ordered, strict=True)):
            up = 0.22 * (-1) ** i
            ax.text(gap, y - up, name, ha="center", va="bottom" if up > 0 else "top", fontsize=11)
    ax.axvline(0, color="black", linewidth=1)
    ax.text(0, -0.72, "the better of the two ", ha="right", va="center", fontsize=11, color="dimgrey")
    ax.set_yticks(range(len(gaps)), list(gaps))
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(-0.3 * highest, 1.12 * highest), ylim=(len(gaps) - 0.4, -0.85), xlabel="points ahead (per cent)")
    style.headline(figure, title)
    return figure


def draw_optima(times: Mapping[str, float], title: str, one_fit: int = 0) -> Figure:
    """How many times past an optimum, by several sources: a dot each; the first `one_fit` are one and the same."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.42 * len(times) + 1.2))
    for y, value in enumerate(times.values()):
        ax.plot([0, value], [y, y], color="#DDDDDD", zorder=0)
        ax.plot(value, y, "o", color=LLAMA3, markersize=9)
        ax.annotate(f"{value:.0f}", (value, y), xytext=(9, 0), textcoords="offset points", va="center")
    highest = max(times.values())
    if one_fit > 1:
        x = max(list(times.values())[:one_fit]) + 0.12 * highest
        ax.plot([x, x], [0, one_fit - 1], color="dimgrey", linewidth=1.5)
        ax.annotate("one fit", (x, (one_fit - 1) / 2), xytext=(7, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(times)), list(times))
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.15 * highest), ylim=(len(times) - 0.5, -0.5), xlabel="times past the optimum")
    style.headline(figure, title)
    return figure


def draw_law(
    tokens: Sequence[float],
    losses: Sequence[float],
    floor: float,
    marks: Mapping[str, tuple[float, float]],
    title: str,
    fitted: float,
) -> Figure:
    """A scaling law's loss of one model against the tokens it has read, its floor, and points with their names.

    Beyond `fitted` tokens the curve is dotted.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.3))
    inside = sum(count <= fitted for count in tokens)
    ax.semilogx(tokens[:inside], losses[:inside], color=LLAMA3)
    ax.semilogx(tokens[max(0, inside - 1) :], losses[max(0, inside - 1) :], ":", color=LLAMA3)
    ax.axvline(fitted, color="lightgrey", linewidth=1, zorder=0)
    ax.text(fitted, 1.0, " beyond the fitted runs", va="top", color="dimgrey", transform=ax.get_xaxis_transform())
    ax.axhline(floor, color=style.RESIDUAL, linestyle="--")
    ax.annotate(
        "with endless text", (tokens[0], floor), xytext=(0, 5), textcoords="offset points", color="dimgrey"
    )
    for name, (x, y) in marks.items():
        ax.plot(x, y, "o", color="black")
        ax.annotate(name, (x, y), xytext=(4, 7), textcoords="offset points")
    ax.set(xlabel="tokens read (logarithmic)", ylabel="loss (nats per token)")
    style.headline(figure, title)
    return figure


def draw_counted(tokens: Sequence[str], losses: Sequence[float], n_read: int, title: str) -> Figure:
    """The loss of each token of a question and its answer; the first `n_read` are read and not counted."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.0))
    colours = ["#DDDDDD" if i < n_read else style.PREDICTION for i in range(len(tokens))]
    bars = ax.bar(range(len(tokens)), losses, color=colours, width=0.65)
    ax.bar_label(bars, [f"{loss:.1f}" for loss in losses], padding=2, fontsize=11)
    ax.set_xticks(
        range(len(tokens)), list(map(token_label, tokens)), rotation=45, ha="right", rotation_mode="anchor"
    )
    ax.tick_params(axis="x", length=0)
    highest = max(losses)
    for x, name in ((n_read / 2 - 0.5, "read"), ((n_read + len(tokens)) / 2 - 0.5, "counted")):
        ax.text(x, 1.27 * highest, name, ha="center", va="top", color="dimgrey")
    ax.axvline(n_read - 0.5, color=style.RESIDUAL, linestyle="--", linewidth=1)
    ax.set(xlim=(-0.6, len(tokens) - 0.4), ylim=(0, 1.3 * highest), ylabel="loss (nats)")
    style.headline(figure, title)
    return figure


def draw_margins(answers: Mapping[str, tuple[float, float]], names: tuple[str, str], title: str) -> Figure:
    """The log-probability of each answer under the reference and under the model, joined by what changed."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.75 * len(answers) + 1.4))
    for y, (before, after) in enumerate(answers.values()):
        ax.annotate(
            "", (after, y), (before, y), arrowprops={"arrowstyle": "-|>", "color": "dimgrey", "shrinkA": 0}
        )
        ax.plot(
            before, y, "o", markerfacecolor="white", color="black", markersize=9, label=None if y else names[0]
        )
        ax.plot(after, y, "o", color="black", markersize=9, label=None if y else names[1])
        ax.text((before + after) / 2, y - 0.18, f"{after - before:+.1f}", ha="center", va="bottom")
    ax.set_yticks(range(len(answers)), list(answers))
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(answers) - 0.5, -0.7), xlabel="log-probability of the whole answer (nats)")
    ax.margins(x=0.12)
    figure.legend(loc="outside lower center", ncols=2)
    style.headline(figure, title)
    return figure
