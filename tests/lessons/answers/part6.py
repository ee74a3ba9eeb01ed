import math
import torch
import torch.nn.functional as F


# --- swiglu
def swiglu_wrong_silu_on_up(x, w_gate, w_up, w_down):
    return w_down(w_gate(x) * F.silu(w_up(x)))


def swiglu_wrong_sigmoid(x, w_gate, w_up, w_down):
    return w_down(torch.sigmoid(w_gate(x)) * w_up(x))


def swiglu_wrong_gelu(x, w_gate, w_up, w_down):
    return w_down(F.gelu(w_gate(x)) * w_up(x))


def swiglu_wrong_relu(x, w_gate, w_up, w_down):
    return w_down(torch.relu(w_gate(x)) * w_up(x))


def swiglu_wrong_plus(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) + w_up(x))


def swiglu_wrong_no_activation(x, w_gate, w_up, w_down):
    return w_down(w_gate(x) * w_up(x))


def swiglu_wrong_no_down(x, w_gate, w_up, w_down):
    return F.silu(w_gate(x)) * w_up(x)


def swiglu_wrong_silu_of_product(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x) * w_up(x)))


def swiglu_wrong_residual(x, w_gate, w_up, w_down):
    return x + w_down(F.silu(w_gate(x)) * w_up(x))


def swiglu_wrong_matmul_layer(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def swiglu_wrong_weight_not_transposed(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate.weight) * (x @ w_up.weight)) @ w_down.weight


def swiglu_wrong_up_of_gate(x, w_gate, w_up, w_down):
    g = F.silu(w_gate(x))
    return w_down(g * w_up(g))


def swiglu_wrong_silu_at_input(x, w_gate, w_up, w_down):
    return w_down(w_gate(F.silu(x)) * w_up(x))


def swiglu_wrong_silu_at_end(x, w_gate, w_up, w_down):
    return F.silu(w_down(w_gate(x) * w_up(x)))


def swiglu_wrong_matmul_product(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) @ w_up(x))


def swiglu_wrong_softmax(x, w_gate, w_up, w_down):
    return w_down(torch.softmax(w_gate(x), dim=-1) * w_up(x))


def swiglu_wrong_silu_both(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) * F.silu(w_up(x)))


def swiglu_wrong_forgot_up(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)))


def swiglu_wrong_sign_in_sigmoid(x, w_gate, w_up, w_down):
    g = w_gate(x)
    return w_down(g / (1 + torch.exp(g)) * w_up(x))


def swiglu_wrong_detached_list(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) * w_up(x)).tolist()


def swiglu_wrong_returns_layer(x, w_gate, w_up, w_down):
    h = F.silu(w_gate(x)) * w_up(x)
    w_down(h)
    return w_down


def swiglu_right_plain(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) * w_up(x))


def swiglu_right_by_hand(x, w_gate, w_up, w_down):
    g = w_gate(x)
    return w_down(g * torch.sigmoid(g) * w_up(x))


def swiglu_right_module(x, w_gate, w_up, w_down):
    return w_down(torch.mul(w_up(x), torch.nn.SiLU()(w_gate(x))))


def swiglu_right_in_place_on_own(x, w_gate, w_up, w_down):
    h = w_gate(x).clone()
    h = F.silu(h, inplace=True)
    h *= w_up(x)
    return w_down(h)


def swiglu_right_tokens_loop(x, w_gate, w_up, w_down):
    flat = x.reshape(-1, x.shape[-1])
    rows = [w_down(F.silu(w_gate(t)) * w_up(t)) for t in flat]
    return torch.stack(rows).reshape(*x.shape[:-1], -1)


# --- equal_hidden
def equal_hidden_wrong_two_thirds(dim, hidden):
    return hidden * 2 // 3


def equal_hidden_wrong_float(dim, hidden):
    return hidden * 3 / 2


def equal_hidden_wrong_same(dim, hidden):
    return hidden


def equal_hidden_wrong_rounds_up(dim, hidden):
    return math.ceil(hidden * 3 / 2)


def equal_hidden_wrong_integer_first(dim, hidden):
    return hidden // 2 * 3


def equal_hidden_wrong_number_of_parameters(dim, hidden):
    return 3 * dim * hidden // 2


def equal_hidden_wrong_total(dim, hidden):
    return 3 * dim * hidden


def equal_hidden_wrong_four_dim(dim, hidden):
    return 4 * dim


