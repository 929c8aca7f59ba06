"""Triton kernels for what belongs to edges alone: which are near enough, their geometry, and forces from gradients.

A list with a skin, (N, slots) sources with -1 for padding, is searched now and then. At every step ``near_edges``
keeps what is within the cutoff now, packed to the left of (N, slots) arrays, ``leaving_edges`` finds the same edges by
source, and ``edge_forces`` turns dE/dr and dE/du (u the unit vector) into forces and virials. No atomics, no sorting,
and nothing that waits for the host, so a whole step can be recorded as one CUDA graph.

Numbers that geometry is made with (cutoff, widths) are compile-time constants: as arguments they would be rounded to
float32. The radial splines are cubic B-splines on a uniform grid: in cell t, at x in [0, 1) of its width, a function is
w_0 P_t + .. + w_3 P_(t+3). ``near_edges`` leaves x and the row of P_t in a table of all element pairs.
"""

import triton
import triton.language as tl

POLY5: tl.constexpr = tl.constexpr(5)
R3: tl.constexpr = tl.constexpr(3**0.5)  # norms of the harmonics
R5: tl.constexpr = tl.constexpr(5**0.5)
R15: tl.constexpr = tl.constexpr(15**0.5)


@triton.jit
def near_edges(
    x, kind, skin_source, skin_offset, source, place, count, unit, distance, step, step_slope, row, fraction, squares,
    slots, n_kinds, points,
    CUTOFF: tl.constexpr, SPACING: tl.constexpr, CAP: tl.constexpr, ENVELOPE: tl.constexpr, ACC: tl.constexpr,
    BS: tl.constexpr,
):  # fmt: skip
    """Edges of one target that are shorter than the cutoff, at most the CAP nearest of them unless CAP is 0.

    ``place`` (N, slots): where each one of the list went, or -1. ``squares`` (N, slots) float64: scratch for CAP. All
    geometry is in float64 until it is stored.
    """
    i = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, BS)
    at = i * slots + slot
    j = tl.load(skin_source + at, slot < slots, -1).to(tl.int64)
    ok = j >= 0
    dx = tl.load(x + 3 * i) - tl.load(x + 3 * j, ok, 0.0) - tl.load(skin_offset + 3 * at, ok, 0.0)
    dy = tl.load(x + 3 * i + 1) - tl.load(x + 3 * j + 1, ok, 0.0) - tl.load(skin_offset + 3 * at + 1, ok, 0.0)
    dz = tl.load(x + 3 * i + 2) - tl.load(x + 3 * j + 2, ok, 0.0) - tl.load(skin_offset + 3 * at + 2, ok, 0.0)
    square = dx * dx + dy * dy + dz * dz
    ok = ok & (square - CUTOFF * CUTOFF < 0.0)  # a constant that is compared with would be rounded to float32
    if CAP > 0:
        square = tl.where(ok, square, float("inf"))
        tl.store(squares + at, square, slot < slots)
        tl.debug_barrier()  # every thread reads what all have stored
        nearer = tl.zeros((BS,), tl.int32)
        for other in range(slots):
            d = tl.load(squares + i * slots + other)
            nearer += ((d < square) | ((d == square) & (other < slot))).to(tl.int32)
        ok = ok & (nearer < CAP)
    packed = tl.cumsum(ok.to(tl.int32), 0) - 1
    tl.store(place + at, tl.where(ok, packed, -1), slot < slots)
    tl.store(count + i, tl.sum(ok.to(tl.int32), 0))
    e = i * slots + packed
    r = tl.sqrt(tl.where(ok, square, 1.0))
    tl.store(source + e, j.to(tl.int32), ok)
    tl.store(unit + 3 * e, (dx / r).to(ACC), ok)
    tl.store(unit + 3 * e + 1, (dy / r).to(ACC), ok)
    tl.store(unit + 3 * e + 2, (dz / r).to(ACC), ok)
    tl.store(distance + e, r.to(ACC), ok)
    y = r / CUTOFF
    z = 1.0 - y
    if ENVELOPE == POLY5:
        u = 1.0 - y * y * y * (10.0 - y * (15.0 - 6.0 * y))
        du = -30.0 * y * y * z * z / CUTOFF
    else:
        y4 = y * y * y * y
        u = 1.0 - y4 * y * (21.0 - y * (35.0 - 15.0 * y))
        du = -105.0 * y4 * z * z / CUTOFF
    tl.store(step + e, u.to(ACC), ok)
    tl.store(step_slope + e, du.to(ACC), ok)
    cell = tl.minimum((r / SPACING).to(tl.int32), points - 4)
    pair = tl.load(kind + i) * n_kinds + tl.load(kind + j, ok, 0)
    tl.store(row + e, pair * points + cell, ok)
    tl.store(fraction + e, (r / SPACING - cell).to(ACC), ok)


