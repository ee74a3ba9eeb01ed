import math
import torch
import torch.nn.functional as F


# --- rms_norm
def rms_norm_wrong_no_root(x, weight, eps):
    h = x.float()
    return (h / (h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rms_norm_wrong_layer_norm(x, weight, eps):
    h = x.float()
    h = h - h.mean(-1, keepdim=True)
    return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rms_norm_wrong_mean_over_everything(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).mean() + eps)).to(x.dtype) * weight


def rms_norm_wrong_axis_seq(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).mean(1, keepdim=True) + eps)).to(x.dtype) * weight


def rms_norm_wrong_no_keepdim(x, weight, eps):
    h = x.float()
    return (h / torch.sqrt(h.pow(2).mean(-1) + eps)).to(x.dtype) * weight


def rms_norm_wrong_sum_not_mean(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).sum(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rms_norm_wrong_no_weight(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rms_norm_wrong_one_plus_weight(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * (1 + weight)


def rms_norm_wrong_eps_outside(x, weight, eps):
    h = x.float()
    return (h / (h.pow(2).mean(-1, keepdim=True).sqrt() + eps)).to(x.dtype) * weight


def rms_norm_wrong_eps_forgotten(x, weight, eps):
    h = x.float()
    return (h / h.pow(2).mean(-1, keepdim=True).sqrt()).to(x.dtype) * weight


def rms_norm_wrong_stays_float32(x, weight, eps):
    h = x.float()
    return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps) * weight.float()


def rms_norm_wrong_squares_in_half(x, weight, eps):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps) * weight


def rms_norm_wrong_square_of_mean(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.mean(-1, keepdim=True) ** 2 + eps)).to(x.dtype) * weight


def rms_norm_wrong_multiplies_by_rms(x, weight, eps):
    h = x.float()
    return (h * torch.sqrt(h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rms_norm_wrong_mean_abs(x, weight, eps):
    h = x.float()
    return (h / (h.abs().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rms_norm_wrong_weight_before(x, weight, eps):
    h = x.float() * weight.float()
    return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rms_norm_wrong_in_place_on_input(x, weight, eps):
    r = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps).to(x.dtype)
    x.mul_(r)
    x += weight
    return x


def rms_norm_wrong_default_eps_of_library(x, weight, eps):
    return F.rms_norm(x, (x.shape[-1],), weight)


def rms_norm_wrong_batch_size_divisor(x, weight, eps):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).sum(-1, keepdim=True) / x.shape[1] + eps)).to(x.dtype) * weight


def rms_norm_wrong_returns_rms(x, weight, eps):
    return torch.sqrt(x.float().pow(2).mean(-1, keepdim=True) + eps).to(x.dtype)


def rms_norm_wrong_std(x, weight, eps):
    return ((x.float() / (x.float().std(-1, keepdim=True) + eps)) * weight.float()).to(x.dtype)


def rms_norm_right_rsqrt(x, weight, eps):
    h = x.float()
    h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)
    return h.to(x.dtype) * weight


def rms_norm_right_float64(x, weight, eps):
    h = x.double()
    rms = torch.sqrt((h * h).mean(dim=-1, keepdim=True) + eps)
    return (h / rms * weight.double()).to(x.dtype)


def rms_norm_right_library(x, weight, eps):
    return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), eps).to(x.dtype)


def rms_norm_right_loops(x, weight, eps):
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for s in range(x.shape[1]):
            v = x[b, s].float()
            out[b, s] = (v / math.sqrt(float(v @ v) / v.numel() + eps) * weight.float()).to(x.dtype)
    return out


def rms_norm_right_einsum(x, weight, eps):
    h = x.float()
    ms = torch.einsum("bsd,bsd->bs", h, h) / h.shape[-1]
    return torch.einsum("bsd,bs,d->bsd", h, (ms + eps) ** -0.5, weight.float()).type_as(x)


def rms_norm_right_in_place_on_own(x, weight, eps):
    h = x.to(torch.float32, copy=True)
    n = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    h.div_(torch.sqrt(n ** 2 / x.size(-1) + eps)).mul_(weight.float())
    return h.to(x.dtype)


# --- fold
def fold_wrong_rows(matrix, weight):
    return matrix * weight[:, None]


def fold_wrong_diag_left(matrix, weight):
    return torch.diag(weight) @ matrix


