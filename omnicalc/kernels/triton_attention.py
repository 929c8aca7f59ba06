"""Triton kernels of E2Former-V2's attention, and their slow twin in plain torch.

For target atom i, slot e = (i, k) with source j, head h, and channels c with c mod H = h:

    dot = q_i . k_j / sqrt(d)     s = gate dot     b = exp(s - top) / (total + 1e-3), or softplus(s), or sigmoid(s)
    p = b u     alpha = factor p     out[i, w, row, c] = sum_k alpha U_w v[j, row, c]

with the envelope u, top = max_k s, total = sum_k exp(s - top) u, and U = the unit edge vector (first order) and/or 1
(zero order). ``out`` are moments. Their constant coupling to degrees l3 is a small matrix per atom and stays in torch:
formed per edge it would cost more arithmetic, to write 20 in place of 27 rows once per atom.

Derivatives (g = dL/dout; b1, b2 are the first and second derivative of b by s, both b itself for softmax; A, tie and
shift are zero without softmax; the maximum is differentiated, evenly over ties, for the 1e-3 makes it matter):

    t_w = sum_{row, c in h} g[w] v_j          da = sum_w U_w t_w          dU_w = sum_h alpha t_w
    A = sum_k alpha da                        dfactor = p da              du = sum_h b (factor da - A)
    ds = b1 u (factor da - A) - tie           dgate = ds dot              tie = A 1e-3 / (total + 1e-3) on the arg max
    dq = sum_k ds gate k_j / sqrt(d)          dv = sum_e alpha U_w g_w    dk = sum_e ds gate q_i / sqrt(d)

The second derivatives are the tangent of all these along the incoming direction (suffix _t, g fixed), one product rule
per line. There shift = top_t + total_t / (total + 1e-3), so that b_t = b1 s_t - shift b.

Passes: ``forward`` (target-major, running maximum, keeps top and total alone); ``backward_target``, which recomputes
all scores and leaves two numbers per edge and head, alpha and pull = ds gate / sqrt(d), until ``backward_source`` has
run over the reversed list (so no atomics, and a fixed order of summation); ``tangent_moments``, the derivative by g.
No channel-wide quantity of an edge ever exists in memory.

Bytes and operations per edge with R = (l_max+1)^2, W = 3 (4 with both orders), float32:

    forward          4 R C + 4 H d + 8 H + 24                          (1 + 2W) R C + 2 H d + 12 H
    backward_target  4 R C + 4 H d + 24 H + 40; softmax + 4 H d + 24 H   2W R C + 4 H d + 40 H
    backward_source  4 W R C + 4 H d + 8 H + 28                        (2 + 2W) R C + 2 H d
    with TANGENT     twice the bytes and three times the operations, but the source pass reads g once
    tangent_moments  8 R C + 8 H + 32                                  (3 + 4W) R C

At C = 256, H = 128, d = 8, l_max = 2 the forward pass reads 14.4 kB and does 20 kflop per edge: 1.4 flop per byte,
where an H100 or H200 balances near 14. So the limit of every pass is memory. Each value is gathered about 40 times: the
limit is the L2 cache while k and v (13 kB per atom; g in the source pass: 28 kB) fit into it, device memory beyond.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

EPS: tl.constexpr = tl.constexpr(1e-3)  # added to the softmax denominator
SOFTMAX: tl.constexpr = tl.constexpr(0)
SOFTPLUS: tl.constexpr = tl.constexpr(1)


def twin(q, k, v, gate, factor, step, unit, index, mask, kind: str, first: bool, zero: bool) -> Tensor:
    """Slow reference: q, k (N, H, d), v (N, rows, C), gate, factor (N, K, H), step (N, K), unit (N, K, 3)
    -> moments (N, W, rows, C)."""
    heads, width = q.shape[1:]
    score = gate * (q.unsqueeze(1) * k[index]).sum(-1) / width**0.5
    step = torch.where(mask, step, 0.0).unsqueeze(-1)
    if kind == "softmax" and score.shape[1]:
        score = score.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        top = score.amax(1, keepdim=True)
        weight = torch.exp(score - torch.where(top > -torch.inf, top, 0.0)) * step
        weight = weight / (weight.sum(1, keepdim=True) + EPS.value)
    else:
        weight = {"softmax": torch.exp, "softplus": F.softplus, "sigmoid": torch.sigmoid}[kind](score) * step
    components = [unit] * first + [torch.ones_like(unit[..., :1])] * zero
    alpha = (weight * factor).repeat(1, 1, v.shape[2] // heads)  # channel c belongs to head c mod H
    return torch.einsum("nkc,nkw,nkrc->nwrc", alpha, torch.cat(components, -1), v[index])


@triton.jit
def _per_head(table, row, ok, h, H: tl.constexpr, ACC: tl.constexpr):
    """Rows (BK,) of a (..., H) table -> (BK, BH)."""
    return tl.load(table + row[:, None] * H + h[None, :], ok[:, None] & (h < H)[None, :], 0.0).to(ACC)


@triton.jit
def _put_per_head(table, row, ok, h, x, H: tl.constexpr):
    tl.store(table + row[:, None] * H + h[None, :], x, ok[:, None] & (h < H)[None, :])


@triton.jit
def _query_tile(row, ok, h, H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr):
    """Addresses and mask of rows (BK,) of a (N, H, D) table -> (BK, BH, BD)."""
    d = tl.arange(0, BD)
    at = (row[:, None] * H + h[None, :])[:, :, None] * D + d[None, None, :]
    return at, ok[:, None, None] & (h < H)[None, :, None] & (d < D)[None, None, :]


@triton.jit
def _queries(table, row, ok, h, H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr):
    at, inside = _query_tile(row, ok, h, H, D, BD)
    return tl.load(table + at, inside, 0.0).to(ACC)


@triton.jit
def _value_tile(row, ok, h, H: tl.constexpr, P: tl.constexpr, BP: tl.constexpr):
    """Addresses and mask of rows (BK,) of a (N, P, H) table, P = rows * C / H -> (BK, BP, BH)."""
    p = tl.arange(0, BP)
    at = (row[:, None] * P + p[None, :])[:, :, None] * H + h[None, None, :]
    return at, ok[:, None, None] & (p < P)[None, :, None] & (h < H)[None, None, :]


@triton.jit
def _values(table, row, ok, h, H: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr):
    at, inside = _value_tile(row, ok, h, H, P, BP)
    return tl.load(table + at, inside, 0.0).to(ACC)


@triton.jit
def _moments(table, i, ok, h, H: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, FIRST: tl.constexpr,
             ZERO: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Rows (BK,) of a (N, W, P, H) table -> x, y, z and plain part, each (BK, BP, BH); absent parts are zero."""
    x = tl.zeros((i.shape[0], BP, h.shape[0]), ACC)
    y, z, o = x, x, x
    row = i * (3 * FIRST + ZERO)
    if FIRST:
        x = _values(table, row, ok, h, H, P, BP, ACC)
        y = _values(table, row + 1, ok, h, H, P, BP, ACC)
        z = _values(table, row + 2, ok, h, H, P, BP, ACC)
    if ZERO:
        o = _values(table, row + 3 * FIRST, ok, h, H, P, BP, ACC)
    return x, y, z, o