@triton.jit
def leaving_edges(skin_source, reverse, place, leaving, leaving_count, slots, BS: tl.constexpr):
    """Numbers i * slots + slot of the edges whose source is atom j; ``reverse`` (N, slots): slot in the other's row."""
    j = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, BS)
    at = j * slots + slot
    i = tl.load(skin_source + at, slot < slots, -1).to(tl.int64)
    other = tl.load(reverse + at, i >= 0, 0)
    p = tl.load(place + i * slots + other, i >= 0, -1)
    ok = (i >= 0) & (p >= 0)
    packed = tl.cumsum(ok.to(tl.int32), 0) - 1
    tl.store(leaving + j * slots + packed, (i * slots + p).to(tl.int32), ok)
    tl.store(leaving_count + j, tl.sum(ok.to(tl.int32), 0))


@triton.jit
def _pull(unit, distance, d_distance, d_unit, e, ok, every, PARTS: tl.constexpr):
    """dE/d(edge vector), three components in float64: dE/dr u + (dE/du - u (u . dE/du)) / r, of all parts together."""
    ux = tl.load(unit + 3 * e, ok, 0.0).to(tl.float64)
    uy = tl.load(unit + 3 * e + 1, ok, 0.0).to(tl.float64)
    uz = tl.load(unit + 3 * e + 2, ok, 0.0).to(tl.float64)
    gx = tl.zeros(ux.shape, tl.float64)
    gy, gz, by_r = gx, gx, gx
    for _part in tl.static_range(PARTS):
        gx += tl.load(d_unit + 3 * e, ok, 0.0).to(tl.float64)
        gy += tl.load(d_unit + 3 * e + 1, ok, 0.0).to(tl.float64)
        gz += tl.load(d_unit + 3 * e + 2, ok, 0.0).to(tl.float64)
        by_r += tl.load(d_distance + e, ok, 0.0).to(tl.float64)
        d_unit += 3 * every
        d_distance += every
    r = tl.load(distance + e, ok, 1.0).to(tl.float64)
    along = by_r - (ux * gx + uy * gy + uz * gz) / r
    return r, ux, uy, uz, gx / r + along * ux, gy / r + along * uy, gz / r + along * uz