def fold_wrong_transposed(matrix, weight):
    return (matrix * weight).T


def fold_wrong_divides(matrix, weight):
    return matrix / weight


def fold_wrong_plus(matrix, weight):
    return matrix + weight


def fold_wrong_matvec(matrix, weight):
    return matrix @ weight


def fold_wrong_transpose_then_weight(matrix, weight):
    return (matrix.T * weight).T


def fold_wrong_only_diagonal(matrix, weight):
    m = matrix.clone()
    for i in range(min(m.shape)):
        m[i, i] *= weight[i]
    return m


def fold_wrong_weight_squared(matrix, weight):
    return matrix * weight * weight


def fold_wrong_root(matrix, weight):
    return matrix * weight.abs().sqrt()


def fold_wrong_outer(matrix, weight):
    return torch.outer(weight, weight) @ matrix.T


def fold_wrong_mean_weight(matrix, weight):
    return matrix * weight.mean()


def fold_wrong_returns_function(matrix, weight):
    return lambda x: (x * weight) @ matrix.T


def fold_wrong_returns_both(matrix, weight):
    return matrix * weight, torch.ones_like(weight)


def fold_wrong_matrix_unchanged(matrix, weight):
    matrix.clone().mul_(weight)
    return matrix


def fold_wrong_diag_of_matrix(matrix, weight):
    return torch.diag(weight) * matrix


def fold_wrong_stacked(matrix, weight):
    return torch.cat([matrix, weight[None]], dim=0)


def fold_wrong_einsum_summed(matrix, weight):
    return torch.einsum("oi,i->o", matrix, weight)


def fold_wrong_normalised_weight(matrix, weight):
    return matrix * (weight / weight.norm())


def fold_right_broadcast(matrix, weight):
    return matrix * weight


def fold_right_diag(matrix, weight):
    return matrix @ torch.diag(weight)


def fold_right_einsum(matrix, weight):
    return torch.einsum("oi,i->oi", matrix, weight)


def fold_right_columns(matrix, weight):
    out = matrix.clone()
    for i in range(matrix.shape[1]):
        out[:, i] *= weight[i]
    return out


def fold_right_transposes(matrix, weight):
    return (weight.unsqueeze(1) * matrix.T).T.contiguous()


def fold_right_basis(matrix, weight):
    eye = torch.eye(weight.numel(), dtype=matrix.dtype)
    return ((eye * weight) @ matrix.T).T


# --- rms_by_depth
def rms_by_depth_wrong_rms_of_writes(embedding, writes):
    rows = [embedding] + list(writes)
    return torch.stack([r.pow(2).mean(-1).sqrt() for r in rows])


def rms_by_depth_wrong_without_start(embedding, writes):
    x, out = embedding, []
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1).sqrt())
    return torch.stack(out)


def rms_by_depth_wrong_without_last(embedding, writes):
    x, out = embedding, []
    for w in writes:
        out.append(x.pow(2).mean(-1).sqrt())
        x = x + w
    return torch.stack(out)


def rms_by_depth_wrong_cat(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(-1).sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1).sqrt())
    return torch.cat(out)


def rms_by_depth_wrong_norm(embedding, writes):
    x = embedding
    out = [x.norm(dim=-1)]
    for w in writes:
        x = x + w
        out.append(x.norm(dim=-1))
    return torch.stack(out)


def rms_by_depth_wrong_axis_tokens(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(0).sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(0).sqrt())
    return torch.stack(out)


def rms_by_depth_wrong_transposed(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(-1).sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1).sqrt())
    return torch.stack(out, dim=1)


def rms_by_depth_wrong_list(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(-1).sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1).sqrt())
    return out


def rms_by_depth_wrong_mean_square(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(-1)]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1))
    return torch.stack(out)


def rms_by_depth_wrong_std(embedding, writes):
    x = embedding
    out = [x.std(-1)]
    for w in writes:
        x = x + w
        out.append(x.std(-1))
    return torch.stack(out)


def rms_by_depth_wrong_adds_rms(embedding, writes):
    r = embedding.pow(2).mean(-1).sqrt()
    out = [r]
    for w in writes:
        r = r + w.pow(2).mean(-1).sqrt()
        out.append(r)
    return torch.stack(out)


