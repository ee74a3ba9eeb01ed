"""Part 2 - exercises on the configuration."""

from decoding_llama3.config import LlamaConfig, ffn_hidden_dim
from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_number
from decoding_llama3.presets import PRESETS


def _solve_count_params(config):
    kv_dim = config.n_kv_heads * config.head_dim
    attention = 2 * config.dim * config.n_heads * config.head_dim + 2 * config.dim * kv_dim
    feed_forward = 3 * config.dim * config.hidden_dim
    tables = config.vocab_size * config.dim * (1 if config.tie_embeddings else 2)
    return tables + config.n_layers * (attention + feed_forward + 2 * config.dim) + config.dim


def _check_count_params(answer):
    for name in ("llama3-8b", *PRESETS):
        c = LlamaConfig.from_preset(name)
        table, right = c.vocab_size * c.dim, c.n_params
        all_heads = c.n_layers * 2 * c.dim * (c.dim - c.n_kv_heads * c.head_dim)
        known = {
            "the last norm, before the output, is missing": right - c.dim,
            "each block has two norms, one was counted": right - c.n_layers * c.dim,
            "no norm was counted": right - (2 * c.n_layers + 1) * c.dim,
            "keys and values were counted for all query heads; they have n_kv_heads": right + all_heads,
            "the feed-forward has three matrices, two were counted": right - c.n_layers * c.dim * c.hidden_dim,
        }
        if c.tie_embeddings:
            known["where tie_embeddings is True, embedding and output are one table"] = right + table
        else:
            known["embedding and output are two tables here, one was counted"] = right - table
        expect_number(answer(c), right, known, name)


count_params = Exercise(
    _check_count_params,
    _solve_count_params,
    (
        "Count in this order: tables, then one block (attention, feed-forward, norms), then the last norm.",
        "One side of `wq` and `wo` is n_heads * head_dim, one side of `wk` and `wv` n_kv_heads * head_dim only.",
        "Which models have one table for both ends? `config.tie_embeddings` says.",
    ),
)


def _solve_ffn_hidden(dim, multiplier, multiple_of):
    hidden = int(multiplier * (2 * (4 * dim) // 3))
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


def _check_ffn_hidden(answer):
    cases = [(4096, 1.3, 1024), (4096, 1.0, 256), (5120, 1.0, 256), (8192, 1.3, 4096), (16384, 1.2, 4096)]
    for dim, multiplier, multiple in (*cases, (2048, 1.5, 256), (4096, 1.3, 1)):
        right, cut = ffn_hidden_dim(dim, multiple, multiplier), 8 * dim // 3
        widened = int(multiplier * cut)
        late = multiplier * 8 * dim / 3
        known = {
            "round up, not to the nearest multiple": multiple * round(widened / multiple),
            "round up, not down": multiple * (widened // multiple),
            "`%` is the rest of a division; here the whole part belongs, `//`": multiple
            * ((widened + multiple - 1) % multiple),
            "the multiplier is missing": ffn_hidden_dim(dim, multiple),
            "two thirds are missing: SwiGLU has three matrices": multiple
            * -(-int(multiplier * 4 * dim) // multiple),
            "cut to a whole number after the two thirds as well, before the multiplier": multiple
            * -(-int(late) // multiple),
        }
        of = f"dim {dim}, multiplier {multiplier}, multiples of {multiple}"
        expect_number(answer(dim, multiplier, multiple), right, {k: v for k, v in known.items() if v != right}, of)
    if answer(4096, 1.3, 1024) % 1024:
        raise Mistake("the result is no multiple of multiple_of")


ffn_hidden = Exercise(
    _check_ffn_hidden,
    _solve_ffn_hidden,
    (
        "Four times `dim`, two thirds of it, cut to a whole number; times the multiplier, cut again.",
        "To round up with whole numbers: add `multiple_of - 1`, divide with `//`, multiply again.",
    ),
)
