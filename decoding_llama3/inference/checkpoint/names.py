"""The names of tensors: ours, which are those of our state dict, and those of each format."""

import re
from collections.abc import Mapping

HUGGINGFACE_NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "layers": "model.layers",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w_gate": "mlp.gate_proj",
    "feed_forward.w_up": "mlp.up_proj",
    "feed_forward.w_down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "norm": "model.norm",
    "output": "lm_head",
}
META_NAMES = {
    "feed_forward.w_gate": "feed_forward.w1",
    "feed_forward.w_down": "feed_forward.w2",
    "feed_forward.w_up": "feed_forward.w3",
}
DERIVED = re.compile(r"rope\.freqs|.*\.rotary_emb\.inv_freq")  # stored by some exporters, computed here


class Names:
    """Translates between our names and those of a format, given as a table of the parts that differ."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self.to_theirs, self.to_ours = dict(table), {theirs: ours for ours, theirs in table.items()}

    def theirs(self, ours: str) -> str:
        """The name in the format."""
        return _replace(ours, self.to_theirs)

    def ours(self, theirs: str) -> str | None:
        """Our name, or None where no name of ours is called so there."""
        ours = _replace(theirs, self.to_ours)
        return ours if self.theirs(ours) == theirs else None


def _replace(name: str, table: dict[str, str]) -> str:
    pattern = r"(?<![^.])(" + "|".join(map(re.escape, table)) + r")(?![^.])"  # whole words between dots
    return re.sub(pattern, lambda match: table[match[1]], name)
