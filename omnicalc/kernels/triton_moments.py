"""Triton kernels of E2Former-V2's attention for energies and forces alone, with the radial splines inside.

The same function as :mod:`omnicalc.kernels.triton_attention`, whose symbols are used here, with one more thing known:
gate and factor are cubic splines of the distance (:mod:`omnicalc.kernels.triton_edges`). So they are formed where they
are needed and never exist in memory, and of the gradients by them only their sum with the slopes leaves, dE/dr:

    dE/dr = sum_h (ds dot gate' + p da factor') + du step'

One program does one target, or source, and BH heads, one edge after another, and one thread does one head: values
(P, H) with P = (l_max+1)^2 C/H (channel c is on head c mod H), keys and queries (D, H) are rows of heads, so that loads
are coalesced and nothing but the sums over heads ever crosses threads. What a thread holds of such an array is a tuple,
one entry per row. Sums over heads are left per program, (parts, N, slots), and added up where they are used: with one
warp per program no thread ever waits for another.

The constant coupling to degrees l3, ``T`` (rows out, W, rows), is applied in registers too, to the moments before they
are written and to their gradient after it is read: 20 rows of C at l_max 2 in place of 27.

The derivative of the softmax needs A = sum_e alpha da per head, over all edges, before the first of them is done. As da
is the product of alpha's share of the moments with the gradient by these, A is that of what the forward pass found with
the gradient by it, and one loop over the edges is enough:

    A = sum_e alpha da = sum_rows out d_out

Keys, queries, values, what is found, and the gradients by all of these may be stored in 16 bits, which are converted to
ACC as they are loaded; what is left per edge, of the softmax or of the geometry never is.

Bytes gathered per edge, float32: forward 4 (P + D + 8) H, target-major backward 4 (P + D + 8 + 2) H, source-major
backward 4 (rows out C/H + D + 2) H: 17, 18 and 26 kB at P = 18, D = 8, H = 128, 20 rows out, C/H = 2.
"""

import triton
import triton.language as tl

from omnicalc.kernels.triton_attention import EPS, SOFTMAX, SOFTPLUS
from omnicalc.kernels.triton_edges import spline, spline_pair, spline_slopes, spline_weights


@triton.jit
def _scores(s, KIND: tl.constexpr):
    """Weight and slope of scores that need no normalisation."""
    z = tl.exp(-tl.abs(s))
    sigmoid = tl.where(s >= 0, 1.0, z) / (1.0 + z)
    slope = z / ((1.0 + z) * (1.0 + z))
    if KIND == SOFTPLUS:
        return tl.maximum(s, 0.0) + tl.log(1.0 + z), sigmoid
    return sigmoid, slope


@triton.jit
def _zeros(N: tl.constexpr, BH: tl.constexpr, ACC: tl.constexpr):
    out = ()
    for _p in tl.static_range(N):
        out = out + (tl.zeros((BH,), ACC),)
    return out


@triton.jit
def _load(at, ok, N: tl.constexpr, H: tl.constexpr, ACC: tl.constexpr):
    """N rows of heads that lie one after another."""
    out = ()
    for p in tl.static_range(N):
        out = out + (tl.load(at + p * H, ok, 0.0).to(ACC),)
    return out


@triton.jit
def _store(at, ok, rows, N: tl.constexpr, H: tl.constexpr):
    for p in tl.static_range(N):
        tl.store(at + p * H, rows[p], ok)


@triton.jit
def _scaled(a, x, b, y, N: tl.constexpr):
    """a x + b y, row by row."""
    out = ()
    for p in tl.static_range(N):
        out = out + (a * x[p] + b * y[p],)
    return out


@triton.jit
def _times(a, x, N: tl.constexpr):
    out = ()
    for p in tl.static_range(N):
        out = out + (a * x[p],)
    return out


@triton.jit
def _added(x, a, y, N: tl.constexpr):
    """x + a y, row by row."""
    out = ()
    for p in tl.static_range(N):
        out = out + (x[p] + a * y[p],)
    return out


@triton.jit
def _dot(x, y, N: tl.constexpr):
    out = x[0] * y[0]
    for p in tl.static_range(1, N):
        out += x[p] * y[p]
    return out


@triton.jit
def _edge(source, row, e, there):
    """Source atom and row of the spline tables; asked for one edge early, for that edge's gathers wait for it."""
    return tl.load(source + e, there, 0).to(tl.int64), tl.load(row + e, there, 0).to(tl.int64)