def equal_hidden_wrong_double(dim, hidden):
    return 2 * hidden


def equal_hidden_wrong_times_three(dim, hidden):
    return 3 * hidden


def equal_hidden_wrong_square_network(dim, hidden):
    return int(math.sqrt(3 * dim * hidden / 2))


def equal_hidden_wrong_multiple_of_256(dim, hidden):
    h = hidden * 3 // 2
    return (h + 255) // 256 * 256


def equal_hidden_wrong_divide_by_hidden(dim, hidden):
    return 3 * dim * hidden // (2 * hidden)


def equal_hidden_wrong_four_thirds(dim, hidden):
    return int(hidden * 4 / 3)


def equal_hidden_wrong_tuple(dim, hidden):
    return divmod(hidden * 3, 2)


def equal_hidden_wrong_plus_one(dim, hidden):
    return hidden * 3 // 2 + 1


def equal_hidden_wrong_loop_one_too_far(dim, hidden):
    h = 0
    while 2 * dim * h <= 3 * dim * hidden:
        h += 1
    return h


def equal_hidden_wrong_strictly_less(dim, hidden):
    h = hidden
    while 2 * dim * (h + 1) < 3 * dim * hidden:
        h += 1
    return h


def equal_hidden_right_floor(dim, hidden):
    return hidden * 3 // 2


def equal_hidden_right_search(dim, hidden):
    h = hidden
    while 2 * dim * (h + 1) <= 3 * dim * hidden:
        h += 1
    return h


def equal_hidden_right_params(dim, hidden):
    params = 3 * dim * hidden
    return params // (2 * dim)


def equal_hidden_right_half_more(dim, hidden):
    return hidden + hidden // 2


# --- swiglu_joined
def swiglu_joined_wrong_up_first(x, w_gate_up, w_down):
    up, gate = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_wrong_interleaved(x, w_gate_up, w_down):
    h = x @ w_gate_up.T
    return (F.silu(h[..., 0::2]) * h[..., 1::2]) @ w_down.T