@triton.jit
def edge_forces(
    unit, distance, count, leaving, leaving_count, d_distance, d_unit, forces, virial, N, slots,
    PARTS: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Force (N, 3) and virial (N, 3, 3), sum of vector times gradient over the edges, of one atom; both float64."""
    i = tl.program_id(0).to(tl.int64)
    every = tl.cast(N, tl.int64) * slots  # slots of all atoms: what lies between two parts
    slot = tl.arange(0, BS)
    ok = slot < tl.load(count + i)
    r, ux, uy, uz, gx, gy, gz = _pull(unit, distance, d_distance, d_unit, i * slots + slot, ok, every, PARTS)
    tl.store(virial + 9 * i, tl.sum(r * ux * gx, 0))
    tl.store(virial + 9 * i + 1, tl.sum(r * ux * gy, 0))
    tl.store(virial + 9 * i + 2, tl.sum(r * ux * gz, 0))
    tl.store(virial + 9 * i + 3, tl.sum(r * uy * gx, 0))
    tl.store(virial + 9 * i + 4, tl.sum(r * uy * gy, 0))
    tl.store(virial + 9 * i + 5, tl.sum(r * uy * gz, 0))
    tl.store(virial + 9 * i + 6, tl.sum(r * uz * gx, 0))
    tl.store(virial + 9 * i + 7, tl.sum(r * uz * gy, 0))
    tl.store(virial + 9 * i + 8, tl.sum(r * uz * gz, 0))
    ok = slot < tl.load(leaving_count + i)
    e = tl.load(leaving + i * slots + slot, ok, 0).to(tl.int64)
    _r, _ux, _uy, _uz, hx, hy, hz = _pull(unit, distance, d_distance, d_unit, e, ok, every, PARTS)
    tl.store(forces + 3 * i, tl.sum(hx, 0) - tl.sum(gx, 0))
    tl.store(forces + 3 * i + 1, tl.sum(hy, 0) - tl.sum(gy, 0))
    tl.store(forces + 3 * i + 2, tl.sum(hz, 0) - tl.sum(gz, 0))


@triton.jit
def spline_weights(x):
    """Values of the four cubic B-splines at fraction x of a cell."""
    z = 1.0 - x
    return (
        z * z * z / 6.0,
        (3.0 * x * x * x - 6.0 * x * x + 4.0) / 6.0,
        (3.0 * z * z * z - 6.0 * z * z + 4.0) / 6.0,
        x * x * x / 6.0,
    )


@triton.jit
def spline_slopes(x, INVERSE: tl.constexpr):
    """Their derivatives by the distance; ``INVERSE`` of a cell's width."""
    z = 1.0 - x
    return (
        z * z * (-0.5 * INVERSE),
        (1.5 * x * x - 2.0 * x) * INVERSE,
        (2.0 * z - 1.5 * z * z) * INVERSE,
        x * x * (0.5 * INVERSE),
    )


@triton.jit
def spline(table, w0, w1, w2, w3, column, ok, WIDTH: tl.constexpr, ACC: tl.constexpr):
    """Value at the columns of a table (rows, WIDTH) that begins at the row of the cell."""
    value = w0 * tl.load(table + column, ok, 0.0).to(ACC)
    value += w1 * tl.load(table + WIDTH + column, ok, 0.0).to(ACC)
    value += w2 * tl.load(table + 2 * WIDTH + column, ok, 0.0).to(ACC)
    return value + w3 * tl.load(table + 3 * WIDTH + column, ok, 0.0).to(ACC)


@triton.jit
def spline_pair(table, w0, w1, w2, w3, d0, d1, d2, d3, column, ok, WIDTH: tl.constexpr, ACC: tl.constexpr):
    """Value and slope."""
    p = tl.load(table + column, ok, 0.0).to(ACC)
    value, slope = w0 * p, d0 * p
    p = tl.load(table + WIDTH + column, ok, 0.0).to(ACC)
    value, slope = value + w1 * p, slope + d1 * p
    p = tl.load(table + 2 * WIDTH + column, ok, 0.0).to(ACC)
    value, slope = value + w2 * p, slope + d2 * p
    p = tl.load(table + 3 * WIDTH + column, ok, 0.0).to(ACC)
    return value + w3 * p, slope + d3 * p


@triton.jit
def _harmonics2(x, y, z):
    """The five components of degree 2, with those of :mod:`omnicalc.models.e2former.angular`."""
    return x * z * R15, x * y * R15, (y * y - 0.5 * (x * x + z * z)) * R5, y * z * R15, 0.5 * (z * z - x * x) * R15


@triton.jit
def embed(
    table, count, unit, row, fraction, out, slots,
    C: tl.constexpr, TWO: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """First features of one atom, (1 + 3 (+ 5), C): sum over edges of harmonics times radial splines."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    ok = c < C
    WIDTH: tl.constexpr = C * (2 + TWO)
    s = tl.zeros((BC,), ACC)
    a, b, d, t0, t1, t2, t3, t4 = s, s, s, s, s, s, s, s
    for k in range(tl.load(count + i)):
        e = i * slots + k
        w0, w1, w2, w3 = spline_weights(tl.load(fraction + e))
        base = table + tl.load(row + e).to(tl.int64) * WIDTH
        x, y, z = tl.load(unit + 3 * e), tl.load(unit + 3 * e + 1), tl.load(unit + 3 * e + 2)
        s += spline(base, w0, w1, w2, w3, c, ok, WIDTH, ACC)
        radial = spline(base, w0, w1, w2, w3, c + C, ok, WIDTH, ACC) * R3
        a, b, d = a + x * radial, b + y * radial, d + z * radial
        if TWO:
            radial = spline(base, w0, w1, w2, w3, c + 2 * C, ok, WIDTH, ACC)
            h0, h1, h2, h3, h4 = _harmonics2(x, y, z)
            t0, t1, t2, t3, t4 = (
                t0 + h0 * radial, t1 + h1 * radial, t2 + h2 * radial, t3 + h3 * radial, t4 + h4 * radial,
            )  # fmt: skip
    to = out + i * ((4 + 5 * TWO) * C) + c
    tl.store(to, s, ok)
    tl.store(to + C, a, ok)
    tl.store(to + 2 * C, b, ok)
    tl.store(to + 3 * C, d, ok)
    if TWO:
        tl.store(to + 4 * C, t0, ok)
        tl.store(to + 5 * C, t1, ok)
        tl.store(to + 6 * C, t2, ok)
        tl.store(to + 7 * C, t3, ok)
        tl.store(to + 8 * C, t4, ok)


@triton.jit
def embed_backward(
    table, count, unit, row, fraction, grad, d_distance, d_unit, N, slots,
    INVERSE: tl.constexpr, C: tl.constexpr, TWO: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Adds what the first features' gradient (N, rows, C) gives by distances and unit vectors, per part of channels."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    d_distance += tl.program_id(1).to(tl.int64) * N * slots
    d_unit += tl.program_id(1).to(tl.int64) * N * slots * 3
    ok = c < C
    WIDTH: tl.constexpr = C * (2 + TWO)
    at = grad + i * ((4 + 5 * TWO) * C) + c
    g = tl.load(at, ok, 0.0).to(ACC)
    gx, gy, gz = tl.load(at + C, ok, 0.0) * R3, tl.load(at + 2 * C, ok, 0.0) * R3, tl.load(at + 3 * C, ok, 0.0) * R3
    q0, q1, q2, q3, q4 = g, g, g, g, g
    if TWO:
        q0, q1, q2 = tl.load(at + 4 * C, ok, 0.0), tl.load(at + 5 * C, ok, 0.0), tl.load(at + 6 * C, ok, 0.0)
        q3, q4 = tl.load(at + 7 * C, ok, 0.0), tl.load(at + 8 * C, ok, 0.0)
    for k in range(tl.load(count + i)):
        e = i * slots + k
        fraction_e = tl.load(fraction + e)
        w0, w1, w2, w3 = spline_weights(fraction_e)
        d0, d1, d2, d3 = spline_slopes(fraction_e, INVERSE)
        base = table + tl.load(row + e).to(tl.int64) * WIDTH
        x, y, z = tl.load(unit + 3 * e), tl.load(unit + 3 * e + 1), tl.load(unit + 3 * e + 2)
        _value, slope = spline_pair(base, w0, w1, w2, w3, d0, d1, d2, d3, c, ok, WIDTH, ACC)
        by_r = g * slope
        radial, slope = spline_pair(base, w0, w1, w2, w3, d0, d1, d2, d3, c + C, ok, WIDTH, ACC)
        by_r += (x * gx + y * gy + z * gz) * slope
        by_x, by_y, by_z = gx * radial, gy * radial, gz * radial
        if TWO:
            radial, slope = spline_pair(base, w0, w1, w2, w3, d0, d1, d2, d3, c + 2 * C, ok, WIDTH, ACC)
            h0, h1, h2, h3, h4 = _harmonics2(x, y, z)
            by_r += (h0 * q0 + h1 * q1 + h2 * q2 + h3 * q3 + h4 * q4) * slope
            by_x += ((z * q0 + y * q1 - x * q4) * R15 - x * q2 * R5) * radial
            by_y += ((x * q1 + z * q3) * R15 + 2.0 * y * q2 * R5) * radial
            by_z += ((x * q0 + y * q3 + z * q4) * R15 - z * q2 * R5) * radial
        tl.store(d_distance + e, tl.load(d_distance + e) + tl.sum(by_r, 0))
        tl.store(d_unit + 3 * e, tl.load(d_unit + 3 * e) + tl.sum(by_x, 0))
        tl.store(d_unit + 3 * e + 1, tl.load(d_unit + 3 * e + 1) + tl.sum(by_y, 0))
        tl.store(d_unit + 3 * e + 2, tl.load(d_unit + 3 * e + 2) + tl.sum(by_z, 0))
