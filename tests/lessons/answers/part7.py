import math
import torch
import torch.nn.functional as F


# --- block
def block_wrong_post_norm(block, x, positions, rotation, mask=None, cache=None):
    x = block.attention_norm(x + block.attention(x, positions, rotation, mask, cache))
    return block.ffn_norm(x + block.feed_forward(x))


def block_wrong_no_residual(block, x, positions, rotation, mask=None, cache=None):
    x = block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return block.feed_forward(block.ffn_norm(x))


def block_wrong_one_residual(block, x, positions, rotation, mask=None, cache=None):
    h = block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(h))


def block_wrong_parallel(block, x, positions, rotation, mask=None, cache=None):
    a = block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + a + block.feed_forward(block.ffn_norm(x))


def block_wrong_no_norms(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(x, positions, rotation, mask, cache)
    return x + block.feed_forward(x)


def block_wrong_same_norm_twice(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.attention_norm(x))


def block_wrong_norms_swapped(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.ffn_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.attention_norm(x))


def block_wrong_residual_of_normed(block, x, positions, rotation, mask=None, cache=None):
    x = block.attention_norm(x)
    x = x + block.attention(x, positions, rotation, mask, cache)
    x = block.ffn_norm(x)
    return x + block.feed_forward(x)


def block_wrong_second_residual_from_start(block, x, positions, rotation, mask=None, cache=None):
    h = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(h))


def block_wrong_ffn_first(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.feed_forward(block.ffn_norm(x))
    return x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)


def block_wrong_mask_forgotten(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, None, cache)
    return x + block.feed_forward(block.ffn_norm(x))


def block_wrong_cache_forgotten(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, None)
    return x + block.feed_forward(block.ffn_norm(x))


def block_wrong_arguments_swapped(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, cache, mask)
    return x + block.feed_forward(block.ffn_norm(x))


def block_wrong_positions_missing(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(x))


def block_wrong_in_place_on_x(block, x, positions, rotation, mask=None, cache=None):
    normed = block.attention_norm(x)
    x += block.attention(normed, positions, rotation, mask, cache)
    x += block.feed_forward(block.ffn_norm(x)) * 1
    x -= normed
    return x


def block_wrong_attention_twice(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(x)) + block.attention(block.attention_norm(x), positions, rotation, mask, cache)