def rms_by_depth_wrong_pythagoras(embedding, writes):
    ms = torch.stack([embedding] + list(writes)).pow(2).mean(-1)
    return ms.cumsum(0).sqrt()


def rms_by_depth_wrong_not_accumulated(embedding, writes):
    out = [embedding.pow(2).mean(-1).sqrt()]
    for w in writes:
        out.append((embedding + w).pow(2).mean(-1).sqrt())
    return torch.stack(out)


def rms_by_depth_wrong_aliased_in_place(embedding, writes):
    x = embedding.clone()
    states = [x]
    for w in writes:
        x += w
        states.append(x)
    return torch.stack(states).pow(2).mean(-1).sqrt()


def rms_by_depth_wrong_one_number_per_depth(embedding, writes):
    x = embedding
    out = [x.pow(2).mean().sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean().sqrt())
    return torch.stack(out)


def rms_by_depth_wrong_keepdim(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(-1, keepdim=True).sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1, keepdim=True).sqrt())
    return torch.stack(out)


def rms_by_depth_wrong_mean_then_square(embedding, writes):
    x = embedding
    out = [(x.mean(-1) ** 2).sqrt()]
    for w in writes:
        x = x + w
        out.append((x.mean(-1) ** 2).sqrt())
    return torch.stack(out)


def rms_by_depth_wrong_relative(embedding, writes):
    x = embedding
    first = x.pow(2).mean(-1).sqrt()
    out = [first / first]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1).sqrt() / first)
    return torch.stack(out)


def rms_by_depth_right_loop(embedding, writes):
    x = embedding
    out = [x.pow(2).mean(-1).sqrt()]
    for w in writes:
        x = x + w
        out.append(x.pow(2).mean(-1).sqrt())
    return torch.stack(out)


def rms_by_depth_right_cumsum(embedding, writes):
    return torch.stack([embedding, *writes]).cumsum(0).square().mean(-1).sqrt()


def rms_by_depth_right_vector_norm(embedding, writes):
    x = embedding.clone()
    out = torch.empty(1 + len(writes), embedding.shape[0])
    out[0] = torch.linalg.vector_norm(x, dim=-1) / math.sqrt(x.shape[-1])
    for i, w in enumerate(writes, 1):
        x += w
        out[i] = torch.linalg.vector_norm(x, dim=-1) / math.sqrt(x.shape[-1])
    return out


def rms_by_depth_right_einsum_float64(embedding, writes):
    s = torch.stack([sum(writes[:i], embedding).double() for i in range(len(writes) + 1)])
    return (torch.einsum("lsd,lsd->ls", s, s) / s.shape[-1]).sqrt().to(embedding.dtype)


# --- norm_of_slices
def norm_of_slices_wrong_each_alone(slices, eps):
    return [s * torch.rsqrt(s.pow(2).mean(-1, keepdim=True) + eps) for s in slices]


def norm_of_slices_wrong_mean_of_means(slices, eps):
    ms = sum(s.pow(2).mean(-1, keepdim=True) for s in slices) / len(slices)
    return [s * torch.rsqrt(ms + eps) for s in slices]


def norm_of_slices_wrong_no_division(slices, eps):
    ss = sum(s.pow(2).sum(-1, keepdim=True) for s in slices)
    return [s * torch.rsqrt(ss + eps) for s in slices]


def norm_of_slices_wrong_divide_by_own_size(slices, eps):
    ss = sum(s.pow(2).sum(-1, keepdim=True) for s in slices)
    return [s * torch.rsqrt(ss / s.shape[-1] + eps) for s in slices]


def norm_of_slices_wrong_returns_whole(slices, eps):
    ss = sum(s.pow(2).sum(-1, keepdim=True) for s in slices)
    n = sum(s.shape[-1] for s in slices)
    return torch.cat([s * torch.rsqrt(ss / n + eps) for s in slices], dim=-1)


def norm_of_slices_wrong_equal_sizes(slices, eps):
    ss = sum(s.pow(2).sum(-1, keepdim=True) for s in slices)
    n = slices[0].shape[-1] * len(slices)
    return [s * torch.rsqrt(ss / n + eps) for s in slices]


def norm_of_slices_wrong_over_tokens(slices, eps):
    ss = sum(s.pow(2).sum() for s in slices)
    n = sum(s.numel() for s in slices)
    return [s * torch.rsqrt(ss / n + eps) for s in slices]


