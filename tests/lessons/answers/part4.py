import math
import torch
import torch.nn.functional as F


# --- apply_rope
def apply_rope_wrong_half_split(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h.chunk(2, dim=-1)
    return torch.cat([a * c - b * s, a * s + b * c], dim=-1).to(x.dtype)


def apply_rope_wrong_direction(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h[..., 0::2], h[..., 1::2]
    return torch.stack([a * c + b * s, b * c - a * s], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_wrong_cat_for_stack(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h[..., 0::2], h[..., 1::2]
    return torch.cat([a * c - b * s, a * s + b * c], dim=-1).to(x.dtype)


def apply_rope_wrong_stack_other_axis(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h[..., 0::2], h[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], dim=-2).reshape(x.shape).to(x.dtype)


def apply_rope_wrong_not_flattened(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h[..., 0::2], h[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).to(x.dtype)


def apply_rope_wrong_sin_cos_swapped(x, rotation):
    s, c = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h[..., 0::2], h[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_wrong_stays_float32(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    a, b = h[..., 0::2], h[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2)


def apply_rope_wrong_both_plus(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * c + b * s, a * s + b * c], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_wrong_in_place_uses_new_a(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    out = x.float().clone()
    out[..., 0::2] = out[..., 0::2] * c - out[..., 1::2] * s
    out[..., 1::2] = out[..., 0::2] * s + out[..., 1::2] * c
    return out.to(x.dtype)


def apply_rope_wrong_rotation_over_heads(x, rotation):
    c = rotation[..., 0][:, None, :]
    s = rotation[..., 1][:, None, :]
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_wrong_only_first_feature(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    out = x.float().clone()
    out[..., 0::2] = x[..., 0::2].float() * c - x[..., 1::2].float() * s
    return out.to(x.dtype)


def apply_rope_wrong_multiplies_elementwise(x, rotation):
    h = x.float().reshape(*x.shape[:-1], -1, 2)
    return (h * rotation).reshape(x.shape).to(x.dtype)


def apply_rope_wrong_treats_as_angles(x, rotation):
    c, s = torch.cos(rotation[..., 0]), torch.sin(rotation[..., 1])
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_wrong_same_position(x, rotation):
    c, s = rotation[0, :, 0], rotation[0, :, 1]
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_wrong_complex_not_real(x, rotation):
    z = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2).contiguous())
    r = torch.view_as_complex(rotation.float().contiguous())
    return (z * r).flatten(-1)


def apply_rope_wrong_repeat_tiled(x, rotation):
    c = rotation[..., 0].repeat(1, 2)
    s = rotation[..., 1].repeat(1, 2)
    h = x.float()
    turned = torch.stack([-h[..., 1::2], h[..., 0::2]], dim=-1).flatten(-2)
    return (h * c + turned * s).to(x.dtype)


def apply_rope_wrong_no_minus(x, rotation):
    c = rotation[..., 0].repeat_interleave(2, -1)
    s = rotation[..., 1].repeat_interleave(2, -1)
    h = x.float()
    turned = torch.stack([h[..., 1::2], h[..., 0::2]], dim=-1).flatten(-2)
    return (h * c + turned * s).to(x.dtype)


def apply_rope_wrong_rotation_transposed_crash(x, rotation):
    c, s = rotation
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2)


def apply_rope_wrong_overwrites_input(x, rotation):
    c, s = rotation[..., 0].to(x.dtype), rotation[..., 1].to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    x[..., 0::2] = a * c - b * s
    x[..., 1::2] = a * s + b * c
    return x


def apply_rope_wrong_flatten_all(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(2).to(x.dtype)


def apply_rope_right_stack(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2).to(x.dtype)


def apply_rope_right_complex(x, rotation):
    z = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2).contiguous())
    r = torch.view_as_complex(rotation.float().contiguous())
    return torch.view_as_real(z * r).flatten(-2).to(x.dtype)


def apply_rope_right_loops(x, rotation):
    out = torch.empty(x.shape, dtype=torch.float32)
    for t in range(x.shape[2]):
        for i in range(x.shape[3] // 2):
            c, s = rotation[t, i].tolist()
            a, b = x[:, :, t, 2 * i].float(), x[:, :, t, 2 * i + 1].float()
            out[:, :, t, 2 * i] = c * a - s * b
            out[:, :, t, 2 * i + 1] = s * a + c * b
    return out.to(x.dtype)


def apply_rope_right_einsum(x, rotation):
    c, s = rotation[..., 0].double(), rotation[..., 1].double()
    m = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    h = x.double().unflatten(-1, (-1, 2))
    return torch.einsum("tpij,bhtpj->bhtpi", m, h).flatten(-2).to(x.dtype)


def apply_rope_right_in_place_on_own(x, rotation):
    c, s = rotation[..., 0], rotation[..., 1]
    h = x.float()
    out = torch.zeros(x.shape)
    out[..., 0::2].add_(h[..., 0::2] * c).sub_(h[..., 1::2] * s)
    out[..., 1::2].add_(h[..., 0::2] * s).add_(h[..., 1::2] * c)
    return out.to(x.dtype)


def apply_rope_right_repeat_interleave(x, rotation):
    c = rotation[..., 0].repeat_interleave(2, -1)
    s = rotation[..., 1].repeat_interleave(2, -1)
    h = x.float()
    turned = torch.stack([-h[..., 1::2], h[..., 0::2]], dim=-1).reshape(h.shape)
    return (h * c + turned * s).type_as(x)


# --- rope_frequencies
def rope_frequencies_wrong_plus_exponent(head_dim, theta):
    return theta ** (torch.arange(0, head_dim, 2).float() / head_dim)


def rope_frequencies_wrong_forgot_two(head_dim, theta):
    i = torch.arange(head_dim // 2).float()
    return theta ** (-i / head_dim)


def rope_frequencies_wrong_all_features(head_dim, theta):
    i = torch.arange(head_dim).float()
    return theta ** (-2 * i / head_dim)


def rope_frequencies_wrong_two_twice(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return theta ** (-2 * i / head_dim)


def rope_frequencies_wrong_starts_at_one(head_dim, theta):
    i = torch.arange(1, head_dim // 2 + 1).float()
    return theta ** (-2 * i / head_dim)


def rope_frequencies_wrong_float64(head_dim, theta):
    i = torch.arange(0, head_dim, 2, dtype=torch.float64)
    return theta ** (-i / head_dim)


def rope_frequencies_wrong_list(head_dim, theta):
    return [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]


def rope_frequencies_wrong_integer_division(head_dim, theta):
    i = torch.arange(head_dim // 2)
    return theta ** (-(2 * i // head_dim).float())


def rope_frequencies_wrong_wavelength(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return 2 * math.pi * theta ** (i / head_dim)


def rope_frequencies_wrong_linear(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return 1 / (theta * i / head_dim)


def rope_frequencies_wrong_linspace(head_dim, theta):
    return theta ** -torch.linspace(0, 1, head_dim // 2)


def rope_frequencies_wrong_off_by_one_short(head_dim, theta):
    return theta ** (-torch.arange(0, head_dim - 2, 2).float() / head_dim)


def rope_frequencies_wrong_exp_without_log(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return torch.exp(-i / head_dim * theta)


def rope_frequencies_wrong_log10(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return torch.exp(-i / head_dim * math.log10(theta))


def rope_frequencies_wrong_fixed_theta(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return 1.0 / 10000 ** (i / head_dim)


def rope_frequencies_wrong_half_denominator(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return theta ** (-i / (head_dim // 2))


def rope_frequencies_wrong_reversed(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return (theta ** (-i / head_dim)).flip(0)


def rope_frequencies_wrong_turns(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return theta ** (-i / head_dim) / (2 * math.pi)


def rope_frequencies_wrong_minus_outside(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return -theta ** (i / head_dim)


def rope_frequencies_wrong_bfloat16(head_dim, theta):
    i = torch.arange(0, head_dim, 2, dtype=torch.bfloat16)
    return (theta ** (-i / head_dim)).float()


def rope_frequencies_wrong_column(head_dim, theta):
    i = torch.arange(0, head_dim, 2).float()
    return (theta ** (-i / head_dim))[:, None]


def rope_frequencies_right_power(head_dim, theta):
    return theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def rope_frequencies_right_list(head_dim, theta):
    return torch.tensor([theta ** (-2 * i / head_dim) for i in range(head_dim // 2)], dtype=torch.float32)


def rope_frequencies_right_exp_log_float64(head_dim, theta):
    i = torch.arange(head_dim // 2, dtype=torch.float64)
    return torch.exp(-2 * i / head_dim * math.log(theta)).float()


def rope_frequencies_right_reciprocal_pow(head_dim, theta):
    e = torch.arange(0, head_dim, 2)[: head_dim // 2].float() / head_dim
    return 1.0 / torch.pow(torch.tensor(float(theta)), e)


def rope_frequencies_right_running_product(head_dim, theta):
    step = theta ** (-2 / head_dim)
    f = torch.full((head_dim // 2,), step, dtype=torch.float64)
    f[0] = 1.0
    return f.cumprod(0).to(torch.float32)


# --- scale_frequencies
def scale_frequencies_wrong_turns_without_2pi(freqs, scaling):
    turns = scaling.original_context * freqs
    t = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_blend_swapped(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = (turns - lo) / (hi - lo)
    mid = (1 - t) * freqs + t * freqs / scaling.factor
    return torch.where(turns < lo, freqs / scaling.factor, torch.where(turns > hi, freqs, mid))


def scale_frequencies_wrong_scales_fast_ones(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / (hi - lo)).clamp(0, 1)
    return (1 - t) * freqs + t * freqs / scaling.factor


def scale_frequencies_wrong_no_clamp(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = (turns - lo) / (hi - lo)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_all_divided(freqs, scaling):
    return freqs / scaling.factor


def scale_frequencies_wrong_multiplies(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / (hi - lo)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs * scaling.factor


def scale_frequencies_wrong_no_blend(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    return torch.where(turns < scaling.low_freq_factor, freqs / scaling.factor, freqs)


def scale_frequencies_wrong_wavelength_linear(freqs, scaling):
    wavelen = 2 * math.pi / freqs
    long = scaling.original_context / scaling.low_freq_factor
    short = scaling.original_context / scaling.high_freq_factor
    t = ((long - wavelen) / (long - short)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_compares_freqs(freqs, scaling):
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((freqs - lo) / (hi - lo)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_tensor_in_if(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    if turns < scaling.low_freq_factor:
        return freqs / scaling.factor
    if turns > scaling.high_freq_factor:
        return freqs
    t = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_drops_middle(freqs, scaling):
    out = []
    for f in freqs:
        turns = scaling.original_context * f / (2 * math.pi)
        if turns < scaling.low_freq_factor:
            out.append(f / scaling.factor)
        elif turns > scaling.high_freq_factor:
            out.append(f)
    return torch.stack(out)


def scale_frequencies_wrong_list(freqs, scaling):
    out = []
    for f in freqs.tolist():
        turns = scaling.original_context * f / (2 * math.pi)
        t = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        t = min(1, max(0, t))
        out.append(t * f + (1 - t) * f / scaling.factor)
    return out


def scale_frequencies_wrong_midpoint(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    mid = (freqs + freqs / scaling.factor) / 2
    out = torch.where(turns < scaling.low_freq_factor, freqs / scaling.factor, mid)
    return torch.where(turns > scaling.high_freq_factor, freqs, out)


def scale_frequencies_wrong_new_context(freqs, scaling):
    turns = scaling.original_context * scaling.factor * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / (hi - lo)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_divides_by_high(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / hi).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_blends_factor(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / (hi - lo)).clamp(0, 1)
    return freqs / (t * 1 + (1 - t) * scaling.factor)


def scale_frequencies_wrong_turns_inverted(freqs, scaling):
    turns = scaling.original_context / freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / (hi - lo)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_wrong_divides_middle_too(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    return torch.where(turns <= scaling.high_freq_factor, freqs / scaling.factor, freqs)


def scale_frequencies_wrong_pi_only(freqs, scaling):
    turns = scaling.original_context * freqs / math.pi
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = torch.clamp((turns - lo) / (hi - lo), 0, 1)
    return torch.lerp(freqs / scaling.factor, freqs, t)


def scale_frequencies_wrong_precedence(freqs, scaling):
    turns = scaling.original_context * freqs / 2 * math.pi
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = torch.clamp((turns - lo) / (hi - lo), 0, 1)
    return torch.lerp(freqs / scaling.factor, freqs, t)


def scale_frequencies_wrong_dict_access(freqs, scaling):
    turns = scaling["original_context"] * freqs / (2 * math.pi)
    lo, hi = scaling["low_freq_factor"], scaling["high_freq_factor"]
    t = torch.clamp((turns - lo) / (hi - lo), 0, 1)
    return torch.lerp(freqs / scaling["factor"], freqs, t)


def scale_frequencies_right_clamp(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    t = ((turns - lo) / (hi - lo)).clamp(0, 1)
    return t * freqs + (1 - t) * freqs / scaling.factor


def scale_frequencies_right_loop(freqs, scaling):
    out = torch.zeros_like(freqs)
    for i, f in enumerate(freqs.tolist()):
        turns = scaling.original_context * f / (2 * math.pi)
        if turns < scaling.low_freq_factor:
            out[i] = f / scaling.factor
        elif turns > scaling.high_freq_factor:
            out[i] = f
        else:
            t = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
            out[i] = t * f + (1 - t) * f / scaling.factor
    return out


def scale_frequencies_right_wavelength_where(freqs, scaling):
    wavelen = 2 * math.pi / freqs
    lo, hi = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = (scaling.original_context / wavelen - lo) / (hi - lo)
    mid = (1 - smooth) * freqs / scaling.factor + smooth * freqs
    out = torch.where(wavelen > scaling.original_context / lo, freqs / scaling.factor, mid)
    return torch.where(wavelen < scaling.original_context / hi, freqs, out)


def scale_frequencies_right_lerp_float64(freqs, scaling):
    f = freqs.double()
    turns = f * scaling.original_context / (2 * math.pi)
    w = torch.clip((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0, 1)
    return torch.lerp(f / scaling.factor, f, w).to(freqs.dtype)


def scale_frequencies_right_masks_on_own(freqs, scaling):
    out = freqs.clone()
    turns = scaling.original_context * freqs / (2 * math.pi)
    slow = turns < scaling.low_freq_factor
    mid = ~slow & ~(turns > scaling.high_freq_factor)
    out[slow] /= scaling.factor
    t = (turns[mid] - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    out[mid] *= t + (1 - t) / scaling.factor
    return out


# --- to_half_split
def to_half_split_wrong_ignores_heads(weight, n_heads):
    return torch.cat([weight[0::2], weight[1::2]], dim=0)


def to_half_split_wrong_inverse(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, 2, d // 2, -1)
    return w.transpose(1, 2).reshape(weight.shape)


def to_half_split_wrong_no_transpose(weight, n_heads):
    d = weight.shape[0] // n_heads
    return weight.reshape(n_heads, d // 2, 2, -1).reshape(weight.shape)


def to_half_split_wrong_columns(weight, n_heads):
    d = weight.shape[1] // n_heads
    w = weight.reshape(weight.shape[0], n_heads, d // 2, 2)
    return w.transpose(2, 3).reshape(weight.shape)


def to_half_split_wrong_odd_first(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[:, 1::2], w[:, 0::2]], dim=1).reshape(weight.shape)


def to_half_split_wrong_cat_heads_axis(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[:, 0::2], w[:, 1::2]], dim=0).reshape(weight.shape)


def to_half_split_wrong_three_dims(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[:, 0::2], w[:, 1::2]], dim=1)


def to_half_split_wrong_view_after_transpose(weight, n_heads):
    d = weight.shape[0] // n_heads
    return weight.view(n_heads, d // 2, 2, weight.shape[1]).transpose(1, 2).view(weight.shape)


def to_half_split_wrong_n_heads_as_head_dim(weight, n_heads):
    w = weight.reshape(-1, n_heads // 2, 2, weight.shape[1])
    return w.transpose(1, 2).reshape(weight.shape)


def to_half_split_wrong_swaps_halves(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[:, d // 2:], w[:, : d // 2]], dim=1).reshape(weight.shape)


def to_half_split_wrong_transposes_heads(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d // 2, 2, -1)
    return w.transpose(0, 1).reshape(weight.shape)


def to_half_split_wrong_in_place_overwrites(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.clone().reshape(n_heads, d, -1)
    for i in range(d // 2):
        w[:, i] = w[:, 2 * i]
        w[:, i + d // 2] = w[:, 2 * i + 1]
    return w.reshape(weight.shape)


def to_half_split_wrong_sort_descending(weight, n_heads):
    d = weight.shape[0] // n_heads
    order = list(range(d - 2, -1, -2)) + list(range(d - 1, 0, -2))
    return weight.reshape(n_heads, d, -1)[:, order].reshape(weight.shape)


def to_half_split_wrong_negates_second(weight, n_heads):
    d = weight.shape[0] // n_heads
    w = weight.reshape(n_heads, d, -1)
    return torch.cat([w[:, 0::2], -w[:, 1::2]], dim=1).reshape(weight.shape)


def to_half_split_wrong_only_first_head(weight, n_heads):
    d = weight.shape[0] // n_heads
    out = weight.clone()
    out[:d] = torch.cat([weight[0:d:2], weight[1:d:2]])
    return out


def to_half_split_wrong_index_scatter_direction(weight, n_heads):
    d = weight.shape[0] // n_heads
    out = torch.empty_like(weight)
    for h in range(n_heads):
        for i in range(d // 2):
            out[h * d + 2 * i] = weight[h * d + i]
            out[h * d + 2 * i + 1] = weight[h * d + i + d // 2]
    return out


def to_half_split_wrong_returns_order(weight, n_heads):
    d = weight.shape[0] // n_heads
    rows = torch.arange(weight.shape[0]).reshape(n_heads, d // 2, 2)
    return rows.transpose(1, 2).reshape(-1)


def to_half_split_right_reshape(weight, n_heads):
    d = weight.shape[0] // n_heads
    return weight.reshape(n_heads, d // 2, 2, -1).transpose(1, 2).reshape(weight.shape)


def to_half_split_right_loops(weight, n_heads):
    d = weight.shape[0] // n_heads
    out = torch.empty_like(weight)
    for h in range(n_heads):
        for i in range(d // 2):
            out[h * d + i] = weight[h * d + 2 * i]
            out[h * d + d // 2 + i] = weight[h * d + 2 * i + 1]
    return out


def to_half_split_right_index(weight, n_heads):
    d = weight.shape[0] // n_heads
    order = [h * d + j for h in range(n_heads) for j in [*range(0, d, 2), *range(1, d, 2)]]
    return weight[torch.tensor(order)]


def to_half_split_right_cat_per_head(weight, n_heads):
    return torch.cat([torch.cat([h[0::2], h[1::2]]) for h in weight.chunk(n_heads)])


def to_half_split_right_permutation_matrix(weight, n_heads):
    d = weight.shape[0] // n_heads
    p = torch.zeros(d, d, dtype=weight.dtype)
    for i in range(d // 2):
        p[i, 2 * i] = 1
        p[i + d // 2, 2 * i + 1] = 1
    return torch.einsum("ij,hjc->hic", p, weight.view(n_heads, d, -1)).flatten(0, 1)
