"""The choice of the next token from the logits: the most probable one, or one drawn from the nucleus."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

NOT_FINITE = -1  # stands for a token where the logits are no distribution


def sample(
    logits: Float[Tensor, " vocab"], temperature: float, top_p: float, generator: torch.Generator | None
) -> Int[Tensor, "1"]:
    """One token, still on the device: nothing here waits for a GPU.

    Temperature 0 (or one so small that dividing by it overflows) takes the most probable token. Else the tokens
    are taken by falling probability until they hold MORE than `top_p` together, and one of them is drawn (nucleus
    sampling: Holtzman et al. 2019, arXiv:1904.09751). The result is -1 where a logit is NaN or infinite.
    """
    finite = logits.isfinite().all()
    if temperature < torch.finfo(torch.float32).tiny:
        token = logits.argmax(dim=-1, keepdim=True)
    else:
        probs, tokens = ((logits - logits.max()) / temperature).softmax(dim=-1), None
        if top_p < 1:
            probs, tokens = probs.sort(descending=True)
            before = probs.cumsum(dim=-1) - probs  # of the tokens before each: 0 for the first, always kept
            probs = probs.masked_fill(before > top_p, 0.0)
        # The largest of p / e, with exponential e, is a draw from p: as torch.multinomial does, but without its
        # check of the numbers, for which a GPU would have to be waited for.
        drawn = (probs / torch.empty_like(probs).exponential_(generator=generator)).argmax(dim=-1, keepdim=True)
        token = drawn if tokens is None else tokens[drawn]
    return torch.where(finite, token, NOT_FINITE)
