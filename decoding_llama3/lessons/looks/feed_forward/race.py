"""Part 6 - a race of the ablation lab, followed from its first steps."""

from collections.abc import Sequence

import torch

from decoding_llama3.experiments import ablation
from decoding_llama3.experiments.ablation.statistics import Difference
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.show import show_table


def ahead_by_step(
    variant: str, steps: Sequence[int] = (50, 100, 150, 200, 300, 500, 1000), group: str = "feed_forward"
) -> dict[int, Difference]:
    """The loss of a variant against Llama 3's after some steps of the same runs. Returns the differences."""
    curves, found, rows = ablation.read_curves(group), {}, []
    baseline = next(iter(curves))
    for step in steps:
        cut = {
            name: {seed: [point for point in points if point.step <= step] for seed, points in seeds.items()}
            for name, seeds in curves.items()
            if name in (baseline, variant)
        }
        found[step] = difference = ablation.compare(cut)[variant]
        low, high = difference.interval
        ahead = sum(cut[variant][s][-1].held_out_loss < cut[baseline][s][-1].held_out_loss for s in cut[variant])
        rows.append(
            [step, f"{difference.mean:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{ahead} of {difference.seeds}"]
        )
    header = ["step", f"{variant} against {baseline}", "its 95 % interval", f"seeds in which {variant} is ahead"]
    show_table(rows, header)
    return found


def loudness_at_start(*variants: ablation.Variant, seed: int = 0, vocab_size: int = 96) -> list[float]:
    """The root mean square of what block 0's feed-forward writes before any training, for tokens drawn by chance.

    Returns it for each of the variants.
    """
    tokens = torch.randint(vocab_size, (1, 128), generator=torch.Generator().manual_seed(seed))
    name, found = "layers.0.feed_forward", []
    for variant in variants:
        model = ablation.build_variant(variant, seed, vocab_size)
        with probe.recording(model, [name]) as record, torch.no_grad():
            model.hidden(tokens)
        found.append(record.outputs[name].square().mean().sqrt().item())
    names = [v.feed_forward if v.gate == "silu" else v.gate for v in variants]
    rows = [[name, f"{loud:.4f}", f"{loud / found[0]:.1f}"] for name, loud in zip(names, found, strict=True)]
    show_table(rows, ["before training", "what block 0 writes, root mean square", f"against {names[0]}"])
    return found
