import math
import torch
import torch.nn.functional as F


# --- attend
def attend_wrong_softmax_over_queries(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, -1e9)
    p = torch.softmax(s.float(), dim=-2).to(q.dtype)
    return p @ v


def attend_wrong_tile_heads(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat(1, g, 1, 1)
    v = v.repeat(1, g, 1, 1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_no_scale(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_divide_by_head_dim(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / q.shape[-1]
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_mask_inverted(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_none_means_no_mask(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_none_crashes(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_causal_always_ignores_mask(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    m = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~m, float("-inf"))
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_no_transpose(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_forgot_to_repeat(q, k, v, mask):
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_mask_after_softmax(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    p = torch.softmax(s.float(), dim=-1)
    p = p * mask
    return p.to(q.dtype) @ v


def attend_wrong_mask_fill_zero(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s * mask
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_mask_added_as_bool(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s + mask
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_tril_off_by_one(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(1)
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_not_itself_gives_nan(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(-1)
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_triu(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.triu(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool))
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s.float(), dim=-1).to(q.dtype) @ v


def attend_wrong_returns_float32(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1).float()
    v = v.repeat_interleave(g, dim=1).float()
    s = q.float() @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_heads_joined(q, k, v, mask):
    b, h, n, d = q.shape
    g = h // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(d)
    if mask is None:
        mask = torch.ones(n, k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    out = torch.softmax(s, dim=-1) @ v
    return out.transpose(1, 2).reshape(b, n, h * d)


def attend_wrong_repeat_k_only(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat(1, g, 1, 1)
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_scale_by_n_heads(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_wrong_scale_after_softmax(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    s = q @ k.transpose(-2, -1)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    p = torch.softmax(s, dim=-1) / math.sqrt(q.shape[-1])
    return p @ v


def attend_wrong_sdpa_is_causal_only(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=1)
    v = v.repeat_interleave(g, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=False)


def attend_wrong_prints(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    out = F.scaled_dot_product_attention(q, k.repeat_interleave(g, 1), v.repeat_interleave(g, 1),
                                         attn_mask=mask, is_causal=mask is None)
    print(out)


def attend_wrong_repeat_along_tokens(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(g, dim=2)
    v = v.repeat_interleave(g, dim=2)
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    s = s.masked_fill(~mask, float("-inf"))
    return torch.softmax(s, dim=-1) @ v


def attend_right_loops(q, k, v, mask):
    b, h, n, d = q.shape
    length = k.shape[2]
    g = h // k.shape[1]
    out = torch.zeros_like(q)
    for bi in range(b):
        for hi in range(h):
            for i in range(n):
                if mask is None:
                    seen = list(range(i + 1))
                else:
                    seen = [j for j in range(length) if mask[i, j]]
                keys = k[bi, hi // g, seen].float()
                scores = keys @ q[bi, hi, i].float() / math.sqrt(d)
                p = torch.softmax(scores, dim=0)
                out[bi, hi, i] = (p @ v[bi, hi // g, seen].float()).to(q.dtype)
    return out


def attend_right_einsum_grouped(q, k, v, mask):
    b, h, n, d = q.shape
    kv = k.shape[1]
    qg = q.reshape(b, kv, h // kv, n, d).float()
    s = torch.einsum("bkgnd,bkld->bkgnl", qg, k.float()) * d ** -0.5
    if mask is None:
        mask = torch.ones(n, k.shape[2], dtype=torch.bool, device=q.device).tril()
    s = s.masked_fill(~mask, float("-inf"))
    p = s.softmax(-1)
    o = torch.einsum("bkgnl,bkld->bkgnd", p, v.float())
    return o.reshape(b, h, n, d).to(q.dtype)


def attend_right_library(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    k = torch.repeat_interleave(k, g, dim=1)
    v = torch.repeat_interleave(v, g, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)


def attend_right_float64_by_hand(q, k, v, mask):
    g = q.shape[1] // k.shape[1]
    idx = torch.arange(q.shape[1], device=q.device) // g
    kk, vv = k[:, idx].double(), v[:, idx].double()
    s = q.double() @ kk.mT / math.sqrt(q.shape[-1])
    if mask is None:
        n = q.shape[2]
        mask = torch.arange(n)[:, None] >= torch.arange(k.shape[2])[None, :]
    s = torch.where(mask.to(q.device), s, torch.full_like(s, float("-inf")))
    s = s - s.amax(-1, keepdim=True)
    e = s.exp()
    return ((e / e.sum(-1, keepdim=True)) @ vv).to(q.dtype)


def attend_right_additive_expand(q, k, v, mask):
    b, h, n, d = q.shape
    _, kv, length, _ = k.shape
    k = k[:, :, None].expand(b, kv, h // kv, length, d).reshape(b, h, length, d)
    v = v[:, :, None].expand(b, kv, h // kv, length, d).reshape(b, h, length, d)
    bias = torch.zeros(n, length)
    if mask is None:
        bias = torch.full((n, length), float("-inf")).triu(1)
    else:
        bias[~mask] = float("-inf")
    s = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(d)
    p = F.softmax(s.float() + bias, dim=-1).type_as(q)
    return torch.matmul(p, v)


# --- update
def update_wrong_returns_only_new(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    return keys, values


def update_wrong_cat(cache, positions, keys, values):
    cache.keys = torch.cat([cache.keys, keys], dim=2)
    cache.values = torch.cat([cache.values, values], dim=2)
    return cache.keys, cache.values


def update_wrong_on_a_clone(cache, positions, keys, values):
    k = cache.keys.clone()
    v = cache.values.clone()
    k[:, :, positions] = keys
    v[:, :, positions] = values
    return k, v


def update_wrong_wrong_axis(cache, positions, keys, values):
    cache.keys[:, positions] = keys
    cache.values[:, positions] = values
    return cache.keys, cache.values


def update_wrong_from_zero(cache, positions, keys, values):
    n = keys.shape[2]
    cache.keys[:, :, :n] = keys
    cache.values[:, :, :n] = values
    return cache.keys, cache.values


def update_wrong_only_filled_slots(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    end = int(positions.max()) + 1
    return cache.keys[:, :, :end], cache.values[:, :, :end]


def update_wrong_contiguous_off_by_one(cache, positions, keys, values):
    start, end = int(positions[0]), int(positions[-1])
    cache.keys[:, :, start:end] = keys
    cache.values[:, :, start:end] = values
    return cache.keys, cache.values


def update_wrong_adds(cache, positions, keys, values):
    cache.keys[:, :, positions] += keys
    cache.values[:, :, positions] += values
    return cache.keys, cache.values


def update_wrong_values_are_keys(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = keys
    return cache.keys, cache.values


def update_wrong_swapped_return(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    return cache.values, cache.keys


def update_wrong_chained_index_copy_lost(cache, positions, keys, values):
    cache.keys.index_copy(2, positions, keys)
    cache.values.index_copy(2, positions, values)
    return cache.keys, cache.values


def update_wrong_double_fancy_index(cache, positions, keys, values):
    cache.keys[:, :, positions][:] = keys
    cache.values[:, :, positions][:] = values
    return cache.keys, cache.values


def update_wrong_replaces_cache(cache, positions, keys, values):
    cache.keys = keys
    cache.values = values
    return cache.keys, cache.values


def update_wrong_only_first_position(cache, positions, keys, values):
    p = positions[0]
    cache.keys[:, :, p] = keys[:, :, 0]
    cache.values[:, :, p] = values[:, :, 0]
    return cache.keys, cache.values


def update_wrong_forgets_values(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    return cache.keys, cache.values


def update_wrong_returns_none(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values


def update_wrong_positions_plus_one(cache, positions, keys, values):
    for i, p in enumerate(positions.tolist()):
        cache.keys[:, :, p - 1] = keys[:, :, i]
        cache.values[:, :, p - 1] = values[:, :, i]
    return cache.keys, cache.values


def update_wrong_reads_at_position(cache, positions, keys, values):
    for p in positions.tolist():
        cache.keys[:, :, p] = keys[:, :, p]
        cache.values[:, :, p] = values[:, :, p]
    return cache.keys, cache.values


def update_wrong_only_first_sequence(cache, positions, keys, values):
    cache.keys[0, :, positions] = keys[0]
    cache.values[0, :, positions] = values[0]
    return cache.keys, cache.values


def update_wrong_wipes_the_old(cache, positions, keys, values):
    cache.keys = torch.zeros_like(cache.keys)
    cache.values = torch.zeros_like(cache.values)
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    return cache.keys, cache.values


def update_wrong_last_axis(cache, positions, keys, values):
    cache.keys[..., positions] = keys
    cache.values[..., positions] = values
    return cache.keys, cache.values


def update_wrong_returns_stack(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    return torch.cat([cache.keys, cache.values], dim=-1)


def update_right_index(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    return cache.keys, cache.values


def update_right_index_copy(cache, positions, keys, values):
    cache.keys.index_copy_(2, positions, keys)
    cache.values.index_copy_(2, positions, values)
    return cache.keys, cache.values


def update_right_loop(cache, positions, keys, values):
    for i, p in enumerate(positions.tolist()):
        cache.keys[:, :, p, :].copy_(keys[:, :, i, :])
        cache.values[:, :, p, :].copy_(values[:, :, i, :])
    return cache.keys, cache.values


def update_right_scatter(cache, positions, keys, values):
    idx = positions[None, None, :, None].expand_as(keys)
    cache.keys.scatter_(2, idx, keys)
    cache.values.scatter_(2, idx, values)
    return cache.keys, cache.values


def update_right_functional_and_reassign(cache, positions, keys, values):
    cache.keys = cache.keys.index_copy(2, positions, keys)
    cache.values = cache.values.index_copy(2, positions, values)
    return cache.keys, cache.values


# --- pool_heads
def pool_heads_wrong_strided(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads // n_pooled, n_pooled, d, -1)
    return w.mean(0).reshape(n_pooled * d, -1)


def pool_heads_wrong_sum(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_pooled, n_heads // n_pooled, d, -1)
    return w.sum(1).reshape(n_pooled * d, -1)


def pool_heads_wrong_first_of_group(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    return w[:: n_heads // n_pooled].reshape(n_pooled * d, -1)


def pool_heads_wrong_not_flattened(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_pooled, n_heads // n_pooled, d, weight.shape[1])
    return w.mean(1)


def pool_heads_wrong_rows_not_heads(weight, n_heads, n_pooled):
    g = n_heads // n_pooled
    return weight.reshape(-1, g, weight.shape[1]).mean(1)


def pool_heads_wrong_columns(weight, n_heads, n_pooled):
    g = n_heads // n_pooled
    d = weight.shape[1] // n_heads
    return weight.reshape(weight.shape[0], n_pooled, g, d).mean(2).reshape(weight.shape[0], -1)


def pool_heads_wrong_n_pooled_as_group(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads // n_pooled, n_pooled, d, -1)
    return w.mean(1).reshape(-1, weight.shape[1])


def pool_heads_wrong_repeated_back(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    g = n_heads // n_pooled
    w = weight.reshape(n_pooled, g, d, -1).mean(1)
    return w.repeat_interleave(g, dim=0).reshape(weight.shape)


def pool_heads_wrong_mean_over_head_dim(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_pooled, n_heads // n_pooled, d, -1)
    return w.mean(2).reshape(n_heads, -1)


def pool_heads_wrong_max(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_pooled, n_heads // n_pooled, d, -1)
    return w.max(1).values.reshape(n_pooled * d, -1)


def pool_heads_wrong_float_division_crash(weight, n_heads, n_pooled):
    d = weight.shape[0] / n_heads
    g = n_heads / n_pooled
    w = weight.reshape(n_pooled, g, d, -1)
    return w.mean(1).reshape(n_pooled * d, -1)


def pool_heads_wrong_head_dim_last(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(d, n_pooled, n_heads // n_pooled, -1)
    return w.mean(2).reshape(n_pooled * d, -1)


def pool_heads_wrong_divides_by_n_heads(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_pooled, n_heads // n_pooled, d, -1)
    return (w.sum(1) / n_heads).reshape(n_pooled * d, -1)


def pool_heads_wrong_only_two_neighbours(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    g = n_heads // n_pooled
    return torch.cat([(w[i * g] + w[i * g + 1]) / 2 for i in range(n_pooled)])


def pool_heads_wrong_list(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    g = n_heads // n_pooled
    return [weight.reshape(n_heads, d, -1)[i * g:(i + 1) * g].mean(0) for i in range(n_pooled)]


def pool_heads_wrong_overlapping(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    g = n_heads // n_pooled
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[i:i + g].mean(0) for i in range(n_pooled)])


def pool_heads_wrong_slice_off_by_one(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    g = n_heads // n_pooled
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[i * g:(i + 1) * g - 1].mean(0) for i in range(n_pooled)])


def pool_heads_right_reshape_mean(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_pooled, n_heads // n_pooled, d, weight.shape[1])
    return w.mean(dim=1).reshape(n_pooled * d, weight.shape[1])


def pool_heads_right_loops(weight, n_heads, n_pooled):
    d = weight.shape[0] // n_heads
    g = n_heads // n_pooled
    out = torch.zeros(n_pooled * d, weight.shape[1], dtype=weight.dtype)
    for p in range(n_pooled):
        for h in range(p * g, (p + 1) * g):
            out[p * d:(p + 1) * d] += weight[h * d:(h + 1) * d] / g
    return out


def pool_heads_right_matrix(weight, n_heads, n_pooled):
    g = n_heads // n_pooled
    avg = torch.zeros(n_pooled, n_heads, dtype=torch.float64)
    for h in range(n_heads):
        avg[h // g, h] = 1 / g
    w = weight.double().view(n_heads, -1)
    return (avg @ w).view(-1, weight.shape[1]).to(weight.dtype)


def pool_heads_right_chunks_stack(weight, n_heads, n_pooled):
    heads = weight.chunk(n_heads, dim=0)
    g = n_heads // n_pooled
    return torch.cat([torch.stack(heads[i:i + g]).mean(0) for i in range(0, n_heads, g)], dim=0)


def pool_heads_right_einsum(weight, n_heads, n_pooled):
    g = n_heads // n_pooled
    w = weight.unflatten(0, (n_pooled, g, -1))
    return torch.einsum("pgdc->pdc", w).div(g).flatten(0, 1)


# --- n_users
def n_users_wrong_forgot_values(config, n_tokens, free_bytes):
    per = config.n_layers * config.n_kv_heads * config.head_dim * 2 * n_tokens
    return free_bytes // per


def n_users_wrong_all_heads(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_heads * config.head_dim * 2 * n_tokens
    return free_bytes // per


def n_users_wrong_float(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2 * n_tokens
    return free_bytes / per


def n_users_wrong_rounds_up(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2 * n_tokens
    return math.ceil(free_bytes / per)


def n_users_wrong_rounds(config, n_tokens, free_bytes):
    per = 4 * config.n_layers * config.n_kv_heads * config.head_dim * n_tokens
    return round(free_bytes / per)


def n_users_wrong_float32(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 4 * n_tokens
    return free_bytes // per


def n_users_wrong_one_layer(config, n_tokens, free_bytes):
    per = 2 * config.n_kv_heads * config.head_dim * 2 * n_tokens
    return free_bytes // per


def n_users_wrong_forgot_tokens(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2
    return free_bytes // per


def n_users_wrong_dim(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.dim * 2 * n_tokens
    return int(free_bytes / per)


def n_users_wrong_bits(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 16 * n_tokens
    return free_bytes // per


def n_users_wrong_n_tokens_squared(config, n_tokens, free_bytes):
    per = 4 * config.n_layers * config.n_kv_heads * config.head_dim * n_tokens ** 2
    return free_bytes // per


def n_users_wrong_also_queries(config, n_tokens, free_bytes):
    per = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim * 2 * config.n_layers * n_tokens
    return free_bytes // per


def n_users_wrong_head_dim_from_kv(config, n_tokens, free_bytes):
    head_dim = config.dim // config.n_kv_heads
    per = 4 * config.n_layers * config.n_kv_heads * head_dim * n_tokens
    return free_bytes // per


def n_users_wrong_precedence(config, n_tokens, free_bytes):
    return free_bytes // 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2 * n_tokens


def n_users_wrong_string(config, n_tokens, free_bytes):
    per = 4 * config.n_layers * config.n_kv_heads * config.head_dim * n_tokens
    return f"{free_bytes // per} users"


def n_users_wrong_one_left_for_safety(config, n_tokens, free_bytes):
    per = 4 * config.n_layers * config.n_kv_heads * config.head_dim * n_tokens
    return free_bytes // per - 1


def n_users_wrong_upside_down(config, n_tokens, free_bytes):
    per = 4 * config.n_layers * config.n_kv_heads * config.head_dim * n_tokens
    return per // free_bytes


def n_users_right_formula(config, n_tokens, free_bytes):
    per = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2 * n_tokens
    return free_bytes // per


def n_users_right_itemsize(config, n_tokens, free_bytes):
    one = torch.bfloat16.itemsize * config.head_dim
    per_token = 2 * one * config.n_kv_heads * config.n_layers
    return math.floor(free_bytes / (per_token * n_tokens))


def n_users_right_divmod_steps(config, n_tokens, free_bytes):
    tokens, _ = divmod(free_bytes, 4 * config.n_layers * config.n_kv_heads * config.head_dim)
    return tokens // n_tokens


def n_users_right_from_meta_tensor(config, n_tokens, free_bytes):
    t = torch.empty(2, config.n_layers, config.n_kv_heads, n_tokens, config.head_dim,
                    dtype=torch.bfloat16, device="meta")
    return int(free_bytes // (t.numel() * t.element_size()))