@triton.jit
def _put_moments(table, i, h, x, y, z, o, H: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, FIRST: tl.constexpr,
                 ZERO: tl.constexpr):  # fmt: skip
    at, inside = _value_tile(i * (3 * FIRST + ZERO), i >= 0, h, H, P, BP)
    if FIRST:
        tl.store(table + at, x, inside)
        tl.store(table + at + P * H, y, inside)
        tl.store(table + at + 2 * P * H, z, inside)
    if ZERO:
        tl.store(table + at + 3 * FIRST * P * H, o, inside)


@triton.jit
def _unit(unit, e, ok, FIRST: tl.constexpr, ACC: tl.constexpr):
    """Components of the edge vectors (BK,), zero where they are not asked for."""
    x = tl.zeros((e.shape[0],), ACC)
    y, z = x, x
    if FIRST:
        x = tl.load(unit + e * 3, ok, 0.0).to(ACC)
        y = tl.load(unit + e * 3 + 1, ok, 0.0).to(ACC)
        z = tl.load(unit + e * 3 + 2, ok, 0.0).to(ACC)
    return x, y, z


@triton.jit
def _slots(source, i, first, n, K, BK: tl.constexpr):
    """Edges (BK,) of target i (1,) from slot ``first`` on, their sources, and which of them exist."""
    slot = first + tl.arange(0, BK)
    e = i * K + slot
    j = tl.load(source + e, slot < n, -1)
    return e, j, j >= 0


