import codecs
import math
import torch
import torch.nn.functional as F


# --- merge
def merge_wrong_leftmost_first(piece, ranks):
    t = [bytes([b]) for b in piece]
    i = 0
    while i < len(t) - 1:
        if t[i] + t[i + 1] in ranks:
            t[i:i + 2] = [t[i] + t[i + 1]]
            i = 0
        else:
            i += 1
    return t


def merge_wrong_highest_rank(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = max(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_greedy_longest(piece, ranks):
    out, i = [], 0
    while i < len(piece):
        for j in range(len(piece), i, -1):
            if piece[i:j] in ranks or j == i + 1:
                out.append(piece[i:j])
                i = j
                break
    return out


def merge_wrong_ints(piece, ranks):
    t = list(piece)
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_one_merge_only(piece, ranks):
    t = [bytes([b]) for b in piece]
    c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
    if c:
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]
    return t


def merge_wrong_rightmost_of_equals(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        best = None
        for i in range(len(t) - 1):
            r = ranks.get(t[i] + t[i + 1])
            if r is not None and (best is None or r <= best[0]):
                best = (r, i)
        if best is None:
            return t
        i = best[1]
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_misses_last_pair(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 2) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_bytes_of_int(piece, ranks):
    t = [bytes(b) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_rank_zero_is_false(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        best = None
        for i in range(len(t) - 1):
            r = ranks.get(t[i] + t[i + 1])
            if r and (best is None or r < best[0]):
                best = (r, i)
        if not best:
            return t
        t[best[1]:best[1] + 2] = [t[best[1]] + t[best[1] + 1]]


def merge_wrong_numbers(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return [ranks.get(x, x[0]) for x in t]
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_one_pass_by_rank(piece, ranks):
    t = [bytes([b]) for b in piece]
    for token, _ in sorted(ranks.items(), key=lambda kv: kv[1]):
        for i in range(len(t) - 1):
            if t[i] + t[i + 1] == token:
                t[i:i + 2] = [token]
                break
    return t


def merge_wrong_keeps_second(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i] = t[i] + t[i + 1]
        if i + 2 < len(t) and len(t) > len(piece):
            del t[i + 1]
        else:
            return t


def merge_wrong_characters(piece, ranks):
    t = list(piece.decode("utf-8", errors="replace"))
    while True:
        c = [(ranks[(t[i] + t[i + 1]).encode()], i) for i in range(len(t) - 1) if (t[i] + t[i + 1]).encode() in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_empty_min_crash(piece, ranks):
    t = [bytes([b]) for b in piece]
    while len(t) > 1:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]
    return t


def merge_wrong_lookup_key_error(piece, ranks):
    t = [bytes([b]) for b in piece]
    while len(t) > 1:
        _, i = min((ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1))
        t[i:i + 2] = [t[i] + t[i + 1]]
    return t


def merge_wrong_longest_join(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(-len(t[i] + t[i + 1]), i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_whole_piece_shortcut(piece, ranks):
    if piece in ranks:
        return [piece]
    return [bytes([b]) for b in piece]


def merge_wrong_endless(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if c:
            _, i = min(c)
            t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_joined(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return b" ".join(t)
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_wrong_min_of_bytes(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(t[i] + t[i + 1], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_right_min_of_pairs(piece, ranks):
    t = [bytes([b]) for b in piece]
    while True:
        c = [(ranks[t[i] + t[i + 1]], i) for i in range(len(t) - 1) if t[i] + t[i + 1] in ranks]
        if not c:
            return t
        _, i = min(c)
        t[i:i + 2] = [t[i] + t[i + 1]]


def merge_right_boundaries(piece, ranks):
    cuts = list(range(len(piece) + 1))
    while len(cuts) > 2:
        best, where = math.inf, -1
        for i in range(len(cuts) - 2):
            r = ranks.get(piece[cuts[i]:cuts[i + 2]], math.inf)
            if r < best:
                best, where = r, i
        if where < 0:
            break
        del cuts[where + 1]
    return [piece[a:b] for a, b in zip(cuts, cuts[1:])]


def merge_right_recursive(piece, ranks):
    def go(tokens):
        joins = [a + b for a, b in zip(tokens, tokens[1:])]
        known = [i for i, j in enumerate(joins) if j in ranks]
        if not known:
            return tokens
        i = min(known, key=lambda i: ranks[joins[i]])
        return go(tokens[:i] + [joins[i]] + tokens[i + 2:])
    return go([piece[i:i + 1] for i in range(len(piece))])


def merge_right_linked_heap(piece, ranks):
    import heapq
    n = len(piece)
    end = {i: i + 1 for i in range(n)}
    prev = {i: i - 1 for i in range(n)}
    heap = []

    def push(i):
        j = end.get(i)
        if j is not None and j < n:
            k = end[j]
            r = ranks.get(piece[i:k])
            if r is not None:
                heapq.heappush(heap, (r, i, j, k))

    for i in range(n):
        push(i)
    while heap:
        _, i, j, k = heapq.heappop(heap)
        if end.get(i) != j or end.get(j) != k:
            continue
        end[i] = k
        del end[j]
        if k < n:
            prev[k] = i
        push(i)
        if prev[i] >= 0:
            push(prev[i])
    out, i = [], 0
    while i < n:
        out.append(piece[i:end[i]])
        i = end[i]
    return out


# --- shown
def shown_wrong_each_alone_crash(pieces):
    return [p.decode("utf-8") for p in pieces]


def shown_wrong_replacement(pieces):
    return [p.decode("utf-8", errors="replace") for p in pieces]


def shown_wrong_ignore(pieces):
    return [p.decode("utf-8", errors="ignore") for p in pieces]


def shown_wrong_all_at_end(pieces):
    return [""] * (len(pieces) - 1) + [b"".join(pieces).decode("utf-8")]


def shown_wrong_waits_for_whole_buffer(pieces):
    out, buf = [], b""
    for p in pieces:
        buf += p
        try:
            out.append(buf.decode("utf-8"))
            buf = b""
        except UnicodeDecodeError:
            out.append("")
    return out


def shown_wrong_skips_empty(pieces):
    d = codecs.getincrementaldecoder("utf-8")()
    return [s for s in (d.decode(p) for p in pieces) if s]


def shown_wrong_cumulative(pieces):
    d = codecs.getincrementaldecoder("utf-8")()
    out, text = [], ""
    for p in pieces:
        text += d.decode(p)
        out.append(text)
    return out


def shown_wrong_none_for_nothing(pieces):
    d = codecs.getincrementaldecoder("utf-8")()
    return [d.decode(p) or None for p in pieces]


def shown_wrong_buffer_not_cleared(pieces):
    out, buf = [], b""
    for p in pieces:
        buf += p
        try:
            out.append(buf.decode())
        except UnicodeDecodeError:
            out.append("")
    return out


def shown_wrong_latin1(pieces):
    return [p.decode("latin-1") for p in pieces]


def shown_wrong_string(pieces):
    return b"".join(pieces).decode("utf-8")


def shown_wrong_one_token_late(pieces):
    d = codecs.getincrementaldecoder("utf-8")()
    s = [d.decode(p) for p in pieces]
    return [""] + s[:-1]


def shown_wrong_final_true(pieces):
    d = codecs.getincrementaldecoder("utf-8")("replace")
    return [d.decode(p, final=True) for p in pieces]


def shown_wrong_new_decoder_each(pieces):
    return [codecs.getincrementaldecoder("utf-8")().decode(p) for p in pieces]


def shown_wrong_two_byte_only(pieces):
    out, buf = [], b""
    for p in pieces:
        buf += p
        if buf and buf[-1] >= 0xC0:
            out.append(buf[:-1].decode("utf-8", errors="replace"))
            buf = buf[-1:]
        else:
            out.append(buf.decode("utf-8", errors="replace"))
            buf = b""
    return out


def shown_wrong_ignored_prefix_diff_off(pieces):
    out, before = [], 0
    for i in range(len(pieces)):
        text = b"".join(pieces[:i]).decode("utf-8", errors="ignore")
        out.append(text[before:])
        before = len(text)
    return out


def shown_wrong_replacement_in_prefix(pieces):
    out, before = [], 0
    for i in range(len(pieces)):
        text = b"".join(pieces[:i + 1]).decode("utf-8", errors="replace")
        out.append(text[before:])
        before = len(text)
    return out


def shown_wrong_drops_incomplete_token(pieces):
    out = []
    for p in pieces:
        try:
            out.append(p.decode("utf-8"))
        except UnicodeDecodeError:
            out.append("")
    return out


def shown_wrong_bytes(pieces):
    out, buf = [], b""
    for p in pieces:
        buf += p
        try:
            buf.decode("utf-8")
            out.append(buf)
            buf = b""
        except UnicodeDecodeError:
            out.append(b"")
    return out


def shown_wrong_characters_of_text(pieces):
    return list(b"".join(pieces).decode("utf-8"))


def shown_wrong_str_of_bytes(pieces):
    return [str(p) for p in pieces]


def shown_wrong_splits_by_lengths(pieces):
    text = b"".join(pieces).decode("utf-8")
    out, i = [], 0
    for p in pieces:
        out.append(text[i:i + len(p)])
        i += len(p)
    return out


def shown_right_incremental(pieces):
    d = codecs.getincrementaldecoder("utf-8")()
    return [d.decode(p) for p in pieces]


def shown_right_cut_at_error(pieces):
    out, buf = [], b""
    for p in pieces:
        buf += p
        try:
            good = len(buf)
            buf.decode("utf-8")
        except UnicodeDecodeError as e:
            good = e.start
        out.append(buf[:good].decode("utf-8"))
        buf = buf[good:]
    return out


def shown_right_prefix_differences(pieces):
    out, before, data = [], 0, b""
    for p in pieces:
        data += p
        text = data.decode("utf-8", errors="ignore")
        out.append(text[before:])
        before = len(text)
    return out


def shown_right_by_first_byte(pieces):
    out, char, need = [], bytearray(), 0
    for p in pieces:
        text = ""
        for b in p:
            if not char:
                need = 1 if b < 0x80 else 2 if b < 0xE0 else 3 if b < 0xF0 else 4
            char.append(b)
            if len(char) == need:
                text += char.decode("utf-8")
                char.clear()
        out.append(text)
    return out


# --- loss
def loss_wrong_overflow(logits, target):
    e = torch.exp(logits)
    return float(-torch.log(e[target] / e.sum()))


def loss_wrong_sign(logits, target):
    return float(torch.log_softmax(logits.float(), -1)[target])


def loss_wrong_bits(logits, target):
    return float(-torch.log_softmax(logits.float(), -1)[target] / math.log(2))


def loss_wrong_probability(logits, target):
    return float(torch.softmax(logits.float(), -1)[target])


def loss_wrong_one_minus_p(logits, target):
    return float(1 - torch.softmax(logits.float(), -1)[target])


def loss_wrong_log_of_softmax(logits, target):
    return float(-torch.log(torch.softmax(logits.float(), -1) + 1e-9)[target])


def loss_wrong_logit_itself(logits, target):
    return -float(logits[target])


def loss_wrong_mean_over_vocab(logits, target):
    return float(-torch.log_softmax(logits.float(), -1).mean())


def loss_wrong_max_not_added_back(logits, target):
    m = logits.max()
    return float(torch.log(torch.exp(logits - m).sum()) - logits[target])


def loss_wrong_argmax_target(logits, target):
    return float(-torch.log_softmax(logits.float(), -1)[logits.argmax()])


def loss_wrong_softmax_before_cross_entropy(logits, target):
    return F.cross_entropy(torch.softmax(logits.float(), -1)[None], torch.tensor([target])).item()


def loss_wrong_target_off_by_one(logits, target):
    return float(-torch.log_softmax(logits.float(), -1)[target - 1])


def loss_wrong_tensor(logits, target):
    return -torch.log_softmax(logits.float(), -1)[None, target:target + 1]


def loss_wrong_log10(logits, target):
    return float(-torch.log_softmax(logits.float(), -1)[target] / math.log(10))


def loss_wrong_cross_entropy_int_target(logits, target):
    return F.cross_entropy(logits, target).item()


def loss_wrong_perplexity(logits, target):
    return math.exp(-float(torch.log_softmax(logits.float(), -1)[target]))


def loss_wrong_clamped(logits, target):
    e = torch.exp(logits.clamp(max=80))
    return float(-torch.log(e[target] / e.sum()))


def loss_wrong_nll_of_logits(logits, target):
    return F.nll_loss(logits.float()[None], torch.tensor([target])).item()


def loss_wrong_squared_error(logits, target):
    p = torch.softmax(logits.float(), -1)
    y = torch.zeros_like(p)
    y[target] = 1
    return float(((p - y) ** 2).sum())


def loss_wrong_norm_by_sum(logits, target):
    return float(-torch.log(logits[target] / logits.sum()))


def loss_wrong_division_by_max(logits, target):
    e = torch.exp(logits / logits.abs().max())
    return float(-torch.log(e[target] / e.sum()))


def loss_right_log_softmax(logits, target):
    return float(-torch.log_softmax(logits.float(), dim=-1)[target])


def loss_right_logsumexp(logits, target):
    x = logits.double()
    return (torch.logsumexp(x, 0) - x[target]).item()


def loss_right_cross_entropy(logits, target):
    return F.cross_entropy(logits.float().unsqueeze(0), torch.tensor([target])).item()


def loss_right_pure_python(logits, target):
    x = logits.tolist()
    m = max(x)
    return m - x[target] + math.log(sum(math.exp(v - m) for v in x))


def loss_right_differences(logits, target):
    d = logits.double() - logits.double()[target]
    m = d.max()
    return float(m + (d - m).exp().sum().log())


# --- bits_per_byte
def bits_per_byte_wrong_nats(loss, n_tokens, n_bytes):
    return loss * n_tokens / n_bytes


def bits_per_byte_wrong_times_log2(loss, n_tokens, n_bytes):
    return loss * math.log(2) * n_tokens / n_bytes


def bits_per_byte_wrong_ratio_inverted(loss, n_tokens, n_bytes):
    return loss / math.log(2) * n_bytes / n_tokens


def bits_per_byte_wrong_per_token(loss, n_tokens, n_bytes):
    return loss / math.log(2)


def bits_per_byte_wrong_log2_of_loss(loss, n_tokens, n_bytes):
    return math.log2(loss) * n_tokens / n_bytes


def bits_per_byte_wrong_per_bit(loss, n_tokens, n_bytes):
    return loss / math.log(2) * n_tokens / (8 * n_bytes)


def bits_per_byte_wrong_times_eight(loss, n_tokens, n_bytes):
    return 8 * loss / math.log(2) * n_tokens / n_bytes


def bits_per_byte_wrong_loss_is_a_sum(loss, n_tokens, n_bytes):
    return loss / math.log(2) / n_bytes


def bits_per_byte_wrong_total_bits(loss, n_tokens, n_bytes):
    return loss * n_tokens / math.log(2)


def bits_per_byte_wrong_perplexity(loss, n_tokens, n_bytes):
    return math.exp(loss) * n_tokens / n_bytes


def bits_per_byte_wrong_perplexity_in_bits(loss, n_tokens, n_bytes):
    return 2 ** (loss * n_tokens / n_bytes)


def bits_per_byte_wrong_integer_ratio(loss, n_tokens, n_bytes):
    return loss / math.log(2) * (n_tokens // n_bytes)


def bits_per_byte_wrong_bytes_per_token_floor(loss, n_tokens, n_bytes):
    return loss / math.log(2) / (n_bytes // n_tokens)


def bits_per_byte_wrong_log10(loss, n_tokens, n_bytes):
    return loss / math.log10(2) * n_tokens / n_bytes


def bits_per_byte_wrong_divide_by_two(loss, n_tokens, n_bytes):
    return loss / 2 * n_tokens / n_bytes


def bits_per_byte_wrong_rounded(loss, n_tokens, n_bytes):
    return round(loss * n_tokens / math.log(2) / n_bytes)


def bits_per_byte_wrong_per_token_squared(loss, n_tokens, n_bytes):
    return loss / n_tokens / math.log(2) * n_tokens / n_bytes


def bits_per_byte_right_formula(loss, n_tokens, n_bytes):
    return loss * n_tokens / (math.log(2) * n_bytes)


def bits_per_byte_right_log2_e(loss, n_tokens, n_bytes):
    return loss * math.log2(math.e) / (n_bytes / n_tokens)


def bits_per_byte_right_steps(loss, n_tokens, n_bytes):
    total_nats = loss * n_tokens
    total_bits = total_nats / torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
    return total_bits / n_bytes


def bits_per_byte_right_log_of_power(loss, n_tokens, n_bytes):
    return math.log(math.exp(loss), 2) * n_tokens / n_bytes


# --- tokens_saved
def tokens_saved_wrong_after_over_before(before, after):
    return after / before - 1


def tokens_saved_wrong_share_kept(before, after):
    return before / after


def tokens_saved_wrong_sign(before, after):
    return before / after - 1


def tokens_saved_wrong_percent(before, after):
    return 100 * (1 - before / after)


def tokens_saved_wrong_difference(before, after):
    return after - before


def tokens_saved_wrong_one_minus_inverted(before, after):
    return 1 - after / before


def tokens_saved_wrong_over_sum(before, after):
    return (after - before) / (after + before)


def tokens_saved_wrong_integer_division(before, after):
    return 1 - before // after


def tokens_saved_wrong_absolute_tokens_per_character(before, after):
    return 1 / before - 1 / after


def tokens_saved_wrong_over_before(before, after):
    return (after - before) / before


def tokens_saved_wrong_relative_to_new(before, after):
    return (1 / before - 1 / after) / (1 / after)


def tokens_saved_wrong_tokens_swapped(before, after):
    tokens_before, tokens_after = 1000 * before, 1000 * after
    return (tokens_before - tokens_after) / tokens_before


def tokens_saved_wrong_string(before, after):
    return f"{(1 - before / after):.0%}"


def tokens_saved_wrong_prints(before, after):
    print(1 - before / after)


def tokens_saved_wrong_rounded(before, after):
    return round(1 - before / after, 1)


def tokens_saved_wrong_log_ratio(before, after):
    return math.log(after / before)


def tokens_saved_wrong_square(before, after):
    return 1 - (before / after) ** 2


def tokens_saved_right_formula(before, after):
    return 1 - before / after


def tokens_saved_right_tokens_of_a_text(before, after):
    chars = 1_000_000
    old, new = chars / before, chars / after
    return (old - new) / old


def tokens_saved_right_difference_over_after(before, after):
    return (after - before) / after


def tokens_saved_right_tokens_per_character(before, after):
    return (1 / before - 1 / after) * before
