"""Part 4 - what is shown of texts that are longer than those a model was trained on."""

import math

import torch
import torch.nn.functional as F

from decoding_llama3.config import LlamaConfig, RopeScaling
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import rope_models as figures
from decoding_llama3.lessons.looks.rope.turning import losses_under
from decoding_llama3.lessons.show import held_out_ids, show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.rope import rope_frequencies, scale_frequencies


def decay(thetas: tuple[float, ...] = (100.0, 10_000.0, 500_000.0), head_dim: int = 128, peak: int = 64) -> None:
    """The score by distance where query and key are the same arrows; and where the key was turned beforehand."""
    distances = sorted({round(2 ** (i / 8)) for i in range(8 * 13 + 1)} | {0, *range(32), *range(48, 80)})
    curves = {}
    for theta in thetas:
        frequencies = rope_frequencies(head_dim, theta).double()
        curves[f"theta {theta:,.0f}"] = _smoothed(torch.arange(10_000).double(), frequencies, distances)
    frequencies = rope_frequencies(head_dim, thetas[-1]).double()
    moved = _smoothed(torch.arange(10_000).double() - peak, frequencies, distances)
    at = distances.index(1024)
    found = ", ".join(f"{values[at]:.2f} ({name})" for name, values in curves.items())
    title = (
        f"Around 1,024 tokens equal arrows still score {found}; a key turned by {peak} is heard best {peak} back"
    )
    alt = (
        "Curves of the score by distance: the larger theta, the slower it falls; a dashed one peaks farther back."
    )
    shifted = f"theta {thetas[-1]:,.0f}, key turned by {peak}", moved
    show_figure(figures.draw_decay(distances, curves, shifted, title), alt)