@triton.jit
def _coupled(x, y, z, o, zero, T: tl.constexpr, OUT: tl.constexpr, P: tl.constexpr, CH: tl.constexpr,
             FIRST: tl.constexpr, ZERO: tl.constexpr):  # fmt: skip
    """Moments of the three components and of the plain sum, P rows each -> OUT CH rows."""
    ROWS: tl.constexpr = P // CH
    W: tl.constexpr = 3 * FIRST + ZERO
    out = ()
    for r in tl.static_range(OUT):
        for c in tl.static_range(CH):
            total = zero
            for m in tl.static_range(ROWS):
                if FIRST:
                    if T[r * W * ROWS + m] != 0:
                        total += x[m * CH + c] * T[r * W * ROWS + m]
                    if T[(r * W + 1) * ROWS + m] != 0:
                        total += y[m * CH + c] * T[(r * W + 1) * ROWS + m]
                    if T[(r * W + 2) * ROWS + m] != 0:
                        total += z[m * CH + c] * T[(r * W + 2) * ROWS + m]
                if ZERO and T[(r * W + 3 * FIRST) * ROWS + m] != 0:
                    total += o[m * CH + c] * T[(r * W + 3 * FIRST) * ROWS + m]
            out = out + (total,)
    return out


@triton.jit
def _uncoupled(g, zero, w: tl.constexpr, T: tl.constexpr, W: tl.constexpr, OUT: tl.constexpr, P: tl.constexpr,
               CH: tl.constexpr):  # fmt: skip
    """Gradient by the moments of component w, P rows, from that by what was coupled."""
    ROWS: tl.constexpr = P // CH
    out = ()
    for m in tl.static_range(ROWS):
        for c in tl.static_range(CH):
            total = zero
            for r in tl.static_range(OUT):
                if T[(r * W + w) * ROWS + m] != 0:
                    total += g[r * CH + c] * T[(r * W + w) * ROWS + m]
            out = out + (total,)
    return out


