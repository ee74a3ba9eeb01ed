"""Part 2 - exercises on the configuration."""

from dataclasses import replace

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.config import ffn_hidden_dim as hidden_by_rule
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.transformer import Transformer


def preset(name: str) -> LlamaConfig:
    return LlamaConfig.from_preset(name)


def shapes_of(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in a checkpoint of this model; a tied output is not stored."""
    with torch.device("meta"):
        state = Transformer(config).state_dict()
    left_out = {"output.weight"} if config.tie_embeddings else set()
    return {name: tuple(weight.shape) for name, weight in state.items() if name not in left_out}


KEYS_VALUES = "(self.n_heads + self.n_kv_heads)"
n_params = Exercise(
    SameAs(
        LlamaConfig.n_params.fget,  # type: ignore[attr-defined]
        cases=lambda: [
            Case((preset("llama3-8b"),)),
            Case((preset("llama2-7b"),), "for Llama 2, where every query has a key of its own"),
            Case((preset("llama3.2-1b"),), "for the 1B, where embedding and output are one table"),
            Case((preset("llama3-70b"),), "for the 70B"),
            Case((preset("tiny"),), "for tiny"),
        ],
        smallest=lambda: [(preset("tiny"),), (preset("llama3-8b"),)],
        known={
            "the last norm, before the output, is missing": ((" + self.dim\n", "\n"),),
            "each block has two norms, one is counted": (("2 * self.dim\n", "self.dim\n"),),
            "no norm is counted": ((" + 2 * self.dim\n", "\n"), (" + self.dim\n", "\n")),
            "the norms of the blocks are missing": ((" + 2 * self.dim\n", "\n"),),
            "keys and values are counted for all query heads; they have n_kv_heads": (
                (KEYS_VALUES, "(2 * self.n_heads)"),
            ),
            "queries and the output are counted for n_kv_heads only": ((KEYS_VALUES, "(2 * self.n_kv_heads)"),),
            "the output matrix of attention, wo, is missing": (
                (KEYS_VALUES, "(self.n_heads / 2 + self.n_kv_heads)"),
            ),
            "the values' matrix is missing": ((KEYS_VALUES, "(self.n_heads + self.n_kv_heads / 2)"),),
            "the feed-forward has three matrices, two are counted": (("3 * self.dim", "2 * self.dim"),),
            "the feed-forward has three matrices, one is counted": (("3 * self.dim", "self.dim"),),
            "the hidden size is taken as 4 * dim; the configuration has its own": (
                ("self.hidden_dim", "4 * self.dim"),
            ),
            "where tie_embeddings is True, embedding and output are one table": (
                ("(1 if self.tie_embeddings else 2)", "2"),
            ),
            "embedding and output are two tables unless tie_embeddings is True, one is counted": (
                ("(1 if self.tie_embeddings else 2)", "1"),
            ),
            "tied and not tied are exchanged": (
                ("1 if self.tie_embeddings else 2", "2 if self.tie_embeddings else 1"),
            ),
            "embedding, output and last norm are counted in every block": (
                (
                    "vocabulary + self.n_layers * layer + self.dim",
                    "self.n_layers * (vocabulary + layer + self.dim)",
                ),
            ),
            "one block is counted": (("self.n_layers * layer", "layer"),),
            "attention is missing": (("layer = attention + ", "layer = "),),
            "the embedding is counted in every block": (
                ("vocabulary + self.n_layers * layer", "self.n_layers * (vocabulary + layer)"),
            ),
            "the last norm is counted in every block": (
                ("self.n_layers * layer + self.dim", "self.n_layers * (layer + self.dim)"),
            ),
        },
        shows_right=False,
    ),
    solution("config", "n_params"),
    (
        "Count in this order: tables, then one block (attention, feed-forward, norms), then the last norm.",
        "`wq` is (n_heads * head_dim, dim), `wo` turned round; `wk` and `wv` have n_kv_heads * head_dim rows.",
        "Which models have one table for both ends? `config.tie_embeddings` says.",
    ),
)

UP = "multiple_of * -(-hidden // multiple_of)"
TWO_THIRDS = "2 * 4 * dim // 3"
ffn_hidden_dim = Exercise(
    SameAs(
        hidden_by_rule,
        cases=lambda: [
            Case((4096, 1024, 1.3)),
            Case((4096, 256, None), "without a multiplier"),
            Case((5120, 256, None), "for another dim"),
            Case((3072, 256, 1.0), "where it is a multiple already"),
            Case((8192, 4096, 1.3), "for the 70B"),
            Case((2048, 256, 1.5), "for the 1B"),
            Case((4096, 1, 1.3), "where any whole number is a multiple"),
            Case((16384, 4096, 1.2), "for the 405B"),
        ],
        smallest=lambda: [(3, 1, None), (3, 10, None), (3, 8, None), (3, 1, 1.3), (3, 10, 1.3), (4, 1, 1.5)],
        known={
            "round up, not to the nearest multiple": ((UP, "multiple_of * round(hidden / multiple_of)"),),
            "round up, not down": ((UP, "multiple_of * (hidden // multiple_of)"),),
            "one more multiple is always added, also where it is a multiple already": (
                (UP, "multiple_of * (hidden // multiple_of + 1)"),
            ),
            "`%` is the rest of a division; the whole part belongs here, `//`": (
                (UP, "multiple_of * ((hidden + multiple_of - 1) % multiple_of)"),
            ),
            "it is not rounded to a multiple": ((UP, "hidden"),),
            "the number of multiples is returned; multiply by multiple_of again": (
                (UP, "-(-hidden // multiple_of)"),
            ),
            "multiple_of is added; round up to the next multiple": ((UP, "hidden + multiple_of"),),
            "the multiplier is not used": (("int(multiplier * hidden)", "hidden"),),
            "two thirds are missing: SwiGLU has three matrices": ((TWO_THIRDS, "4 * dim"),),
            "the factor four is missing": ((TWO_THIRDS, "2 * dim // 3"),),
            "three halves are taken, not two thirds": ((TWO_THIRDS, "3 * 4 * dim // 2"),),
            "the rest is added; it must be filled up to the next multiple": (
                (UP, "hidden + hidden % multiple_of"),
            ),
            "a third is taken, not two": ((TWO_THIRDS, "4 * dim // 3"),),
            "it is not cut to a whole number after the two thirds, before the multiplier": (
                (TWO_THIRDS, "2 * 4 * dim / 3"),
                ("-(-hidden // multiple_of)", "-(-int(hidden) // multiple_of)"),
            ),
            "the multiplier comes after the rounding": (
                (
                    "int(multiplier * hidden)",
                    "multiple_of * -(-hidden // multiple_of)\n        return int(multiplier * hidden)",
                ),
            ),
            "the result is a float; a size is a whole number": ((UP, f"float({UP})"),),
            "multiplier=None is not answered: it means no multiplier": (
                ("if multiplier is not None:", "if True:"),
            ),
        },
        shows_right=False,
    ),
    solution("config", "ffn_hidden_dim"),
    (
        "Four times `dim`, two thirds of it, cut to a whole number; times the multiplier, cut again.",
        "To round up with whole numbers: add `multiple_of - 1`, divide with `//`, multiply again.",
    ),
)

PER_TOKEN = "2 * self.n_layers * self.n_kv_heads * self.head_dim * dtype.itemsize"
kv_cache_bytes = Exercise(
    SameAs(
        LlamaConfig.kv_cache_bytes,
        cases=lambda: [
            Case((preset("llama3-8b"), 8192, 1, torch.bfloat16)),
            Case((preset("llama2-7b"), 4096, 3, torch.float32), "for three texts of Llama 2 in float32"),
            Case((preset("llama3.2-1b"), 1, 1, torch.int8), "for one token in int8"),
            Case((preset("tiny"), 0, 2, torch.bfloat16), "for no token"),
        ],
        smallest=lambda: [(preset("tiny"), 1, 1, torch.bfloat16), (preset("tiny"), 2, 1, torch.float32)],
        known={
            "keys alone are counted; there are values, too": (("2 * self.n_layers", "self.n_layers"),),
            "all query heads are counted; only n_kv_heads have keys and values": (
                ("self.n_kv_heads", "self.n_heads"),
            ),
            "one block is counted": (("2 * self.n_layers *", "2 *"),),
            "queries are counted, too; they are not kept": (
                ("2 * self.n_layers * self.n_kv_heads", "self.n_layers * (self.n_heads + 2 * self.n_kv_heads)"),
            ),
            "batch is added; every text has a cache of its own": (("* seq_len * batch", "* seq_len + batch"),),
            "one token too few is counted": (("* seq_len *", "* (seq_len - 1) *"),),
            "one head is counted": (("self.n_kv_heads * ", ""),),
            "dim is counted for each head; a head has head_dim": (("self.head_dim", "self.dim"),),
            "numbers are counted, not bytes": ((" * dtype.itemsize", ""),),
            "two bytes are always counted; dtype says how many": (("dtype.itemsize", "2"),),
            "bits are counted, not bytes": (("dtype.itemsize", "dtype.itemsize * 8"),),
            "one text is counted": ((" * batch", ""),),
            "one token is counted": (("bytes_per_token * seq_len", "bytes_per_token"),),
            "the number of tokens is squared: the cache has no row per pair of tokens": (
                ("* seq_len *", "* seq_len**2 *"),
            ),
            "the model's whole context is counted; asked are seq_len tokens": (
                ("* seq_len *", "* self.max_seq_len *"),
            ),
            "the weights are counted as well": ((" * batch\n", " * batch + self.n_params * dtype.itemsize\n"),),
            "megabytes are returned": ((" * batch\n", " * batch / 1e6\n"),),
        },
        shows_right=False,
    ),
    solution("config", "kv_cache_bytes"),
    (
        "One token, one block: a key and a value of head_dim numbers for each head that has them.",
        "Times blocks, tokens, texts, and `dtype.itemsize`.",
    ),
)

config_of = Exercise(
    Graded("config", "config_of", lambda: (shapes_of(preset("tiny")), preset("tiny").head_dim)),
    solution("config", "config_of"),
    (
        "Each field stands in the shape of some weight. Which weight has n_kv_heads * head_dim rows?",
        "How many different numbers stand after `layers.`? What is missing in a tied model?",
    ),
    graded=True,
)

wrong_field = Exercise(
    Graded("config", "wrong_field", lambda: (preset("tiny"), shapes_of(replace(preset("tiny"), vocab_size=500)))),
    solution("config", "wrong_field"),
    (
        "If you can read a configuration off the shapes, you can compare it field by field.",
        "n_heads and n_kv_heads need head_dim, which is right.",
    ),
    graded=True,
)