def block_wrong_returns_only_ffn(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return block.feed_forward(block.ffn_norm(x))


def block_wrong_norm_after_part(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention_norm(block.attention(x, positions, rotation, mask, cache))
    return x + block.ffn_norm(block.feed_forward(x))


def block_wrong_tuple_with_cache(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(x)), cache


def block_wrong_no_return(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    x = x + block.feed_forward(block.ffn_norm(x))


def block_wrong_ffn_norm_forgotten(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(x)


def block_wrong_calls_itself(block, x, positions, rotation, mask=None, cache=None):
    return block(x, positions, rotation)


def block_right_plain(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(x))


def block_right_named_steps(block, x, positions, rotation, mask=None, cache=None):
    normed = block.attention_norm(x)
    attended = block.attention(normed, positions, rotation, mask, cache)
    middle = torch.add(x, attended)
    thought = block.feed_forward(block.ffn_norm(middle))
    return torch.add(middle, thought)


def block_right_in_place_on_own(block, x, positions, rotation, mask=None, cache=None):
    out = x.clone()
    out += block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    out += block.feed_forward(block.ffn_norm(out))
    return out


def block_right_loop_of_parts(block, x, positions, rotation, mask=None, cache=None):
    parts = [
        (block.attention_norm, lambda h: block.attention(h, positions, rotation, mask, cache)),
        (block.ffn_norm, block.feed_forward),
    ]
    for norm, part in parts:
        x = part(norm(x)) + x
    return x


# --- top_p
def top_p_wrong_sorted_order(probabilities, p):
    s, _ = probabilities.sort(descending=True)
    return s.cumsum(0) - s <= p


def top_p_wrong_with_own(probabilities, p):
    s, order = probabilities.sort(descending=True)
    keep = s.cumsum(0) <= p
    out = torch.zeros_like(keep)
    out[order] = keep
    return out


def top_p_wrong_gather_not_scatter(probabilities, p):
    s, order = probabilities.sort(descending=True)
    keep = s.cumsum(0) - s <= p
    return keep[order]


def top_p_wrong_ascending(probabilities, p):
    s, order = probabilities.sort()
    keep = s.cumsum(0) - s <= p
    out = torch.zeros_like(keep)
    out[order] = keep
    return out


def top_p_wrong_threshold(probabilities, p):
    return probabilities >= p


def top_p_wrong_min_p(probabilities, p):
    return probabilities >= p * probabilities.max()


def top_p_wrong_unsorted_cumsum(probabilities, p):
    return probabilities.cumsum(0) - probabilities <= p


def top_p_wrong_indices(probabilities, p):
    s, order = probabilities.sort(descending=True)
    return order[s.cumsum(0) - s <= p]


def top_p_wrong_probabilities(probabilities, p):
    s, order = probabilities.sort(descending=True)
    keep = s.cumsum(0) - s <= p
    out = torch.zeros_like(probabilities)
    out[order[keep]] = s[keep]
    return out / out.sum()


def top_p_wrong_inverted(probabilities, p):
    s, order = probabilities.sort(descending=True)
    out = torch.empty(len(s), dtype=torch.bool)
    out[order] = s.cumsum(0) - s > p
    return out


def top_p_wrong_one_minus_p(probabilities, p):
    s, order = probabilities.sort(descending=True)
    out = torch.empty(len(s), dtype=torch.bool)
    out[order] = s.cumsum(0) - s <= 1 - p
    return out


def top_p_wrong_softmax_again(probabilities, p):
    q = torch.softmax(probabilities, dim=-1)
    s, order = q.sort(descending=True)
    out = torch.empty(len(s), dtype=torch.bool)
    out[order] = s.cumsum(0) - s <= p
    return out


def top_p_wrong_shift_off_by_one(probabilities, p):
    s, order = probabilities.sort(descending=True)
    c = s.cumsum(0)
    keep = c <= p
    keep[2:] = keep[:-2].clone()
    keep[:2] = True
    out = torch.empty_like(keep)
    out[order] = keep
    return out


def top_p_wrong_overlapping_shift_first_lost(probabilities, p):
    s, order = probabilities.sort(descending=True)
    remove = s.cumsum(0) > p
    remove[1:] = remove[:-1].clone()
    out = torch.empty_like(remove)
    out[order] = remove
    return out


def top_p_wrong_float_mask(probabilities, p):
    s, order = probabilities.sort(descending=True)
    out = torch.zeros(len(s))
    out[order] = (s.cumsum(0) - s <= p).float()
    return out


def top_p_wrong_python_list(probabilities, p):
    s, order = probabilities.sort(descending=True)
    out = [False] * len(s)
    total = 0.0
    for v, i in zip(s.tolist(), order.tolist()):
        out[i] = total <= p
        total += v
    return out


def top_p_wrong_break_before_own(probabilities, p):
    out = torch.zeros(len(probabilities), dtype=torch.bool)
    total = 0.0
    for i in probabilities.argsort(descending=True).tolist():
        total += probabilities[i].item()
        if total > p:
            break
        out[i] = True
    return out


def top_p_wrong_top_k_share(probabilities, p):
    k = max(1, int(p * len(probabilities)))
    out = torch.zeros(len(probabilities), dtype=torch.bool)
    out[probabilities.topk(k).indices] = True
    return out


def top_p_wrong_endless(probabilities, p):
    q = probabilities.clone()
    out = torch.zeros(len(q), dtype=torch.bool)
    total = 0.0
    while total <= p:
        i = int(q.argmax())
        out[i] = True
        total += q[i].item()
        q[i] = 0
        total = min(total, p)
    return out


def top_p_wrong_only_most_probable(probabilities, p):
    out = torch.zeros(len(probabilities), dtype=torch.bool)
    out[probabilities.argmax()] = True
    return out


def top_p_right_sort_scatter(probabilities, p):
    s, order = probabilities.sort(descending=True)
    keep = s.cumsum(0) - s <= p
    out = torch.zeros_like(keep)
    out[order] = keep
    return out


def top_p_right_loop(probabilities, p):
    out = torch.zeros(len(probabilities), dtype=torch.bool)
    total = 0.0
    for i in probabilities.argsort(descending=True).tolist():
        if total > p:
            break
        out[i] = True
        total += probabilities[i].item()
    return out


def top_p_right_pairwise(probabilities, p):
    q = probabilities.double()
    more = q[None, :] > q[:, None]
    return (more * q[None, :]).sum(-1) <= p


def top_p_right_shifted_remove(probabilities, p):
    s, order = torch.sort(probabilities, descending=True)
    remove = s.cumsum(0) > p
    remove[1:] = remove[:-1].clone()
    remove[0] = False
    return ~torch.zeros_like(remove).scatter(0, order, remove)


def top_p_right_inverse_permutation(probabilities, p):
    order = probabilities.argsort(descending=True)
    before = F.pad(probabilities[order].cumsum(0), (1, 0))[:-1]
    return (before <= p)[order.argsort()]


# --- generate
def generate_wrong_with_prompt(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    out = list(ids)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_one_too_few(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n - 1):
        t = int(logits[0, -1].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_one_too_many(model, ids, n):
    caches = model.make_caches(1, len(ids) + n + 1)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = [int(logits[0, -1].argmax())]
    for i in range(n):
        logits = model(torch.tensor([[out[-1]]]), torch.tensor([len(ids) + i]), caches)
        out.append(int(logits[0, -1].argmax()))
    return out


def generate_wrong_position_off_by_one(model, ids, n):
    caches = model.make_caches(1, len(ids) + n + 1)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i + 1]), caches)
    return out


def generate_wrong_position_zero(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([i]), caches)
    return out


def generate_wrong_no_cache(model, ids, n):
    out = list(ids)
    for _ in range(n):
        logits = model(torch.tensor([out]), torch.arange(len(out)), None)
        out.append(int(logits[0, -1].argmax()))
    return out[len(ids):]


def generate_wrong_rereads_everything(model, ids, n):
    out = list(ids)
    caches = model.make_caches(1, len(ids) + n)
    for _ in range(n):
        logits = model(torch.tensor([out]), torch.arange(len(out)), caches)
        out.append(int(logits[0, -1].argmax()))
    return out[len(ids):]


def generate_wrong_new_cache_each_step(model, ids, n):
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), model.make_caches(1, len(ids) + n))
    out = []
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        caches = model.make_caches(1, len(ids) + n)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_first_logit(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits[0, 0].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_tensors(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = logits[:, -1].argmax(-1, keepdim=True)
        out.append(t)
        logits = model(t, torch.tensor([len(ids) + i]), caches)
    return torch.cat(out, dim=1)


def generate_wrong_cache_too_short(model, ids, n):
    caches = model.make_caches(1, len(ids))
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_no_batch(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor(ids), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits[-1].argmax())
        out.append(t)
        logits = model(torch.tensor([t]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_all_from_prompt(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    return logits[0, -1].topk(n).indices.tolist()


def generate_wrong_samples(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(torch.multinomial(torch.softmax(logits[0, -1].float() / 5, -1), 1))
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_logits_not_updated(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_feeds_last_prompt_token(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        out.append(int(logits[0, -1].argmax()))
        logits = model(torch.tensor([[ids[-1]]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_changes_ids(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    start = len(ids)
    tokens, positions = torch.tensor([ids]), torch.arange(start)
    for i in range(n):
        logits = model(tokens, positions, caches)
        ids.append(int(logits[0, -1].argmax()))
        tokens, positions = torch.tensor([ids[-1:]]), torch.tensor([start + i])
    return ids


def generate_wrong_endless(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    i = 0
    while i < n:
        t = int(logits[0, -1].argmax())
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_argmax_over_everything(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids]), torch.arange(len(ids)), caches)
    out = []
    for i in range(n):
        t = int(logits.argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) + i]), caches)
    return out


def generate_wrong_prompt_token_by_token_skips_last(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    logits = model(torch.tensor([ids[:-1]]), torch.arange(len(ids) - 1), caches)
    out = []
    for i in range(n):
        t = int(logits[0, -1].argmax())
        out.append(t)
        logits = model(torch.tensor([[t]]), torch.tensor([len(ids) - 1 + i]), caches)
    return out


def generate_right_prefill_then_steps(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    out = []
    tokens, positions = torch.tensor([ids]), torch.arange(len(ids))
    with torch.no_grad():
        for i in range(n):
            logits = model(tokens, positions, caches)
            t = int(logits[0, -1].argmax())
            out.append(t)
            tokens, positions = torch.tensor([[t]]), torch.tensor([len(ids) + i])
    return out


@torch.no_grad()
def generate_right_while(model, ids, n):
    seq = list(ids)
    caches = model.make_caches(1, len(ids) + n)
    read = 0
    while len(seq) < len(ids) + n:
        new = seq[read:]
        logits = model(torch.tensor(new).unsqueeze(0), torch.arange(read, len(seq)), caches)
        read = len(seq)
        seq.append(torch.argmax(logits[0, -1]).item())
    return seq[len(ids):]


def generate_right_tensor_written(model, ids, n):
    p = len(ids)
    buf = torch.zeros(1, p + n, dtype=torch.long)
    buf[0, :p] = torch.tensor(ids)
    caches = model.make_caches(1, p + n)
    with torch.inference_mode():
        start = 0
        for end in range(p, p + n):
            logits = model(buf[:, start:end], torch.arange(start, end), caches)
            buf[0, end] = logits[0, -1].topk(1).indices[0]
            start = end
    return buf[0, p:].tolist()


def generate_right_recursive(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)

    def step(tokens, start, left):
        if left == 0:
            return []
        pos = torch.arange(start, start + len(tokens))
        with torch.no_grad():
            t = int(model(torch.tensor([tokens]), pos, caches)[0, -1].max(-1).indices)
        return [t] + step([t], start + len(tokens), left - 1)

    return step(list(ids), 0, n)


# --- tokens_per_second
def tokens_per_second_wrong_counts_embedding(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + 2 * c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_wrong_no_cache(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    return bandwidth / (weights * bytes_per_weight)


def tokens_per_second_wrong_seconds_per_token(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return (weights * bytes_per_weight + kv) / bandwidth


def tokens_per_second_wrong_cache_in_weight_bytes(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 2 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / ((weights + kv) * bytes_per_weight)


def tokens_per_second_wrong_tied_has_no_output(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim
    if not c.tie_embeddings:
        weights += c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_wrong_no_output_at_all(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / ((c.n_layers * block + c.dim) * bytes_per_weight + kv)


def tokens_per_second_wrong_keys_only(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 2 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_wrong_all_heads_full(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = 4 * c.dim * c.dim + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_wrong_two_ffn_matrices(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 2 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_wrong_bits(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (8 * (weights * bytes_per_weight + kv))


def tokens_per_second_wrong_one_layer_of_cache(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_wrong_weights_per_context_token(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim
    return bandwidth / (n_tokens * (weights * bytes_per_weight + kv))


def tokens_per_second_wrong_integer_floor(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return int(bandwidth // (weights * bytes_per_weight + kv))


def tokens_per_second_wrong_prints(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    print(bandwidth / (weights * bytes_per_weight + kv))


def tokens_per_second_wrong_adds_times(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight) + bandwidth / kv


def tokens_per_second_wrong_times_users(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return n_tokens * bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_right_formula(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    block = c.dim * c.head_dim * (2 * c.n_heads + 2 * c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
    weights = c.n_layers * block + c.dim + c.vocab_size * c.dim
    kv = 4 * c.n_layers * c.n_kv_heads * c.head_dim * n_tokens
    return bandwidth / (weights * bytes_per_weight + kv)


def tokens_per_second_right_all_minus_embedding(config, bytes_per_weight, n_tokens, bandwidth):
    c = config
    total = c.vocab_size * c.dim + c.dim
    if not c.tie_embeddings:
        total += c.vocab_size * c.dim
    for _ in range(c.n_layers):
        total += c.dim + c.n_heads * c.head_dim * c.dim
        total += 2 * c.n_kv_heads * c.head_dim * c.dim
        total += c.n_heads * c.head_dim * c.dim
        total += c.dim + 3 * c.hidden_dim * c.dim
    if not c.tie_embeddings:
        total -= c.vocab_size * c.dim
    cache = 2 * torch.bfloat16.itemsize * c.n_kv_heads * c.head_dim * c.n_layers * n_tokens
    return float(bandwidth / (total * bytes_per_weight + cache))


def tokens_per_second_right_seconds_inverted(config, bytes_per_weight, n_tokens, bandwidth):
    shapes = [(config.n_heads * config.head_dim, config.dim)] * 2
    shapes += [(config.n_kv_heads * config.head_dim, config.dim)] * 2
    shapes += [(config.hidden_dim, config.dim)] * 3 + [(config.dim,)] * 2
    shapes = shapes * config.n_layers + [(config.dim,), (config.vocab_size, config.dim)]
    t_weights = sum(math.prod(s) for s in shapes) * bytes_per_weight / bandwidth
    t_cache = config.n_layers * 2 * n_tokens * config.n_kv_heads * config.head_dim * 2 / bandwidth
    return 1 / (t_weights + t_cache)
