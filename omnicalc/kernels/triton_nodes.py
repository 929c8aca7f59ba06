"""Triton kernels for what belongs to single atoms between the linear maps: norms, products, gates, their gradients.

Features are (N, rows, C) with rows = (l_max+1)^2, degree l in rows l^2 .. (l+1)^2 - 1. One program does one atom (or
one row of a matrix); every kernel reads its inputs once and writes its outputs once, so memory is its limit. What
linear maps read and write may be stored in 16 bits: it is converted to ACC, the type of all sums, as it is loaded.
Definitions are in :mod:`omnicalc.models.e2former.layers`.
"""

import triton
import triton.language as tl


@triton.jit
def _rows_of(at, c, ok, ROWS: tl.constexpr, BR: tl.constexpr, C: tl.constexpr):
    """Addresses (BR, BC) of the rows of one atom, and which of them exist."""
    row = tl.arange(0, BR)
    return at + row[:, None] * C + c[None, :], (row < ROWS)[:, None] & ok[None, :]


@triton.jit
def _degree(row):
    return tl.where(row == 0, 0, tl.where(row < 4, 1, 2))


@triton.jit
def norm(
    x, more, bias, total, gamma, beta, shift, system, out, scale, weight,
    C: tl.constexpr, ROWS: tl.constexpr, MORE: tl.constexpr, SHIFT: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """RMS norm; ``shift`` (S, C) of the atom's structure is added to the scalars. Keeps (n + 1e-5)^(-1/2).

    With MORE the features are x + more, and ``bias`` (C) in the scalars: written to ``total`` first.
    """
    i = tl.program_id(0).to(tl.int64)
    c, row = tl.arange(0, BC), tl.arange(0, BR)
    at, ok = _rows_of(i * (ROWS * C), c, c < C, ROWS, BR, C)
    value = tl.load(x + at, ok, 0.0)
    if MORE:
        value += tl.load(more + at, ok, 0.0).to(ACC)
        value += tl.where((row == 0)[:, None], tl.load(bias + c, c < C, 0.0)[None, :], 0.0)
        tl.store(total + at, value, ok)
    mean = tl.sum(tl.where((row == 0)[:, None], value, 0.0)) / C
    value = tl.where((row == 0)[:, None] & ok, value - mean, value)
    square = tl.sum(value * value, 1) * tl.load(weight + row, row < ROWS, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(square, 0) + 1e-5)
    factor = tl.load(gamma + _degree(row)[:, None] * C + c[None, :], ok, 0.0)
    add = tl.load(beta + c, c < C, 0.0)
    if SHIFT:
        add += tl.load(shift + tl.load(system + i) * C + c, c < C, 0.0)
    tl.store(out + at, value * inverse * factor + tl.where((row == 0)[:, None], add[None, :], 0.0), ok)
    tl.store(scale + i, inverse)


@triton.jit
def norm_backward(
    x, gamma, scale, weight, grad, d_x, rounded,
    C: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr, ROUNDED: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Gradient by x of the norm, added to ``d_x`` or, without ADD, written there; with ROUNDED also to ``rounded``."""
    i = tl.program_id(0).to(tl.int64)
    c, row = tl.arange(0, BC), tl.arange(0, BR)
    at, ok = _rows_of(i * (ROWS * C), c, c < C, ROWS, BR, C)
    value, g = tl.load(x + at, ok, 0.0), tl.load(grad + at, ok, 0.0).to(ACC)
    mean = tl.sum(tl.where((row == 0)[:, None], value, 0.0)) / C
    value = tl.where((row == 0)[:, None] & ok, value - mean, value)
    inverse = tl.load(scale + i)
    g = g * tl.load(gamma + _degree(row)[:, None] * C + c[None, :], ok, 0.0)
    along = tl.sum(tl.sum(g * value, 1), 0)
    w = tl.load(weight + row, row < ROWS, 0.0)
    d = inverse * g - (inverse * inverse * inverse * along) * w[:, None] * value
    centre = tl.sum(tl.where((row == 0)[:, None], d, 0.0)) / C
    d = tl.where((row == 0)[:, None], d - centre, d)
    if ADD:
        d += tl.load(d_x + at, ok, 0.0)
    tl.store(d_x + at, d, ok)
    if ROUNDED:
        tl.store(rounded + at, d, ok)


@triton.jit
def products(ab, bias, out, N, F: tl.constexpr, DEGREES: tl.constexpr, ACC: tl.constexpr, BF: tl.constexpr):
    """t_l = sum_m a_lm b_lm for queries and keys: (N, rows, 4 F) holding (a, b) of both -> (2, N, degrees, F)."""
    i, which = tl.program_id(0).to(tl.int64), tl.program_id(1)
    f = tl.arange(0, BF)
    ok = f < F
    at = ab + i * (DEGREES * DEGREES * 4 * F) + which * (2 * F) + f
    to = out + (which.to(tl.int64) * N + i) * (DEGREES * F) + f
    a = tl.load(at, ok, 0.0).to(ACC) + tl.load(bias + which * F + f, ok, 0.0)
    tl.store(to, a * tl.load(at + F, ok, 0.0).to(ACC), ok)
    for degree in tl.static_range(1, DEGREES):
        t = tl.zeros((BF,), ACC)
        for m in tl.static_range(2 * degree + 1):
            here = at + (degree * degree + m) * (4 * F)
            t += tl.load(here, ok, 0.0).to(ACC) * tl.load(here + F, ok, 0.0).to(ACC)
        tl.store(to + degree * F, t, ok)


@triton.jit
def products_backward(
    ab, bias, grad, N, F: tl.constexpr, DEGREES: tl.constexpr, ACC: tl.constexpr, BF: tl.constexpr
):  # fmt: skip
    """Puts the gradients by a and b in the place of a and b: d_a = g b, d_b = g a."""
    i, which = tl.program_id(0).to(tl.int64), tl.program_id(1)
    f = tl.program_id(2) * BF + tl.arange(0, BF)
    ok = f < F
    at = ab + i * (DEGREES * DEGREES * 4 * F) + which * (2 * F) + f
    of = grad + (which.to(tl.int64) * N + i) * (DEGREES * F) + f
    g, a, b = (), (), ()
    for degree in tl.static_range(DEGREES):
        g = g + (tl.load(of + degree * F, ok, 0.0).to(ACC),)
    for row in tl.static_range(DEGREES * DEGREES):  # all loads before the first store, which might reach the same place
        a = a + (tl.load(at + row * (4 * F), ok, 0.0).to(ACC),)
        b = b + (tl.load(at + row * (4 * F) + F, ok, 0.0).to(ACC),)
    scalar = a[0] + tl.load(bias + which * F + f, ok, 0.0)
    tl.store(at, g[0] * b[0], ok)
    tl.store(at + F, g[0] * scalar, ok)
    for degree in tl.static_range(1, DEGREES):
        for m in tl.static_range(2 * degree + 1):
            here = at + (degree * degree + m) * (4 * F)
            tl.store(here, g[degree] * b[degree * degree + m], ok)
            tl.store(here + F, g[degree] * a[degree * degree + m], ok)


@triton.jit
def _normalised(x, i, f, F: tl.constexpr, ACC: tl.constexpr):
    """Row i of (.., F) with mean 0 and mean square 1, and what it was multiplied by."""
    value = tl.load(x + i * F + f, f < F, 0.0).to(ACC)
    value = tl.where(f < F, value - tl.sum(value, 0) / F, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(value * value, 0) / F + 1e-5)
    return value * inverse, inverse


@triton.jit
def layernorm_silu(x, gamma, beta, out, N, F: tl.constexpr, ACC: tl.constexpr, BF: tl.constexpr):
    """SiLU(LN(x)) of rows (2, N, F), with one pair of gamma and beta (2, F) for each half."""
    i = tl.program_id(0).to(tl.int64)
    f = tl.arange(0, BF)
    ok = f < F
    which = i // N * F
    value, _inverse = _normalised(x, i, f, F, ACC)
    y = value * tl.load(gamma + which + f, ok, 0.0) + tl.load(beta + which + f, ok, 0.0)
    tl.store(out + i * F + f, y / (1.0 + tl.exp(-y)), ok)


@triton.jit
def layernorm_silu_backward(x, gamma, beta, grad, N, F: tl.constexpr, ACC: tl.constexpr, BF: tl.constexpr):
    """Puts the gradient by x in the place of ``grad``."""
    i = tl.program_id(0).to(tl.int64)
    f = tl.arange(0, BF)
    ok = f < F
    which = i // N * F
    value, inverse = _normalised(x, i, f, F, ACC)
    slope = tl.load(gamma + which + f, ok, 0.0)
    y = value * slope + tl.load(beta + which + f, ok, 0.0)
    sigmoid = 1.0 / (1.0 + tl.exp(-y))
    g = tl.load(grad + i * F + f, ok, 0.0).to(ACC) * sigmoid * (1.0 + y * (1.0 - sigmoid)) * slope
    d = inverse * (g - tl.sum(g, 0) / F - value * (tl.sum(g * value, 0) / F))
    tl.store(grad + i * F + f, d, ok)


@triton.jit
def gated(
    gate, u, out, C: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Row 0: SiLU of the first gate (N, degrees, C); row r of degree l: sigmoid of gate l times row r - 1 of ``u``."""
    i = tl.program_id(0).to(tl.int64)
    c, row = tl.arange(0, BC), tl.arange(0, BR)
    degrees: tl.constexpr = 2 if ROWS == 4 else 3
    at, ok = _rows_of(i * (ROWS * C), c, c < C, ROWS, BR, C)
    g = tl.load(gate + i * (degrees * C) + _degree(row)[:, None] * C + c[None, :], ok, 0.0).to(ACC)
    sigmoid = 1.0 / (1.0 + tl.exp(-g))
    scalar = (row == 0)[:, None]
    value = tl.load(u + i * ((ROWS - 1) * C) + (row - 1)[:, None] * C + c[None, :], ok & (row > 0)[:, None], 0.0)
    tl.store(out + at, sigmoid * tl.where(scalar, g, value.to(ACC)), ok)


@triton.jit
def gated_backward(
    gate, u, grad, C: tl.constexpr, DEGREES: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Puts the gradients by gate and u in their places, from ``grad`` (N, rows, C)."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    ok = c < C
    at_gate, at_u = gate + i * (DEGREES * C) + c, u + i * ((DEGREES * DEGREES - 1) * C) + c
    at = grad + i * (DEGREES * DEGREES * C) + c
    gates, d, value = (), (), ()
    for degree in tl.static_range(DEGREES):
        gates = gates + (tl.load(at_gate + degree * C, ok, 0.0).to(ACC),)
    for row in tl.static_range(DEGREES * DEGREES):
        d = d + (tl.load(at + row * C, ok, 0.0).to(ACC),)
    for row in tl.static_range(DEGREES * DEGREES - 1):
        value = value + (tl.load(at_u + row * C, ok, 0.0).to(ACC),)
    sigmoid = 1.0 / (1.0 + tl.exp(-gates[0]))
    tl.store(at_gate, d[0] * sigmoid * (1.0 + gates[0] * (1.0 - sigmoid)), ok)
    for degree in tl.static_range(1, DEGREES):
        sigmoid = 1.0 / (1.0 + tl.exp(-gates[degree]))
        d_gate = tl.zeros((BC,), ACC)
        for m in tl.static_range(2 * degree + 1):
            d_gate += d[degree * degree + m] * value[degree * degree + m - 1]
            tl.store(at_u + (degree * degree + m - 1) * C, d[degree * degree + m] * sigmoid, ok)
        tl.store(at_gate + degree * C, d_gate * sigmoid * (1.0 - sigmoid), ok)
