"""The smallest input on which an answer and the right function differ, written out."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from decoding_llama3.lessons.practice.compare import plain, same
from decoding_llama3.lessons.practice.outcome import Outcome, outcome_of, parameter_names

SHOWN = 24  # numbers of a tensor


def smallest_example(
    answer: Callable, right: Callable, inputs: Iterable[Sequence[object]], shows_right: bool, stops: bool
) -> str:
    """Lines with the first of `inputs` on which both differ, what comes out and what should; "" if there is none.

    `stops` says whether an input is looked for on which the answer raises, or one on which it returns.
    """
    for arguments in inputs:
        found, expected = outcome_of(answer, arguments, seconds=2), outcome_of(right, arguments, None)
        if found.late:
            return ""
        if stops == bool(found.error) and (stops or not same(found.value, expected.value)):
            named = list(zip(parameter_names(right, len(arguments)), arguments, strict=True))
            named.append(("yours", found.error or found.value))
            if shows_right:
                named.append(("expected", expected.value))
            return written(named)
    return ""


def written(named: Sequence[tuple[str, object]]) -> str:
    """One line or more per value, the names in a column."""
    width = max(len(name) for name, _ in named)
    blocks = []
    for name, value in named:
        first, *rest = text_of(value).splitlines() or [""]
        blocks += [f"  {name:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in rest)]
    return "\n".join(blocks)


def text_of(value: object) -> str:
    """A value as a learner reads it: three digits, the shape in front, long ones cut."""
    value = plain(value)
    if isinstance(value, Tensor):
        return _text_of_tensor(value)
    if isinstance(value, nn.Linear):
        return f"a linear layer with the weight {_text_of_tensor(value.weight.detach())}"
    if isinstance(value, nn.Module):
        tensors = [
            f"{name} {_text_of_tensor(tensor)}"
            for name, tensor in (*value.named_parameters(), *value.named_buffers())
        ]
        return "\n".join([f"a {type(value).__name__}", *tensors[:4]])
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (tuple, list)) and any(isinstance(item, Tensor) for item in value):
        return "\n".join(text_of(item) for item in value)
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _text_of_tensor(tensor: Tensor) -> str:
    kind = "" if tensor.dtype in (torch.float32, torch.int64, torch.bool) else f" {str(tensor.dtype)[6:]}"
    head = f"{tuple(tensor.shape)}{kind}:"
    if tensor.numel() > SHOWN:
        return f"{head} {', '.join(map(_text_of_number, tensor.flatten()[:SHOWN].tolist()))}, ..."
    while tensor.dim() > 2 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.dim() < 2:
        return f"{head} [{', '.join(map(_text_of_number, tensor.reshape(-1).tolist()))}]"
    rows = [", ".join(map(_text_of_number, row)) for row in tensor.flatten(0, -2).tolist()]
    indent = " " * (len(head) + 1)
    return f"{head} " + f"\n{indent}".join(f"[{row}]" for row in rows)


def _text_of_number(number: float | int | bool) -> str:
    return f"{number:.3g}" if isinstance(number, float) else str(number)


def error_clause(outcome: Outcome) -> str:
    """An error in a clause, with the learner's own line."""
    return f"it stops in {outcome.line}: {outcome.error}" if outcome.line else f"it stops with {outcome.error}"