@triton.jit
def _add(x, y, z, o, weighted, ux, uy, uz, FIRST: tl.constexpr, ZERO: tl.constexpr):
    """Moments (1, BP, BH) plus sum_k U_w weighted[k], weighted (BK, BP, BH)."""
    if FIRST:
        x += tl.sum(weighted * ux[:, None, None], 0, True)
        y += tl.sum(weighted * uy[:, None, None], 0, True)
        z += tl.sum(weighted * uz[:, None, None], 0, True)
    if ZERO:
        o += tl.sum(weighted, 0, True)
    return x, y, z, o


@triton.jit
def _weight(s, ok, top, inverse, KIND: tl.constexpr):
    """b, db/ds and d2b/ds2 at fixed normaliser, of scores (BK, BH)."""
    if KIND == SOFTMAX:
        b = tl.exp(tl.where(ok[:, None], s, -float("inf")) - top) * inverse
        b1, b2 = b, b
    else:
        z = tl.exp(-tl.abs(s))
        sigmoid = tl.where(s >= 0, 1.0, z) / (1.0 + z)
        slope = z / ((1.0 + z) * (1.0 + z))
        if KIND == SOFTPLUS:
            b, b1, b2 = tl.maximum(s, 0.0) + tl.log(1.0 + z), sigmoid, slope
        else:
            b, b1, b2 = sigmoid, slope, slope * (1.0 - 2.0 * sigmoid)
    return b, b1, b2