def norm_of_slices_wrong_square_of_sum(slices, eps):
    total = sum(s.sum(-1, keepdim=True) for s in slices)
    n = sum(s.shape[-1] for s in slices)
    return [s * torch.rsqrt(total ** 2 / n + eps) for s in slices]


def norm_of_slices_wrong_sum_of_rms(slices, eps):
    rms = sum(torch.sqrt(s.pow(2).mean(-1, keepdim=True) + eps) for s in slices)
    return [s / rms for s in slices]


def norm_of_slices_wrong_eps_per_card(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    ms = sum(s.pow(2).sum(-1, keepdim=True) / n + eps for s in slices)
    return [s * torch.rsqrt(ms) for s in slices]


def norm_of_slices_wrong_running_sum(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    ss, out = 0, []
    for s in slices:
        ss = ss + s.pow(2).sum(-1, keepdim=True)
        out.append(s * torch.rsqrt(ss / n + eps))
    return out


def norm_of_slices_wrong_no_keepdim(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    ss = sum(s.pow(2).sum(-1) for s in slices)
    return [s * torch.rsqrt(ss / n + eps) for s in slices]


def norm_of_slices_wrong_cat_on_tokens(slices, eps):
    x = torch.cat(slices, dim=0)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return list(x.split([s.shape[0] for s in slices]))


def norm_of_slices_wrong_chunk_equally(slices, eps):
    x = torch.cat(slices, dim=-1)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return list(x.chunk(len(slices), dim=-1))


def norm_of_slices_wrong_only_two_cards(slices, eps):
    a, b = slices[0], slices[1]
    n = a.shape[-1] + b.shape[-1]
    ms = (a.pow(2).sum(-1, keepdim=True) + b.pow(2).sum(-1, keepdim=True)) / n
    r = torch.rsqrt(ms + eps)
    return [a * r, b * r]


def norm_of_slices_wrong_layer_norm(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    mean = sum(s.sum(-1, keepdim=True) for s in slices) / n
    c = [s - mean for s in slices]
    ms = sum(s.pow(2).sum(-1, keepdim=True) for s in c) / n
    return [s * torch.rsqrt(ms + eps) for s in c]


def norm_of_slices_wrong_no_root(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    ms = sum(s.pow(2).sum(-1, keepdim=True) for s in slices) / n
    return [s / (ms + eps) for s in slices]


def norm_of_slices_wrong_generator_used_up(slices, eps):
    squares = (s.pow(2).sum(-1, keepdim=True) for s in slices)
    n = sum(s.shape[-1] for s in slices)
    return [s * torch.rsqrt(sum(squares) / n + eps) for s in slices]


def norm_of_slices_wrong_returns_last(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    ms = sum(s.pow(2).sum(-1, keepdim=True) for s in slices) / n
    for s in slices:
        return [s * torch.rsqrt(ms + eps)]


def norm_of_slices_right_sums(slices, eps):
    n = sum(s.shape[-1] for s in slices)
    ss = sum(s.pow(2).sum(-1, keepdim=True) for s in slices)
    return [s * torch.rsqrt(ss / n + eps) for s in slices]


def norm_of_slices_right_weighted_means(slices, eps):
    n = sum(s.size(1) for s in slices)
    ms = torch.zeros(slices[0].shape[0], 1)
    for s in slices:
        ms += s.square().mean(1, keepdim=True) * (s.size(1) / n)
    return [s / (ms + eps).sqrt() for s in slices]


def norm_of_slices_right_einsum_float64(slices, eps):
    parts = torch.stack([torch.einsum("sd,sd->s", s.double(), s.double()) for s in slices])
    n = sum(s.shape[1] for s in slices)
    r = (parts.sum(0) / n + eps).pow(-0.5)
    return [torch.einsum("sd,s->sd", s.double(), r).to(s.dtype) for s in slices]


def norm_of_slices_right_loops(slices, eps):
    out = [torch.zeros_like(s) for s in slices]
    n = sum(len(s[0]) for s in slices)
    for t in range(slices[0].shape[0]):
        total = 0.0
        for s in slices:
            total += float(s[t] @ s[t])
        for o, s in zip(out, slices):
            o[t] = s[t] / math.sqrt(total / n + eps)
    return out