def _smoothed(steps: torch.Tensor, frequencies: torch.Tensor, distances: list[int]) -> torch.Tensor:
    """The mean of the pairs' cosines, around each distance averaged over the twentieth part before and after."""
    score = torch.outer(steps, frequencies).cos().mean(dim=1)
    return torch.stack([score[d - d // 20 : d + d // 20 + 1].mean() for d in distances])


def long_text(
    subject: Subject, factor: int = 4, times: int = 3, windows: int = 2, bucket: int = 128
) -> dict[str, dict[str, float]]:
    """The loss by place in a text `times` as long as the model was trained for, under some rotations.

    Returns for each the mean loss within the trained length and beyond twice that; there and between the two the
    difference to the model that looks no farther back than it was trained to, with half its 95 % interval.
    """
    trained = subject.model.config.max_seq_len
    ids = held_out_ids(subject.model, subject.tokenizer, windows, times * trained)
    own = probe.pair_frequencies(subject.model)
    control, rule = (
        f"as trained, seeing the last {trained - 1} only",
        f"slow pairs {factor} times slower (3.1's rule)",
    )
    slowed, less = (_slow_pairs_slower(own, by, trained) for by in (factor, factor // 2))
    losses = {
        "as trained": losses_under(subject.model, ids, own),
        control: losses_under(subject.model, ids, own, reach=trained),
        f"all pairs {factor} times slower": losses_under(subject.model, ids, own / factor),
        rule: losses_under(subject.model, ids, slowed),
        f"slow pairs {factor // 2} times slower": losses_under(subject.model, ids, less),
        f"fast pairs {factor} times slower": losses_under(subject.model, ids, own * own / factor / slowed),
    }
    found = {name: _against(loss, losses[control], trained) for name, loss in losses.items()}
    more = [f"{found[name]['difference']:.2f}" for name in ("as trained", rule)]
    title = (
        f"Beyond {2 * trained:,} tokens, what is farther back than {trained - 1} costs {subject.name} "
        f"{more[0]} nats per token; with its slow pairs {factor} times slower {more[1]}"
    )
    buckets = {name: _by_place(loss - losses[control], bucket) for name, loss in losses.items()}
    places = [bucket * (i + 0.5) for i in range(len(buckets[control]))]
    alt = "Lines by place in a long text, one per rotation: its loss above that of the model that looks back less."
    show_figure(figures.draw_long_text(places, buckets, trained, title), alt)
    _show_differences(found, trained, windows, times)
    return found


def _show_differences(found: dict[str, dict[str, float]], trained: int, windows: int, times: int) -> None:
    header = [
        "rotation",
        f"loss, first {trained:,}",
        f"loss beyond {2 * trained:,}",
        f"difference, {trained:,} to {2 * trained:,}",
        f"difference beyond {2 * trained:,}",
    ]
    rows = [
        [
            name,
            f"{x['within']:.2f}",
            f"{x['beyond']:.2f}",
            f"{x['between']:+.2f} ± {x['between_half']:.2f}",
            f"{x['difference']:+.2f} ± {x['half']:.2f}",
        ]
        for name, x in found.items()
    ]
    caption = (
        f"Loss in nats per token, on {windows} pieces of {times * trained:,} tokens of a book that the model has "
        f"not read. Last columns: difference to the second row. ± is a 95 % interval, by stretches of "
        f"{trained // 8} tokens."
    )
    show_table(rows, header, caption)


def _slow_pairs_slower(own: torch.Tensor, factor: int, trained: int) -> torch.Tensor:
    scaling = RopeScaling(
        factor=float(factor), low_freq_factor=1.0, high_freq_factor=4.0, original_context=trained
    )
    return scale_frequencies(own, scaling)


def _by_place(losses: torch.Tensor, bucket: int) -> list[float]:
    padded = F.pad(losses, (0, -losses.shape[1] % bucket), value=float("nan"))
    return padded.unflatten(1, (-1, bucket)).movedim(1, 0).flatten(1).nanmean(dim=1).tolist()


def _against(losses: torch.Tensor, control: torch.Tensor, trained: int) -> dict[str, float]:
    """Mean losses; the mean differences to the control between and beyond, and half their 95 % intervals."""
    between, between_half = _mean_and_half((losses - control)[:, trained : 2 * trained], trained // 8)
    difference, half = _mean_and_half((losses - control)[:, 2 * trained :], trained // 8)
    return {
        "within": losses[:, :trained].mean().item(),
        "beyond": losses[:, 2 * trained :].mean().item(),
        "between": between,
        "between_half": between_half,
        "difference": difference,
        "half": half,
    }


def _mean_and_half(differences: torch.Tensor, stretch: int) -> tuple[float, float]:
    """The mean, and half its interval by stretches of tokens, because neighbouring tokens are not independent."""
    means = differences[:, : differences.shape[1] // stretch * stretch].unflatten(1, (-1, stretch)).mean(dim=-1)
    return differences.mean().item(), (1.96 * means.std() / math.sqrt(means.numel())).item()


def slowed_pairs(preset: str = "llama3.1-8b") -> None:
    """What Llama 3.1's rule does to each pair, and how far beyond trained angles the slowed ones come."""
    config = LlamaConfig.from_preset(preset)
    scaling = config.rope_scaling
    assert scaling is not None
    own = rope_frequencies(config.head_dim, config.rope_theta)
    after = scale_frequencies(own, scaling)
    ratio = own / after
    kept, slowed = int((ratio < 1 + 1e-6).sum()), int((ratio > scaling.factor - 1e-3).sum())
    times = (config.max_seq_len - 1) * after[-1] / ((scaling.original_context - 1) * own[-1])
    title = (
        f"{kept} pairs are kept, {len(own) - kept - slowed} blended, {slowed} turn {scaling.factor:.0f} times "
        f"slower; in {config.max_seq_len:,} tokens these reach {times:.1f} times their largest trained angle"
    )
    alt = (
        "Tokens per turn of each pair, before and after the rule: alike in the fast pairs, apart in the slow ones."
    )
    waves = (2 * torch.pi / own, 2 * torch.pi / after)
    show_figure(figures.draw_slowed(waves, (kept, len(own) - slowed), title), alt)