@triton.jit
def forward(
    q, k, v, gate, factor, step, unit, source, count, out, top_out, total_out, K,
    SCALE: tl.constexpr, H: tl.constexpr, D: tl.constexpr, P: tl.constexpr, KIND: tl.constexpr, FIRST: tl.constexpr,
    ZERO: tl.constexpr, ACC: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Moments of one target and BH heads, with a running maximum for softmax."""
    i = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    n = tl.load(count + tl.program_id(0))
    qi = _queries(q, i, i >= 0, h, H, D, BD, ACC) * SCALE
    top = tl.full((1, BH), -float("inf"), ACC)
    total = tl.zeros((1, BH), ACC)
    x = tl.zeros((1, BP, BH), ACC)
    y, z, o = x, x, x
    for start in range(0, n, BK):
        e, j, ok = _slots(source, i, start, n, K, BK)
        s = _per_head(gate, e, ok, h, H, ACC) * tl.sum(qi * _queries(k, j, ok, h, H, D, BD, ACC), 2)
        u = tl.load(step + e, ok, 0.0).to(ACC)[:, None]
        if KIND == SOFTMAX:
            s = tl.where(ok[:, None], s, -float("inf"))
            higher = tl.maximum(top, tl.max(s, 0, keep_dims=True))
            base = tl.where(higher > -float("inf"), higher, 0.0)
            fix = tl.exp(top - base)
            b = tl.exp(s - base)
            total = total * fix + tl.sum(b * u, 0, True)
            x, y, z, o = x * fix[:, None, :], y * fix[:, None, :], z * fix[:, None, :], o * fix[:, None, :]
            top = higher
        else:
            b, _b1, _b2 = _weight(s, ok, top, total, KIND)
        alpha = _per_head(factor, e, ok, h, H, ACC) * b * u
        weighted = alpha[:, None, :] * _values(v, j, ok, h, H, P, BP, ACC)
        ux, uy, uz = _unit(unit, e, ok, FIRST, ACC)
        x, y, z, o = _add(x, y, z, o, weighted, ux, uy, uz, FIRST, ZERO)
    if KIND == SOFTMAX:
        inverse = (1.0 / (total + EPS))[:, None, :]
        x, y, z, o = x * inverse, y * inverse, z * inverse, o * inverse
        _put_per_head(top_out, i, i >= 0, h, top, H)
        _put_per_head(total_out, i, i >= 0, h, total, H)
    _put_moments(out, i, h, x, y, z, o, H, P, BP, FIRST, ZERO)


@triton.jit
def _highest(best, ties, slope, s, s_t):
    """Running maximum (1, BH) of scores (BK, BH), how often it occurs, and the sum of s_t over its occurrences."""
    higher = tl.maximum(best, tl.max(s, 0, keep_dims=True))
    at = (s == higher) & (s > -float("inf"))
    kept = tl.where(best == higher, 1.0, 0.0)
    ties = ties * kept + tl.sum(tl.where(at, 1.0, 0.0), 0, True)
    return higher, ties, slope * kept + tl.sum(tl.where(at, s_t, 0.0), 0, True)


@triton.jit
def _finish(
    e, ok, h, dot, dot_t, da, da_t, g, g_t, f, f_t, u, u_t, b, b1, b2, mean, mean_t, shift, tie, tie_t,
    d_gate, d_factor, d_step, pull, pull_t,
    SCALE: tl.constexpr, H: tl.constexpr, TANGENT: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of edges once A = ``mean`` is known; returns pull = ds gate / sqrt(d), its tangent."""
    rest = f * da - mean
    ds = b1 * u * rest - tie
    c = ds * g * SCALE
    c_t = c
    if TANGENT:
        s_t = g_t * dot + g * dot_t
        b_t, b1_t = b1 * s_t - shift * b, b2 * s_t - shift * b1
        rest_t = f_t * da + f * da_t - mean_t
        ds_t = (b1_t * u + b1 * u_t) * rest + b1 * u * rest_t - tie_t
        c_t = (ds_t * g + ds * g_t) * SCALE
        _put_per_head(d_gate, e, ok, h, ds_t * dot + ds * dot_t, H)
        _put_per_head(d_factor, e, ok, h, (b_t * u + b * u_t) * da + b * u * da_t, H)
        tl.store(d_step + e, tl.sum(b_t * rest + b * rest_t, 1), ok)
        _put_per_head(pull_t, e, ok, h, c_t, H)
    else:
        _put_per_head(d_gate, e, ok, h, ds * dot, H)
        _put_per_head(d_factor, e, ok, h, b * u * da, H)
        tl.store(d_step + e, tl.sum(b * rest, 1), ok)
    _put_per_head(pull, e, ok, h, c, H)
    return c, c_t


@triton.jit
def _contract(values, x, y, z, o):
    """t_w = sum over the rows and channels of a head: (BK, BP, BH) with (1, BP, BH) -> four times (BK, BH)."""
    return tl.sum(values * x, 1), tl.sum(values * y, 1), tl.sum(values * z, 1), tl.sum(values * o, 1)


@triton.jit
def backward_target(
    q, k, v, gate, factor, step, unit, source, count, top, total, grad,
    q_t, k_t, v_t, gate_t, factor_t, step_t, unit_t,
    d_q, d_gate, d_factor, d_step, d_unit, alpha, alpha_t, pull, pull_t, kept, kept_t, N, K,
    SCALE: tl.constexpr, H: tl.constexpr, D: tl.constexpr, P: tl.constexpr, KIND: tl.constexpr, FIRST: tl.constexpr,
    ZERO: tl.constexpr, ACC: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr, BP: tl.constexpr,
    TANGENT: tl.constexpr,
):  # fmt: skip
    """All gradients that belong to one target and BH heads; with TANGENT, their derivatives along the direction _t.

    Leaves alpha and pull (N, K, H) for the source pass, and d_step (tiles, N, K), d_unit (tiles, N, K, 3) per tile of
    heads. Softmax needs A before it can finish: until then dot and da lie in ``kept`` (2, N, K, H), their tangents in
    ``kept_t``. They are never overwritten, since a compiler may load a small tile again where it needs it.
    """
    i = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    n = tl.load(count + tl.program_id(0))
    part = tl.program_id(1).to(tl.int64) * N * K
    second = tl.cast(N, tl.int64) * K * H
    qi = _queries(q, i, i >= 0, h, H, D, BD, ACC) * SCALE
    qi_t = qi
    if TANGENT:
        qi_t = _queries(q_t, i, i >= 0, h, H, D, BD, ACC) * SCALE
    zero = tl.zeros((1, BH), ACC)
    mean, mean_t, shift, ties, slope, best, sum_t = zero, zero, zero, zero, zero, zero - float("inf"), zero
    peak, inverse = zero, zero
    if KIND == SOFTMAX:
        peak = _per_head(top, i, i >= 0, h, H, ACC)
        inverse = 1.0 / (_per_head(total, i, i >= 0, h, H, ACC) + EPS)
        if TANGENT:
            for start in range(0, n, BK):
                e, j, ok = _slots(source, i, start, n, K, BK)
                kj, g = _queries(k, j, ok, h, H, D, BD, ACC), _per_head(gate, e, ok, h, H, ACC)
                dot = tl.sum(qi * kj, 2)
                dot_t = tl.sum(qi_t * kj + qi * _queries(k_t, j, ok, h, H, D, BD, ACC), 2)
                s, s_t = g * dot, _per_head(gate_t, e, ok, h, H, ACC) * dot + g * dot_t
                u = tl.load(step + e, ok, 0.0).to(ACC)[:, None]
                u_t = tl.load(step_t + e, ok, 0.0).to(ACC)[:, None]
                s = tl.where(ok[:, None], s, -float("inf"))
                sum_t += tl.sum(tl.exp(s - peak) * (u_t + u * s_t), 0, True)
                best, ties, slope = _highest(best, ties, slope, s, s_t)
            peak_t = slope / tl.maximum(ties, 1.0)
            sum_t = (sum_t - peak_t * _per_head(total, i, i >= 0, h, H, ACC)) * inverse  # total_t / (total + eps)
            shift = peak_t + sum_t
            ties, best = zero, zero - float("inf")
    gx, gy, gz, go = _moments(grad, i, i >= 0, h, H, P, BP, FIRST, ZERO, ACC)
    dq = tl.zeros((1, BH, BD), ACC)
    for start in range(0, n, BK):
        e, j, ok = _slots(source, i, start, n, K, BK)
        kj, vj = _queries(k, j, ok, h, H, D, BD, ACC), _values(v, j, ok, h, H, P, BP, ACC)
        g, f = _per_head(gate, e, ok, h, H, ACC), _per_head(factor, e, ok, h, H, ACC)
        u = tl.load(step + e, ok, 0.0).to(ACC)[:, None]
        ux, uy, uz = _unit(unit, e, ok, FIRST, ACC)
        dot = tl.sum(qi * kj, 2)
        b, b1, b2 = _weight(g * dot, ok, peak, inverse, KIND)
        a = f * b * u
        tx, ty, tz, to = _contract(vj, gx, gy, gz, go)
        da = ux[:, None] * tx + uy[:, None] * ty + uz[:, None] * tz + to
        _put_per_head(alpha, e, ok, h, a, H)
        kj_t, g_t, f_t, u_t, dot_t, da_t = kj, g, f, u, dot, da
        lx, ly, lz = a * tx, a * ty, a * tz
        if TANGENT:
            kj_t, vj_t = _queries(k_t, j, ok, h, H, D, BD, ACC), _values(v_t, j, ok, h, H, P, BP, ACC)
            g_t, f_t = _per_head(gate_t, e, ok, h, H, ACC), _per_head(factor_t, e, ok, h, H, ACC)
            u_t = tl.load(step_t + e, ok, 0.0).to(ACC)[:, None]
            wx, wy, wz = _unit(unit_t, e, ok, FIRST, ACC)
            dot_t = tl.sum(qi_t * kj + qi * kj_t, 2)
            b_t = b1 * (g_t * dot + g * dot_t) - shift * b
            a_t = f_t * b * u + f * (b_t * u + b * u_t)
            rx, ry, rz, ro = _contract(vj_t, gx, gy, gz, go)
            da_t = wx[:, None] * tx + wy[:, None] * ty + wz[:, None] * tz
            da_t += ux[:, None] * rx + uy[:, None] * ry + uz[:, None] * rz + ro
            lx, ly, lz = a_t * tx + a * rx, a_t * ty + a * ry, a_t * tz + a * rz
            _put_per_head(alpha_t, e, ok, h, a_t, H)
        if FIRST:
            tl.store(d_unit + (part + e) * 3, tl.sum(lx, 1), ok)
            tl.store(d_unit + (part + e) * 3 + 1, tl.sum(ly, 1), ok)
            tl.store(d_unit + (part + e) * 3 + 2, tl.sum(lz, 1), ok)
        if KIND == SOFTMAX:
            mean += tl.sum(a * da, 0, True)
            best, ties, slope = _highest(best, ties, slope, tl.where(ok[:, None], g * dot, -float("inf")), da)
            _put_per_head(kept, e, ok, h, dot, H)
            _put_per_head(kept + second, e, ok, h, da, H)
            if TANGENT:
                mean_t += tl.sum(a_t * da + a * da_t, 0, True)
                _put_per_head(kept_t, e, ok, h, dot_t, H)
                _put_per_head(kept_t + second, e, ok, h, da_t, H)
        else:
            c, c_t = _finish(
                e, ok, h, dot, dot_t, da, da_t, g, g_t, f, f_t, u, u_t, b, b1, b2, mean, mean_t, shift, mean, mean_t,
                d_gate, d_factor, d_step + part, pull, pull_t, SCALE, H, TANGENT,
            )  # fmt: skip
            if TANGENT:
                dq += tl.sum(c_t[:, :, None] * kj + c[:, :, None] * kj_t, 0, True)
            else:
                dq += tl.sum(c[:, :, None] * kj, 0, True)
    if KIND == SOFTMAX:
        tl.debug_barrier()  # what the first loop put aside is read by other threads of this program
        share = EPS * inverse / tl.maximum(ties, 1.0)
        for start in range(0, n, BK):
            e, j, ok = _slots(source, i, start, n, K, BK)
            kj = _queries(k, j, ok, h, H, D, BD, ACC)
            g, f = _per_head(gate, e, ok, h, H, ACC), _per_head(factor, e, ok, h, H, ACC)
            u = tl.load(step + e, ok, 0.0).to(ACC)[:, None]
            dot, da = _per_head(kept, e, ok, h, H, ACC), _per_head(kept + second, e, ok, h, H, ACC)
            b, b1, b2 = _weight(g * dot, ok, peak, inverse, KIND)
            at = tl.where(ok[:, None] & (g * dot == best), share, 0.0)
            kj_t, g_t, f_t, u_t, dot_t, da_t = kj, g, f, u, dot, da
            if TANGENT:
                kj_t, g_t = _queries(k_t, j, ok, h, H, D, BD, ACC), _per_head(gate_t, e, ok, h, H, ACC)
                f_t = _per_head(factor_t, e, ok, h, H, ACC)
                u_t = tl.load(step_t + e, ok, 0.0).to(ACC)[:, None]
                dot_t, da_t = _per_head(kept_t, e, ok, h, H, ACC), _per_head(kept_t + second, e, ok, h, H, ACC)
            c, c_t = _finish(
                e, ok, h, dot, dot_t, da, da_t, g, g_t, f, f_t, u, u_t, b, b1, b2, mean, mean_t, shift,
                at * mean, at * (mean_t - mean * sum_t),
                d_gate, d_factor, d_step + part, pull, pull_t, SCALE, H, TANGENT,
            )  # fmt: skip
            if TANGENT:
                dq += tl.sum(c_t[:, :, None] * kj + c[:, :, None] * kj_t, 0, True)
            else:
                dq += tl.sum(c[:, :, None] * kj, 0, True)
    at, inside = _query_tile(i, i >= 0, h, H, D, BD)
    tl.store(d_q + at, dq, inside)


@triton.jit
def backward_source(
    q, unit, grad, alpha, pull, q_t, unit_t, alpha_t, pull_t, pointer, edge, d_k, d_v, K,
    H: tl.constexpr, D: tl.constexpr, P: tl.constexpr, FIRST: tl.constexpr, ZERO: tl.constexpr, ACC: tl.constexpr,
    BK: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr, BP: tl.constexpr, TANGENT: tl.constexpr,
):  # fmt: skip
    """Gradients by key and value of one source and BH heads, over the edges that leave it."""
    j = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    begin, end = tl.load(pointer + tl.program_id(0)), tl.load(pointer + tl.program_id(0) + 1)
    dk = tl.zeros((1, BH, BD), ACC)
    dv = tl.zeros((1, BP, BH), ACC)
    for start in range(begin, end, BK):
        at = start + tl.arange(0, BK)
        ok = at < end
        e = tl.load(edge + at, ok, 0)
        i = e // K
        c, a = _per_head(pull, e, ok, h, H, ACC), _per_head(alpha, e, ok, h, H, ACC)
        qi = _queries(q, i, ok, h, H, D, BD, ACC)
        gx, gy, gz, go = _moments(grad, i, ok, h, H, P, BP, FIRST, ZERO, ACC)
        ux, uy, uz = _unit(unit, e, ok, FIRST, ACC)
        along = ux[:, None, None] * gx + uy[:, None, None] * gy + uz[:, None, None] * gz + go
        if TANGENT:
            c_t, a_t = _per_head(pull_t, e, ok, h, H, ACC), _per_head(alpha_t, e, ok, h, H, ACC)
            wx, wy, wz = _unit(unit_t, e, ok, FIRST, ACC)
            across = wx[:, None, None] * gx + wy[:, None, None] * gy + wz[:, None, None] * gz
            dv += tl.sum(a_t[:, None, :] * along + a[:, None, :] * across, 0, True)
            qi_t = _queries(q_t, i, ok, h, H, D, BD, ACC)
            dk += tl.sum(c_t[:, :, None] * qi + c[:, :, None] * qi_t, 0, True)
        else:
            dv += tl.sum(a[:, None, :] * along, 0, True)
            dk += tl.sum(c[:, :, None] * qi, 0, True)
    at, inside = _query_tile(j, j >= 0, h, H, D, BD)
    tl.store(d_k + at, dk, inside)
    at, inside = _value_tile(j, j >= 0, h, H, P, BP)
    tl.store(d_v + at, dv, inside)


@triton.jit
def tangent_moments(
    v, unit, alpha, v_t, unit_t, alpha_t, source, count, out, K,
    H: tl.constexpr, P: tl.constexpr, FIRST: tl.constexpr, ZERO: tl.constexpr, ACC: tl.constexpr, BK: tl.constexpr,
    BH: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Derivative of the moments along the direction _t: alpha_t U v + alpha U_t v + alpha U v_t, summed over slots."""
    i = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    n = tl.load(count + tl.program_id(0))
    x = tl.zeros((1, BP, BH), ACC)
    y, z, o = x, x, x
    for start in range(0, n, BK):
        e, j, ok = _slots(source, i, start, n, K, BK)
        a, a_t = _per_head(alpha, e, ok, h, H, ACC)[:, None, :], _per_head(alpha_t, e, ok, h, H, ACC)[:, None, :]
        vj, vj_t = _values(v, j, ok, h, H, P, BP, ACC), _values(v_t, j, ok, h, H, P, BP, ACC)
        ux, uy, uz = _unit(unit, e, ok, FIRST, ACC)
        wx, wy, wz = _unit(unit_t, e, ok, FIRST, ACC)
        x, y, z, o = _add(x, y, z, o, a_t * vj + a * vj_t, ux, uy, uz, FIRST, ZERO)
        x, y, z, o = _add(x, y, z, o, a * vj, wx, wy, wz, FIRST, False)
    _put_moments(out, i, h, x, y, z, o, H, P, BP, FIRST, ZERO)