def swiglu_joined_wrong_chunk_tokens(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=0)
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_wrong_chunk_dim1(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=1)
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_wrong_no_transpose(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down


def swiglu_joined_wrong_called(x, w_gate_up, w_down):
    gate, up = w_gate_up(x).chunk(2, dim=-1)
    return w_down(F.silu(gate) * up)


def swiglu_joined_wrong_no_silu(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (gate * up) @ w_down.T


def swiglu_joined_wrong_silu_before_split(x, w_gate_up, w_down):
    gate, up = F.silu(x @ w_gate_up.T).chunk(2, dim=-1)
    return (gate * up) @ w_down.T


def swiglu_joined_wrong_sigmoid(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (gate.sigmoid() * up) @ w_down.T


def swiglu_joined_wrong_glu(x, w_gate_up, w_down):
    return F.glu(x @ w_gate_up.T, dim=-1) @ w_down.T


def swiglu_joined_wrong_no_down(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return F.silu(gate) * up


def swiglu_joined_wrong_down_transposed_only_missing(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down


def swiglu_joined_wrong_split_by_two(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).split(2, dim=-1)
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_wrong_plus(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) + up) @ w_down.T


def swiglu_joined_wrong_split_at_dim(x, w_gate_up, w_down):
    h = x @ w_gate_up.T
    d = x.shape[-1]
    return (F.silu(h[..., :d]) * h[..., d:]) @ w_down.T


def swiglu_joined_wrong_overlap_half(x, w_gate_up, w_down):
    hidden = w_down.shape[1]
    gate = x @ w_gate_up[:hidden].T
    up = x @ w_gate_up[hidden - 1:-1].T
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_wrong_gate_twice(x, w_gate_up, w_down):
    hidden = w_down.shape[1]
    gate = x @ w_gate_up[:hidden].T
    up = x @ w_gate_up[:hidden].T
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_wrong_gelu_up_first(x, w_gate_up, w_down):
    h = x @ w_gate_up.T
    n = h.shape[-1] // 2
    return (h[..., :n] * F.gelu(h[..., n:])) @ w_down.T


def swiglu_joined_right_chunk(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down.T


def swiglu_joined_right_linear_slices(x, w_gate_up, w_down):
    h = F.linear(x, w_gate_up)
    n = w_down.shape[1]
    return F.linear(h[..., :n] * torch.sigmoid(h[..., :n]) * h[..., n:], w_down)


def swiglu_joined_right_einsum(x, w_gate_up, w_down):
    w = w_gate_up.unflatten(0, (2, -1))
    h = torch.einsum("...d,ghd->g...h", x, w)
    return torch.einsum("...h,dh->...d", F.silu(h[0]) * h[1], w_down)


def swiglu_joined_right_two_products_float64(x, w_gate_up, w_down):
    n = w_gate_up.shape[0] // 2
    g = x.double() @ w_gate_up[:n].double().T
    u = x.double() @ w_gate_up[n:].double().T
    return (g / (1 + torch.exp(-g)) * u @ w_down.double().T).to(x.dtype)


# --- awake
def awake_wrong_no_abs(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.topk(k, dim=-1).indices


def awake_wrong_values(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().topk(k, dim=-1).values


def awake_wrong_smallest(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().argsort(dim=-1)[:, :k]


def awake_wrong_smallest_first(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().argsort(dim=-1)[:, -k:]


def awake_wrong_over_tokens(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().topk(k, dim=0).indices


def awake_wrong_gate_only(x, w_gate, w_up, k):
    return F.silu(x @ w_gate.T).abs().topk(k, dim=-1).indices


def awake_wrong_no_silu(x, w_gate, w_up, k):
    return ((x @ w_gate.T) * (x @ w_up.T)).abs().topk(k, dim=-1).indices


def awake_wrong_whole_topk_object(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return torch.topk(h.abs(), k, dim=-1)


def awake_wrong_mean_over_tokens(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().mean(0).topk(k).indices


def awake_wrong_flat(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().flatten().topk(k).indices


def awake_wrong_no_transpose(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate) * (x @ w_up)
    return h.abs().topk(k, dim=-1).indices


def awake_wrong_abs_of_gate_only(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T).abs() * (x @ w_up.T)
    return h.topk(k, dim=-1).indices


def awake_wrong_unsorted(x, w_gate, w_up, k):
    h = (F.silu(x @ w_gate.T) * (x @ w_up.T)).abs()
    idx = h.topk(k, dim=-1).indices
    return idx.sort(dim=-1).values


def awake_wrong_rank_not_number(x, w_gate, w_up, k):
    h = (F.silu(x @ w_gate.T) * (x @ w_up.T)).abs()
    return h.argsort(-1, descending=True).argsort(-1)[:, :k]


def awake_wrong_slice_reversed_off_by_one(x, w_gate, w_up, k):
    h = (F.silu(x @ w_gate.T) * (x @ w_up.T)).abs()
    order = h.argsort(-1).flip(-1)
    return order[:, 1:k + 1]


def awake_wrong_silu_on_up(x, w_gate, w_up, k):
    h = (x @ w_gate.T) * F.silu(x @ w_up.T)
    return h.abs().topk(k, dim=-1).indices


def awake_wrong_transposed_result(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().topk(k, dim=-1).indices.T


def awake_wrong_last_token_only(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h[-1].abs().topk(k).indices


def awake_wrong_argmax(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().argmax(dim=-1)


def awake_wrong_mask_of_awake(x, w_gate, w_up, k):
    h = (F.silu(x @ w_gate.T) * (x @ w_up.T)).abs()
    return h >= h.topk(k, dim=-1).values[:, -1:]


def awake_right_topk(x, w_gate, w_up, k):
    h = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return h.abs().topk(k, dim=-1).indices


def awake_right_argsort(x, w_gate, w_up, k):
    h = F.silu(F.linear(x, w_gate)) * F.linear(x, w_up)
    return torch.argsort(h ** 2, dim=-1, descending=True)[:, :k]


def awake_right_python_sort(x, w_gate, w_up, k):
    out = []
    for t in x:
        g, u = w_gate @ t, w_up @ t
        h = (g * torch.sigmoid(g) * u).abs().tolist()
        out.append(sorted(range(len(h)), key=lambda i: -h[i])[:k])
    return torch.tensor(out)


def awake_right_repeated_argmax(x, w_gate, w_up, k):
    h = (F.silu(torch.einsum("sd,hd->sh", x, w_gate)) * torch.einsum("sd,hd->sh", x, w_up)).abs()
    cols = []
    for _ in range(k):
        i = h.argmax(dim=-1)
        cols.append(i)
        h[torch.arange(h.shape[0]), i] = -1
    return torch.stack(cols, dim=1)
