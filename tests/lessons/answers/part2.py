import math
import re
import torch
import torch.nn.functional as F


# --- n_params
def n_params_wrong_always_untied(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    return 2 * c.vocab_size * c.dim + c.n_layers * block + c.dim


def n_params_wrong_always_tied(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    return c.vocab_size * c.dim + c.n_layers * block + c.dim


def n_params_wrong_tie_inverted(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (2 if c.tie_embeddings else 1)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_no_norms(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block


def n_params_wrong_final_norm_forgotten(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block


def n_params_wrong_one_norm_per_block(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_full_kv(config):
    c = config
    block = 4 * c.dim * c.n_heads * c.head_dim + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_two_ffn_matrices(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 2 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_wo_forgotten(config):
    c = config
    block = c.dim * c.head_dim * (c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_biases(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    block += c.head_dim * (c.n_heads + 2 * c.n_kv_heads) + c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_layer_norm_bias(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 4 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + 2 * c.dim


def n_params_wrong_one_kv(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_one_layer(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + block + c.dim


def n_params_wrong_everything_times_layers(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return c.n_layers * (emb + block + c.dim)


def n_params_wrong_rope_table(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    block += c.head_dim // 2
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_wrong_billions(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return round((emb + c.n_layers * block + c.dim) / 1e9, 2)


def n_params_wrong_kv_not_times_dim(config):
    c = config
    block = 2 * c.dim * c.n_heads * c.head_dim + 2 * c.n_kv_heads * c.head_dim + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_right_formula(config):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    emb = c.vocab_size * c.dim * (1 if c.tie_embeddings else 2)
    return emb + c.n_layers * block + c.dim


def n_params_right_list_of_shapes(config):
    q, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    d, h = config.dim, config.hidden_dim
    shapes = [(config.vocab_size, d), (d,)]
    if not config.tie_embeddings:
        shapes.append((config.vocab_size, d))
    for _ in range(config.n_layers):
        shapes += [(q, d), (kv, d), (kv, d), (d, q), (h, d), (h, d), (d, h), (d,), (d,)]
    return sum(math.prod(s) for s in shapes)


def n_params_right_meta_modules(config):
    L = lambda i, o: torch.nn.Linear(i, o, bias=False, device="meta")
    d, q, kv = config.dim, config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    parts = [L(d, config.vocab_size), L(1, d)]
    if not config.tie_embeddings:
        parts.append(L(d, config.vocab_size))
    block = [L(d, q), L(d, kv), L(d, kv), L(q, d), L(d, config.hidden_dim), L(d, config.hidden_dim),
             L(config.hidden_dim, d), L(1, d), L(1, d)]
    count = lambda ms: sum(p.numel() for m in ms for p in m.parameters())
    return count(parts) + config.n_layers * count(block)


# --- ffn_hidden_dim
def ffn_hidden_dim_wrong_rounds_down(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    if multiplier is not None:
        h = int(multiplier * h)
    return h // multiple_of * multiple_of


def ffn_hidden_dim_wrong_always_one_more(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    if multiplier is not None:
        h = int(multiplier * h)
    return (h // multiple_of + 1) * multiple_of


def ffn_hidden_dim_wrong_nearest(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    if multiplier is not None:
        h = int(multiplier * h)
    return round(h / multiple_of) * multiple_of


def ffn_hidden_dim_wrong_none_crashes(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    h = int(multiplier * h)
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_ignores_multiplier(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_no_two_thirds(dim, multiple_of, multiplier=None):
    h = 4 * dim
    if multiplier is not None:
        h = int(multiplier * h)
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_no_cut_between(dim, multiple_of, multiplier=None):
    h = 4 * dim * 2 / 3 * (multiplier or 1)
    return math.ceil(h / multiple_of) * multiple_of


def ffn_hidden_dim_wrong_multiplier_after_rounding(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    h = (h + multiple_of - 1) // multiple_of * multiple_of
    if multiplier is not None:
        h = int(multiplier * h)
    return h


def ffn_hidden_dim_wrong_float(dim, multiple_of, multiplier=None):
    h = 8 * dim / 3
    if multiplier is not None:
        h = multiplier * h
    return (h + multiple_of - 1) / multiple_of * multiple_of


def ffn_hidden_dim_wrong_no_multiple(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    return h if multiplier is None else int(h * multiplier)


def ffn_hidden_dim_wrong_adds_multiple(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is not None:
        h = int(h * multiplier)
    return (h + multiple_of) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_two_thirds_zero(dim, multiple_of, multiplier=None):
    h = 4 * dim * (2 // 3)
    if multiplier is not None:
        h = int(h * multiplier)
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_early_return_without_rounding(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is None:
        return h
    h = int(h * multiplier)
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_three_halves(dim, multiple_of, multiplier=None):
    h = int(4 * dim * 3 / 2)
    if multiplier is not None:
        h = int(h * multiplier)
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_wrong_number_of_multiples(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is not None:
        h = int(h * multiplier)
    return (h + multiple_of - 1) // multiple_of


def ffn_hidden_dim_wrong_power_of_two(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is not None:
        h = int(h * multiplier)
    return 2 ** math.ceil(math.log2(h))


def ffn_hidden_dim_wrong_adds_remainder(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is not None:
        h = int(h * multiplier)
    return h + h % multiple_of


def ffn_hidden_dim_wrong_endless(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is not None:
        h = h * multiplier + 0.5
    while h % multiple_of:
        h += 1
    return h


def ffn_hidden_dim_wrong_multiplier_cut(dim, multiple_of, multiplier=None):
    h = int(8 * dim / 3)
    if multiplier is not None:
        h = int(multiplier) * h
    return (h + multiple_of - 1) // multiple_of * multiple_of


def ffn_hidden_dim_right_classic(dim, multiple_of, multiplier=None):
    h = int(2 * 4 * dim / 3)
    if multiplier is not None:
        h = int(multiplier * h)
    return multiple_of * ((h + multiple_of - 1) // multiple_of)


def ffn_hidden_dim_right_ceil(dim, multiple_of, multiplier=None):
    h = 8 * dim // 3
    h = h if multiplier is None else math.floor(h * multiplier)
    return math.ceil(h / multiple_of) * multiple_of


def ffn_hidden_dim_right_loop(dim, multiple_of, multiplier=None):
    h = (4 * dim) * 2 // 3
    if multiplier is not None:
        h = int(h * multiplier)
    while h % multiple_of != 0:
        h += 1
    return h


def ffn_hidden_dim_right_negative_modulo(dim, multiple_of, multiplier=None):
    h = 8 * dim // 3
    if multiplier is not None:
        h = int(multiplier * h)
    return h + (-h) % multiple_of


# --- kv_cache_bytes
def kv_cache_bytes_wrong_no_factor_two(config, seq_len, batch, dtype):
    return config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_all_heads(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_heads * config.head_dim * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_dim(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.dim * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_numbers(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch


def kv_cache_bytes_wrong_always_two_bytes(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * 2


def kv_cache_bytes_wrong_one_layer(config, seq_len, batch, dtype):
    return 2 * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_no_batch(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * dtype.itemsize


def kv_cache_bytes_wrong_seq_squared(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len ** 2 * batch * dtype.itemsize


def kv_cache_bytes_wrong_bits(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize * 8


def kv_cache_bytes_wrong_heads_only(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_head_dim_from_kv(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * (config.dim // config.n_kv_heads) * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_gigabytes(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize / 2 ** 30


def kv_cache_bytes_wrong_also_queries(config, seq_len, batch, dtype):
    return config.n_layers * (config.n_heads + 2 * config.n_kv_heads) * config.head_dim * seq_len * batch * dtype.itemsize


def kv_cache_bytes_wrong_element_size_call(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.element_size()


def kv_cache_bytes_wrong_itemsize_called(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize()


def kv_cache_bytes_wrong_adds_batch(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * (seq_len + batch) * dtype.itemsize


def kv_cache_bytes_wrong_divides_group(config, seq_len, batch, dtype):
    group = config.n_heads // config.n_kv_heads
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize // group


def kv_cache_bytes_wrong_last_token_missing(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * (seq_len - 1) * batch * dtype.itemsize


def kv_cache_bytes_right_formula(config, seq_len, batch, dtype):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * seq_len * batch * dtype.itemsize


def kv_cache_bytes_right_meta(config, seq_len, batch, dtype):
    k = torch.empty(batch, config.n_kv_heads, seq_len, config.head_dim, dtype=dtype, device="meta")
    v = torch.empty(k.shape, dtype=dtype, device="meta")
    return config.n_layers * (k.nbytes + v.nbytes)


def kv_cache_bytes_right_loop(config, seq_len, batch, dtype):
    total = 0
    for _ in range(config.n_layers):
        for _ in ("keys", "values"):
            total += math.prod((batch, config.n_kv_heads, seq_len, config.head_dim)) * dtype.itemsize
    return total


# --- config_of
def config_of_wrong_tie_inverted(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" in shapes)


def config_of_wrong_layers_off_by_one(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_layers_string_max(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + int(max(k.split(".")[1] for k in shapes if k.startswith("layers.")))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_one_digit_layers(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = len({k[7] for k in shapes if k.startswith("layers.")})
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_counts_weights_as_layers(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = sum(k.startswith("layers.") for k in shapes)
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_wq_columns(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][1] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][1] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_dim_vocab_swapped(shapes, head_dim):
    d, v = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_needs_output(shapes, head_dim):
    v, d = shapes["output.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings=shapes["output.weight"] == shapes["tok_embeddings.weight"])


def config_of_wrong_heads_from_dim(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=d // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_kv_as_queries(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    h = shapes["layers.0.attention.wq.weight"][0] // head_dim
    return dict(dim=d, n_layers=n, n_heads=h, n_kv_heads=h,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_float_heads(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] / head_dim + 0.5,
                n_kv_heads=shapes[a + "wk.weight"][0] / head_dim + 0.5,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_hidden_columns(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][1], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_tie_missing(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v)


def config_of_wrong_rows_not_heads(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0], n_kv_heads=shapes[a + "wk.weight"][0],
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_hf_names(shapes, head_dim):
    v, d = shapes["model.embed_tokens.weight"]
    n = 1 + max(int(k.split(".")[2]) for k in shapes if k.startswith("model.layers."))
    a = "model.layers.0.self_attn."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "q_proj.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "k_proj.weight"][0] // head_dim,
                hidden_dim=shapes["model.layers.0.mlp.gate_proj.weight"][0], vocab_size=v,
                tie_embeddings="lm_head.weight" not in shapes)


def config_of_wrong_list(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return [d, n, shapes[a + "wq.weight"][0] // head_dim, shapes[a + "wk.weight"][0] // head_dim,
            shapes["layers.0.feed_forward.w_gate.weight"][0], v, "output.weight" not in shapes]


def config_of_wrong_hidden_by_formula(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=4 * d, vocab_size=v, tie_embeddings="output.weight" not in shapes)


def config_of_wrong_group_size(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wq.weight"][0] // shapes[a + "wk.weight"][0],
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_wrong_tie_always_false(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v, tie_embeddings=False)


def config_of_right_lookups(shapes, head_dim):
    v, d = shapes["tok_embeddings.weight"]
    n = 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers."))
    a = "layers.0.attention."
    return dict(dim=d, n_layers=n, n_heads=shapes[a + "wq.weight"][0] // head_dim,
                n_kv_heads=shapes[a + "wk.weight"][0] // head_dim,
                hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0], vocab_size=v,
                tie_embeddings="output.weight" not in shapes)


def config_of_right_count_wq(shapes, head_dim):
    out = {"tie_embeddings": True, "n_layers": 0}
    for name, shape in shapes.items():
        if name == "tok_embeddings.weight":
            out["vocab_size"], out["dim"] = shape
        elif name == "output.weight":
            out["tie_embeddings"] = False
        elif name.endswith(".attention.wq.weight"):
            out["n_layers"] += 1
            out["n_heads"] = shape[0] // head_dim
        elif name.endswith(".attention.wk.weight"):
            out["n_kv_heads"] = shape[0] // head_dim
        elif name.endswith(".feed_forward.w_gate.weight"):
            out["hidden_dim"] = shape[0]
    return out


def config_of_right_regex(shapes, head_dim):
    layers = {int(m.group(1)) for k in shapes if (m := re.match(r"layers\.(\d+)\.", k))}
    q = shapes["layers.0.attention.wq.weight"]
    k = shapes["layers.0.attention.wk.weight"]
    g = shapes["layers.0.feed_forward.w_gate.weight"]
    return {"dim": q[1], "n_layers": len(layers), "n_heads": q[0] // head_dim, "n_kv_heads": k[0] // head_dim,
            "hidden_dim": g[0], "vocab_size": shapes["tok_embeddings.weight"][0],
            "tie_embeddings": not any(k == "output.weight" for k in shapes)}


def config_of_right_while(shapes, head_dim):
    n = 0
    while f"layers.{n}.attention.wq.weight" in shapes:
        n += 1
    first = {k[len("layers.0."):]: s for k, s in shapes.items() if k.startswith("layers.0.")}
    return {"dim": shapes["norm.weight"][0], "n_layers": n,
            "n_heads": first["attention.wq.weight"][0] // head_dim,
            "n_kv_heads": first["attention.wk.weight"][0] // head_dim,
            "hidden_dim": first["feed_forward.w_gate.weight"][0],
            "vocab_size": shapes["tok_embeddings.weight"][0],
            "tie_embeddings": shapes.get("output.weight") is None}


# --- wrong_field
def wrong_field_wrong_always_none(config, shapes):
    return None


def wrong_field_wrong_empty_string(config, shapes):
    c = config
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["tok_embeddings.weight"][1] != c.dim:
        return "dim"
    if 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers.")) != c.n_layers:
        return "n_layers"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return ""


def wrong_field_wrong_tie_inverted(config, shapes):
    c = config
    if shapes["tok_embeddings.weight"] != (c.vocab_size, c.dim):
        return "vocab_size" if shapes["tok_embeddings.weight"][0] != c.vocab_size else "dim"
    if 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers.")) != c.n_layers:
        return "n_layers"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    if ("output.weight" in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return None


def wrong_field_wrong_forgets_tie(config, shapes):
    c = config
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["tok_embeddings.weight"][1] != c.dim:
        return "dim"
    if 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers.")) != c.n_layers:
        return "n_layers"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"


def wrong_field_wrong_list(config, shapes):
    c = config
    found = []
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        found.append("vocab_size")
    if shapes["tok_embeddings.weight"][1] != c.dim:
        found.append("dim")
    if sum("attention.wq" in k for k in shapes) != c.n_layers:
        found.append("n_layers")
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        found.append("n_heads")
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        found.append("n_kv_heads")
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        found.append("hidden_dim")
    if ("output.weight" not in shapes) != c.tie_embeddings:
        found.append("tie_embeddings")
    return found


def wrong_field_wrong_whole_shape_blames_heads(config, shapes):
    c = config
    n = sum("attention.wq" in k for k in shapes)
    if shapes["layers.0.attention.wq.weight"] != (c.n_heads * c.head_dim, c.dim):
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"] != (c.n_kv_heads * c.head_dim, c.dim):
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"] != (c.hidden_dim, c.dim):
        return "hidden_dim"
    if shapes["tok_embeddings.weight"] != (c.vocab_size, c.dim):
        return "vocab_size"
    if n != c.n_layers:
        return "n_layers"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    if shapes["norm.weight"] != (c.dim,):
        return "dim"
    return None


def wrong_field_wrong_head_dim_from_config_division(config, shapes):
    c = config
    head_dim = c.dim // c.n_heads
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * head_dim:
        return "n_kv_heads"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * head_dim:
        return "n_heads"
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["tok_embeddings.weight"][1] != c.dim:
        return "dim"
    if sum("attention.wq" in k for k in shapes) != c.n_layers:
        return "n_layers"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return None


def wrong_field_wrong_layers_off_by_one(config, shapes):
    c = config
    if max(int(k.split(".")[1]) for k in shapes if k.startswith("layers.")) != c.n_layers:
        return "n_layers"
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["tok_embeddings.weight"][1] != c.dim:
        return "dim"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return None


def wrong_field_wrong_only_too_few_layers(config, shapes):
    c = config
    for i in range(c.n_layers):
        if f"layers.{i}.attention.wq.weight" not in shapes:
            return "n_layers"
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["tok_embeddings.weight"][1] != c.dim:
        return "dim"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return None


def wrong_field_wrong_reads_output_of_tied(config, shapes):
    c = config
    if shapes["output.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["output.weight"][1] != c.dim:
        return "dim"
    if sum("attention.wq" in k for k in shapes) != c.n_layers:
        return "n_layers"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    return "tie_embeddings" if c.tie_embeddings else None


def wrong_field_wrong_value_not_name(config, shapes):
    c = config
    right = dict(vocab_size=shapes["tok_embeddings.weight"][0], dim=shapes["tok_embeddings.weight"][1],
                 n_layers=sum("attention.wq" in k for k in shapes),
                 n_heads=shapes["layers.0.attention.wq.weight"][0] // c.head_dim,
                 n_kv_heads=shapes["layers.0.attention.wk.weight"][0] // c.head_dim,
                 hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0],
                 tie_embeddings="output.weight" not in shapes)
    for name, value in right.items():
        if getattr(c, name) != value:
            return value
    return None


def wrong_field_wrong_return_in_first_turn(config, shapes):
    c = config
    right = dict(vocab_size=shapes["tok_embeddings.weight"][0], dim=shapes["tok_embeddings.weight"][1],
                 n_layers=sum("attention.wq" in k for k in shapes),
                 n_heads=shapes["layers.0.attention.wq.weight"][0] // c.head_dim,
                 n_kv_heads=shapes["layers.0.attention.wk.weight"][0] // c.head_dim,
                 hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0],
                 tie_embeddings="output.weight" not in shapes)
    for name, value in right.items():
        if getattr(c, name) != value:
            return name
        else:
            return None


def wrong_field_wrong_none_as_string(config, shapes):
    c = config
    right = dict(vocab_size=shapes["tok_embeddings.weight"][0], dim=shapes["tok_embeddings.weight"][1],
                 n_layers=sum("attention.wq" in k for k in shapes),
                 n_heads=shapes["layers.0.attention.wq.weight"][0] // c.head_dim,
                 n_kv_heads=shapes["layers.0.attention.wk.weight"][0] // c.head_dim,
                 hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0],
                 tie_embeddings="output.weight" not in shapes)
    bad = [n for n, v in right.items() if getattr(c, n) != v]
    return bad[0] if bad else "None"


def wrong_field_wrong_index_error_if_none(config, shapes):
    c = config
    right = dict(vocab_size=shapes["tok_embeddings.weight"][0], dim=shapes["tok_embeddings.weight"][1],
                 n_layers=sum("attention.wq" in k for k in shapes),
                 n_heads=shapes["layers.0.attention.wq.weight"][0] // c.head_dim,
                 n_kv_heads=shapes["layers.0.attention.wk.weight"][0] // c.head_dim,
                 hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0],
                 tie_embeddings="output.weight" not in shapes)
    return [n for n, v in right.items() if getattr(c, n) != v][0]


def wrong_field_wrong_kv_vs_wq(config, shapes):
    c = config
    right = dict(vocab_size=shapes["tok_embeddings.weight"][0], dim=shapes["tok_embeddings.weight"][1],
                 n_layers=sum("attention.wq" in k for k in shapes),
                 n_heads=shapes["layers.0.attention.wk.weight"][0] // c.head_dim,
                 n_kv_heads=shapes["layers.0.attention.wq.weight"][0] // c.head_dim,
                 hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0],
                 tie_embeddings="output.weight" not in shapes)
    for name, value in right.items():
        if getattr(c, name) != value:
            return name
    return None


def wrong_field_wrong_config_as_dict(config, shapes):
    if config["vocab_size"] != shapes["tok_embeddings.weight"][0]:
        return "vocab_size"
    if config["dim"] != shapes["tok_embeddings.weight"][1]:
        return "dim"
    return None


def wrong_field_wrong_dim_from_wo_rows_heads_from_dim(config, shapes):
    c = config
    if shapes["norm.weight"][0] != c.dim:
        return "dim"
    if c.n_heads * c.head_dim != c.dim:
        return "n_heads"
    if c.n_heads % c.n_kv_heads:
        return "n_kv_heads"
    if c.hidden_dim < c.dim:
        return "hidden_dim"
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if sum("attention.wq" in k for k in shapes) != c.n_layers:
        return "n_layers"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return None


def wrong_field_right_ifs(config, shapes):
    c = config
    if shapes["tok_embeddings.weight"][0] != c.vocab_size:
        return "vocab_size"
    if shapes["tok_embeddings.weight"][1] != c.dim:
        return "dim"
    if 1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers.")) != c.n_layers:
        return "n_layers"
    if shapes["layers.0.attention.wq.weight"][0] != c.n_heads * c.head_dim:
        return "n_heads"
    if shapes["layers.0.attention.wk.weight"][0] != c.n_kv_heads * c.head_dim:
        return "n_kv_heads"
    if shapes["layers.0.feed_forward.w_gate.weight"][0] != c.hidden_dim:
        return "hidden_dim"
    if ("output.weight" not in shapes) != c.tie_embeddings:
        return "tie_embeddings"
    return None


def wrong_field_right_derive_and_compare(config, shapes):
    right = dict(vocab_size=shapes["tok_embeddings.weight"][0], dim=shapes["norm.weight"][0],
                 n_layers=sum(k.endswith("attention.wq.weight") for k in shapes),
                 n_heads=shapes["layers.0.attention.wq.weight"][0] / config.head_dim,
                 n_kv_heads=shapes["layers.0.attention.wk.weight"][0] / config.head_dim,
                 hidden_dim=shapes["layers.0.feed_forward.w_gate.weight"][0],
                 tie_embeddings="output.weight" not in shapes)
    return next((n for n, v in right.items() if getattr(config, n) != v), None)


def wrong_field_right_regex_sets(config, shapes):
    layers = set(re.findall(r"layers\.(\d+)\.", " ".join(shapes)))
    checks = {
        "dim": shapes["layers.0.attention.wq.weight"][1] == config.dim,
        "n_layers": len(layers) == config.n_layers,
        "n_heads": shapes["layers.0.attention.wq.weight"][0] == config.n_heads * config.head_dim,
        "n_kv_heads": shapes["layers.0.attention.wv.weight"][0] == config.n_kv_heads * config.head_dim,
        "hidden_dim": shapes["layers.0.feed_forward.w_up.weight"][0] == config.hidden_dim,
        "vocab_size": shapes["tok_embeddings.weight"][0] == config.vocab_size,
        "tie_embeddings": ("output.weight" in shapes) is (not config.tie_embeddings),
    }
    for name, fits in checks.items():
        if not fits:
            return name