@triton.jit
def attend(
    q, k, v, table, source, count, row, fraction, step, unit, out, top_out, total_out, arg_out, ties_out, slots,
    H: tl.constexpr, D: tl.constexpr, P: tl.constexpr, CH: tl.constexpr, OUT: tl.constexpr, T: tl.constexpr,
    KIND: tl.constexpr, FIRST: tl.constexpr, ZERO: tl.constexpr, ACC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Coupled moments (OUT, C) of one target; for softmax with a running maximum, of which top and total are kept, the
    first slot that reaches it, and how many do."""
    i = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    ok = h < H
    PX: tl.constexpr = P * FIRST
    PO: tl.constexpr = P * ZERO
    qi = _load(q + i * (D * H) + h, ok, D, H, ACC)
    top = tl.full((BH,), -float("inf"), ACC)
    total, ties = tl.zeros((BH,), ACC), tl.zeros((BH,), ACC)
    arg = tl.zeros((BH,), tl.int32)
    x, y, z, o = _zeros(PX, BH, ACC), _zeros(PX, BH, ACC), _zeros(PX, BH, ACC), _zeros(PO, BH, ACC)
    n = tl.load(count + i)
    j, r = _edge(source, row, i * slots, n > 0)
    for slot in range(n):
        e = i * slots + slot
        j_next, r_next = _edge(source, row, e + 1, slot + 1 < n)
        kj = _load(k + j * (D * H) + h, ok, D, H, ACC)
        vj = _load(v + j * (P * H) + h, ok, P, H, ACC)
        w0, w1, w2, w3 = spline_weights(tl.load(fraction + e))
        base = table + r * (2 * H)
        s = spline(base, w0, w1, w2, w3, h, ok, 2 * H, ACC) * _dot(qi, kj, D)
        f = spline(base + H, w0, w1, w2, w3, h, ok, 2 * H, ACC)
        fix = tl.full((BH,), 1.0, ACC)
        if KIND == SOFTMAX:
            arg = tl.where(s > top, slot, arg)
            ties = tl.where(s > top, 1.0, tl.where(s == top, ties + 1.0, ties)).to(ACC)
            higher = tl.maximum(top, s)
            fix = tl.exp(top - higher)
            b = tl.exp(s - higher) * tl.load(step + e)
            total = total * fix + b
            top = higher
        else:
            b, _slope = _scores(s, KIND)
        a = f * b
        if FIRST:
            ux, uy, uz = tl.load(unit + 3 * e), tl.load(unit + 3 * e + 1), tl.load(unit + 3 * e + 2)
            x = _scaled(fix, x, ux * a, vj, P)
            y = _scaled(fix, y, uy * a, vj, P)
            z = _scaled(fix, z, uz * a, vj, P)
        if ZERO:
            o = _scaled(fix, o, a, vj, P)
        j, r = j_next, r_next
    if KIND == SOFTMAX:
        inverse = 1.0 / (total + EPS)
        x, y, z, o = _times(inverse, x, PX), _times(inverse, y, PX), _times(inverse, z, PX), _times(inverse, o, PO)
        tl.store(top_out + i * H + h, top, ok)
        tl.store(total_out + i * H + h, total, ok)
        tl.store(arg_out + i * H + h, arg, ok)
        tl.store(ties_out + i * H + h, ties, ok)
    found = _coupled(x, y, z, o, tl.zeros((BH,), ACC), T, OUT, P, CH, FIRST, ZERO)
    _store(out + i * (OUT * CH * H) + h, ok, found, OUT * CH, H)


@triton.jit
def attend_backward(
    q, k, v, table, source, count, row, fraction, step, step_slope, unit, out, top, total, arg, ties, grad,
    d_q, d_distance, d_unit, alpha, pull, N, slots,
    H: tl.constexpr, D: tl.constexpr, P: tl.constexpr, CH: tl.constexpr, OUT: tl.constexpr, T: tl.constexpr,
    KIND: tl.constexpr, FIRST: tl.constexpr, ZERO: tl.constexpr, ACC: tl.constexpr, BH: tl.constexpr,
    INVERSE: tl.constexpr,
):  # fmt: skip
    """What belongs to one target: dq, and for its edges alpha, pull = ds gate, dE/dr and dE/du (added, per part).

    ``out`` is what ``attend`` found, and of use to softmax alone.
    """
    i = tl.program_id(0).to(tl.int64)
    d_distance += tl.program_id(1).to(tl.int64) * N * slots
    d_unit += tl.program_id(1).to(tl.int64) * N * slots * 3
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    ok = h < H
    qi = _load(q + i * (D * H) + h, ok, D, H, ACC)
    zero = tl.zeros((BH,), ACC)
    W: tl.constexpr = 3 * FIRST + ZERO
    gc = _load(grad + i * (OUT * CH * H) + h, ok, OUT * CH, H, ACC)
    peak, inverse, mean, tied, highest = zero, zero, zero, zero, zero + float("inf")
    if KIND == SOFTMAX:
        mean = _dot(gc, _load(out + i * (OUT * CH * H) + h, ok, OUT * CH, H, ACC), OUT * CH)
    gx, gy, gz, go = (), (), (), ()
    if FIRST:
        gx, gy = _uncoupled(gc, zero, 0, T, W, OUT, P, CH), _uncoupled(gc, zero, 1, T, W, OUT, P, CH)
        gz = _uncoupled(gc, zero, 2, T, W, OUT, P, CH)
    if ZERO:
        go = _uncoupled(gc, zero, 3 * FIRST, T, W, OUT, P, CH)
    first = tl.zeros((BH,), tl.int32)
    if KIND == SOFTMAX:
        peak = tl.load(top + i * H + h, ok, 0.0)
        inverse = 1.0 / (tl.load(total + i * H + h, ok, 1.0) + EPS)
        first = tl.load(arg + i * H + h, ok, 0)
        tied = mean * inverse * EPS / tl.maximum(tl.load(ties + i * H + h, ok, 1.0), 1.0)
    dq = _zeros(D, BH, ACC)
    n = tl.load(count + i)
    j, r = _edge(source, row, i * slots, n > 0)
    for slot in range(n):
        e = i * slots + slot
        j_next, r_next = _edge(source, row, e + 1, slot + 1 < n)
        kj = _load(k + j * (D * H) + h, ok, D, H, ACC)
        vj = _load(v + j * (P * H) + h, ok, P, H, ACC)
        # all loads of an edge come before its stores, behind which its threads would wait for them
        fraction_e, before = tl.load(fraction + e), tl.load(d_distance + e)
        w0, w1, w2, w3 = spline_weights(fraction_e)
        d0, d1, d2, d3 = spline_slopes(fraction_e, INVERSE)
        base = table + r * (2 * H)
        g, g_slope = spline_pair(base, w0, w1, w2, w3, d0, d1, d2, d3, h, ok, 2 * H, ACC)
        f, f_slope = spline_pair(base + H, w0, w1, w2, w3, d0, d1, d2, d3, h, ok, 2 * H, ACC)
        dot = _dot(qi, kj, D)
        da, tx, ty, tz = zero, zero, zero, zero
        if FIRST:
            before_x, before_y = tl.load(d_unit + 3 * e), tl.load(d_unit + 3 * e + 1)
            before_z = tl.load(d_unit + 3 * e + 2)
            ux, uy, uz = tl.load(unit + 3 * e), tl.load(unit + 3 * e + 1), tl.load(unit + 3 * e + 2)
            tx, ty, tz = _dot(vj, gx, P), _dot(vj, gy, P), _dot(vj, gz, P)
            da = ux * tx + uy * ty + uz * tz
        if ZERO:
            da += _dot(vj, go, P)
        s = g * dot
        if KIND == SOFTMAX:
            b = tl.exp(s - peak) * inverse
            p, rest = b * tl.load(step + e), f * da - mean
            highest = tl.where(slot == first, s, highest)  # as rounded here: other kernels may round another way
            ds = p * rest - tl.where(s == highest, tied, 0.0)
            by_r = ds * dot * g_slope + p * da * f_slope + b * rest * tl.load(step_slope + e)
        else:
            p, slope = _scores(s, KIND)
            ds = slope * f * da
            by_r = ds * dot * g_slope + p * da * f_slope
        a = f * p
        dq = _added(dq, ds * g, kj, D)
        tl.store(pull + e * H + h, ds * g, ok)
        tl.store(alpha + e * H + h, a, ok)
        tl.store(d_distance + e, before + tl.sum(by_r, 0))
        if FIRST:
            tl.store(d_unit + 3 * e, before_x + tl.sum(a * tx, 0))
            tl.store(d_unit + 3 * e + 1, before_y + tl.sum(a * ty, 0))
            tl.store(d_unit + 3 * e + 2, before_z + tl.sum(a * tz, 0))
        j, r = j_next, r_next
    _store(d_q + i * (D * H) + h, ok, dq, D, H)


@triton.jit
def attend_backward_source(
    q, unit, grad, alpha, pull, leaving, leaving_count, d_k, d_v, slots,
    H: tl.constexpr, D: tl.constexpr, P: tl.constexpr, CH: tl.constexpr, OUT: tl.constexpr, T: tl.constexpr,
    FIRST: tl.constexpr, ZERO: tl.constexpr, ACC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """dk and dv of one source, over the edges that leave it."""
    j = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    ok = h < H
    W: tl.constexpr = 3 * FIRST + ZERO
    zero = tl.zeros((BH,), ACC)
    dk, dv = _zeros(D, BH, ACC), _zeros(P, BH, ACC)
    n = tl.load(leaving_count + j)
    e = tl.load(leaving + j * slots, n > 0, 0).to(tl.int64)
    for slot in range(n):
        e_next = tl.load(leaving + j * slots + slot + 1, slot + 1 < n, 0).to(tl.int64)
        i = e // slots
        gc = _load(grad + i * (OUT * CH * H) + h, ok, OUT * CH, H, ACC)
        a, c = tl.load(alpha + e * H + h, ok, 0.0), tl.load(pull + e * H + h, ok, 0.0)
        dk = _added(dk, c, _load(q + i * (D * H) + h, ok, D, H, ACC), D)
        if FIRST:
            dv = _added(dv, a * tl.load(unit + 3 * e), _uncoupled(gc, zero, 0, T, W, OUT, P, CH), P)
            dv = _added(dv, a * tl.load(unit + 3 * e + 1), _uncoupled(gc, zero, 1, T, W, OUT, P, CH), P)
            dv = _added(dv, a * tl.load(unit + 3 * e + 2), _uncoupled(gc, zero, 2, T, W, OUT, P, CH), P)
        if ZERO:
            dv = _added(dv, a, _uncoupled(gc, zero, 3 * FIRST, T, W, OUT, P, CH), P)
        e = e_next
    _store(d_k + j * (D * H) + h, ok, dk, D, H)
    _store(d_v + j * (P * H) + h, ok, dv, P, H)
