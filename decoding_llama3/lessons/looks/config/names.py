"""Part 2 - the package's class of a configuration, and what its fields are called elsewhere."""

import dataclasses
import inspect
import textwrap

from IPython.display import Markdown, display

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.show import show_table

# Each field in Meta's params.json and in Hugging Face's config.json; "" where a file has no such key.
ELSEWHERE = {
    "dim": ("dim", "hidden_size"),
    "n_layers": ("n_layers", "num_hidden_layers"),
    "n_heads": ("n_heads", "num_attention_heads"),
    "n_kv_heads": ("n_kv_heads", "num_key_value_heads"),
    "hidden_dim": ("multiple_of, ffn_dim_multiplier", "intermediate_size"),
    "vocab_size": ("vocab_size", "vocab_size"),
    "norm_eps": ("norm_eps", "rms_norm_eps"),
    "rope_theta": ("rope_theta", "rope_theta"),
    "rope_scaling": ("use_scaled_rope", "rope_scaling"),
    "tie_embeddings": ("", "tie_word_embeddings"),
    "max_seq_len": ("", "max_position_embeddings"),
    "head_dim": ("", "head_dim"),
}


def names_elsewhere() -> None:
    """The twelve fields by the names of three implementations."""
    rows = [
        [field.name, *(name or "-" for name in ELSEWHERE[field.name])] for field in dataclasses.fields(LlamaConfig)
    ]
    show_table(rows, ["here", "Meta's params.json", "Hugging Face's config.json"])


def show_class() -> None:
    """The source of the class without its readers: the fields, what is checked of them, and the count."""
    fields, *_ = inspect.getsource(LlamaConfig).partition("    @classmethod\n")
    n_params = vars(LlamaConfig)["n_params"].fget
    count = textwrap.indent(textwrap.dedent(inspect.getsource(n_params)), "    ")
    source = f"{fields.rstrip()}\n\n    ...  # readers of files\n\n{count.rstrip()}"
    display(Markdown(f"`decoding_llama3/config.py`\n```python\n{source}\n```"))
