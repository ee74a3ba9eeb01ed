"""`compare`: what distinguishes two checkpoints, and why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from decoding_llama3.cli.options import CHECKPOINT
from decoding_llama3.cli.terminal import console, visible, waiting, write

if TYPE_CHECKING:
    from decoding_llama3.comparison.checkpoints import Comparison, PromptComparison
    from decoding_llama3.comparison.weights import TensorMatch

DIFFERS = 1  # exit code


def compare(
    a: Annotated[str, typer.Argument(help=CHECKPOINT)],
    b: Annotated[str, typer.Argument(help="Another one, of the same format or of another.")],
) -> None:
    """Compare two checkpoints and name the likely cause if they differ: exit code 0 if equal, else 1.

    First their settings, then their tensors, one at a time; then, if their weights are related, what both make of
    a prompt. Causes that are known: the layout of pairs in wq and wk, theta and scaling of RoPE, the eps of norms,
    tied embeddings, rounding to 16 bits, a vocabulary grown, heads cut otherwise, the length of the context.
    """
    with waiting("starting"):
        from decoding_llama3.comparison.checkpoints import compare_checkpoints
    with waiting("comparing") as report:
        found = compare_checkpoints(a, b, report)
    _print_settings(found)
    lines = [*_tensor_lines(found), *_prompt_lines(found), *_verdict(found)]
    write(visible("\n".join(lines)) + "\n")
    if not found.is_equal:
        raise typer.Exit(DIFFERS)


def _print_settings(found: Comparison) -> None:
    from rich.table import Table

    table = Table("", "A", "B", "", box=None)
    for name, a, b in found.settings:
        table.add_row(name, str(a), str(b), "" if a == b else "DIFFERS")
    console().print(table)


def _tensor_lines(found: Comparison) -> list[str]:
    """How many tensors are related in which way, and the first that differs."""
    counts = Counter(map(_in_words, found.tensors))
    lines = ["Tensors: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()) + "."]
    first = found.first
    if first is None:
        return lines
    if first.shape_a != first.shape_b:
        shapes = (str(shape or "none") for shape in (first.shape_a, first.shape_b))
        how = "of the shape {} in A, {} in B".format(*shapes)
    else:
        how = f"by up to {first.largest:.2g}, {first.relative:.1e} of its size"
    return [*lines, f"First that differs: {first.name}, {how}."]


def _in_words(match: TensorMatch) -> str:
    if match.kind == "missing":
        return "in one of the two alone"
    kind = {"other": "different", "rounded": f"rounded to {match.dtype}"}.get(match.kind, match.kind)
    if match.order is not None:
        kind += " with rows in another order"
    return kind + (" in the rows of both" if match.shape_a != match.shape_b and match.kind != "other" else "")


def _prompt_lines(found: Comparison) -> list[str]:
    on_prompt = found.on_prompt
    if on_prompt is None:
        reason = "there is too little memory" if found.related else "the weights are not related"
        return [f"Logits were not compared: {reason}."]
    near, far, turned = (f"{each.relative:.1e}" for each in (on_prompt.near, on_prompt.far, on_prompt.turned))
    lines = [f"Logits differ by {near} at the first positions, by {far} far into the context. Prompt: "]
    lines[0] += f"{on_prompt.prompt}."
    if on_prompt.far.relative > 0:
        lines.append(
            f"With A's rows reordered and its settings those of B, as far as they are known: by {turned}."
        )
    return [*lines, *_loss_lines(on_prompt)]


def _loss_lines(on_prompt: PromptComparison) -> list[str]:
    if on_prompt.losses is None or on_prompt.near.relative == 0:
        return []
    a, b = on_prompt.losses
    return [f"Loss on the prompt, in nats per token: {a:.3f} in A, {b:.3f} in B."]


def _verdict(found: Comparison) -> list[str]:
    if found.is_equal:
        return ["EQUAL: the same settings and the same weights."]
    if not found.related:
        return ["DIFFERENT: two models with weights of their own, or of other shapes, so no cause is named."]
    lines = ["DIFFERENT. Likely cause:" if len(found.causes) == 1 else "DIFFERENT. Likely causes:"]
    return [*lines, *(f"- {cause.name}: {cause.text}." for cause in found.causes)]
