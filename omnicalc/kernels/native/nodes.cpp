// Small networks that act on each atom alone: values, gradients, and the second derivatives that training on forces takes.
//
// A network is a list of a few kinds of steps between arrays of numbers per atom ("registers"); the list comes from
// omnicalc/kernels/native/nodes.py. Tiles of atoms run through all of it, so that nothing between its ends is ever in
// memory. Derivatives need no tape: first the way there, with tangents along a direction where second derivatives are
// wanted (then every step is one on pairs of a value and its tangent), and the way back from the gradients of both ends.
// Gradients of weights are added up tile by tile, in one thread.
#include <cmath>
#include <vector>

#include "lanes.hpp"
#include "shared_pool.hpp"

namespace {

constexpr int TILE = 8;  // atoms
constexpr int MOST_ROWS = 2 * TILE * 5;
constexpr double EPS = 1e-5;  // of the norms

enum Kind : int64_t { LINEAR, COUPLE, NORM, PRODUCT, SILU, GATE, ADD };

struct Job {
    int64_t atoms, threads, n_registers, n_inputs, n_outputs, n_weights, n_program;
    const int64_t *sizes, *inputs, *outputs, *weight_sizes, *program;
    const double* constants;
    const void* const* weights;
    const void* const* values;  // of the inputs
    const void* const* tangents;  // of the inputs, or null
    const void* const* gradients;  // of the outputs, or of their tangents where there are tangents; or null
    void* const* results;  // outputs, or their tangents; null where only the way back is asked for
    void* const* back;  // gradients of the inputs; or null
    void* const* d_weights;  // zeroed; or null
};

int degree(int row) { return row == 0 ? 0 : row < 4 ? 1 : 2; }

// ------------------------------------------------------------------ products

// y[m][c] (+)= sum_k x[m][k * step] w[k][c] for MR rows and NB vectors, the last of ``last`` lanes.
template <class T, int MR, int NB, bool WHOLE>
void product_block(const T* const* x, int step, T* const* y, const T* w, int k, int width, int c, int last, const T* bias, bool add) {
    Vec<T> acc[MR][NB] = {};
    constexpr int N = Lanes<T>::N;
    for (int i = 0; i < k; ++i) {
        Vec<T> row[NB];
        for (int b = 0; b < NB; ++b) row[b] = b + 1 < NB ? get<true>(w + i * width + c + b * N, N) : get<WHOLE>(w + i * width + c + b * N, last);
        for (int r = 0; r < MR; ++r)
            for (int b = 0; b < NB; ++b) acc[r][b] += x[r][i * step] * row[b];
    }
    for (int r = 0; r < MR; ++r)
        for (int b = 0; b < NB; ++b) {
            T* to = y[r] + c + b * N;
            const auto finish = [&](auto whole, int m) {
                constexpr bool W = decltype(whole)::value;
                Vec<T> v = acc[r][b];
                if (bias) v += get<W>(bias + c + b * N, m);
                if (add) v += get<W>(to, m);
                put<W>(to, v, m);
            };
            if (b + 1 < NB) finish(std::true_type{}, N);
            else finish(std::bool_constant<WHOLE>{}, last);
        }
}

template <class T, int NB, bool WHOLE, int MR = 6>
void product_rows(int rows, const T* const* x, int step, T* const* y, const T* w, int k, int width, int c, int last, const T* bias, bool add) {
    for (; rows >= MR; rows -= MR, x += MR, y += MR) product_block<T, MR, NB, WHOLE>(x, step, y, w, k, width, c, last, bias, add);
    if constexpr (MR > 1)
        if (rows) product_rows<T, NB, WHOLE, MR - 1>(rows, x, step, y, w, k, width, c, last, bias, add);
}

template <class T>
void product(int rows, const T* const* x, int step, T* const* y, const T* w, int k, int width, const T* bias, bool add) {
    constexpr int N = Lanes<T>::N;
    int c = 0;
    for (; c + 2 * N <= width; c += 2 * N) product_rows<T, 2, true>(rows, x, step, y, w, k, width, c, N, bias, add);
    if (c + N <= width) product_rows<T, 1, true>(rows, x, step, y, w, k, width, c, N, bias, add), c += N;
    if (c < width) product_rows<T, 1, false>(rows, x, step, y, w, k, width, c, width - c, bias, add);
}

// d[o][c] += sum_m g[m][o] x[m][c] for MR rows of d and NB vectors.
template <class T, int MR, int NB, bool WHOLE>
void outer_block(int rows, const T* const* g, int o, const T* const* x, T* d, int width, int c, int last) {
    constexpr int N = Lanes<T>::N;
    Vec<T> acc[MR][NB] = {};
    for (int m = 0; m < rows; ++m) {
        Vec<T> row[NB];
        for (int b = 0; b < NB; ++b) row[b] = b + 1 < NB ? get<true>(x[m] + c + b * N, N) : get<WHOLE>(x[m] + c + b * N, last);
        for (int r = 0; r < MR; ++r)
            for (int b = 0; b < NB; ++b) acc[r][b] += g[m][o + r] * row[b];
    }
    for (int r = 0; r < MR; ++r)
        for (int b = 0; b < NB; ++b) {
            T* to = d + (o + r) * width + c + b * N;
            if (b + 1 < NB) put<true>(to, get<true>(to, N) + acc[r][b], N);
            else put<WHOLE>(to, get<WHOLE>(to, last) + acc[r][b], last);
        }
}

template <class T, int NB, bool WHOLE, int MR = 6>
void outer_rows(int rows, const T* const* g, int o, int end, const T* const* x, T* d, int width, int c, int last) {
    for (; o + MR <= end; o += MR) outer_block<T, MR, NB, WHOLE>(rows, g, o, x, d, width, c, last);
    if constexpr (MR > 1)
        if (o < end) outer_rows<T, NB, WHOLE, MR - 1>(rows, g, o, end, x, d, width, c, last);
}

template <class T>
void outer(int rows, const T* const* g, int n, const T* const* x, T* d, int width) {
    constexpr int N = Lanes<T>::N;
    int c = 0;
    for (; c + 2 * N <= width; c += 2 * N) outer_rows<T, 2, true>(rows, g, 0, n, x, d, width, c, N);
    if (c + N <= width) outer_rows<T, 1, true>(rows, g, 0, n, x, d, width, c, N), c += N;
    if (c < width) outer_rows<T, 1, false>(rows, g, 0, n, x, d, width, c, width - c);
}

// ------------------------------------------------------------------ the steps

template <class T>
class Network {
    using V = Vec<T>;
    static constexpr int N = Lanes<T>::N;

public:
    // The transposes that products on the way there read.
    explicit Network(const Job& job) : j(job), transposed_(job.n_weights) {
        for (const int64_t* p = j.program; p < j.program + j.n_program; p += 1 + p[0]) {
            if (p[1] != LINEAR) continue;
            const int64_t weight = p[4], offset = p[5], in = p[6], out = p[7];
            auto& to = transposed_[weight];
            to.resize(j.weight_sizes[weight]);
            const T* w = weights(weight) + offset;
            for (int o = 0; o < out; ++o)
                for (int i = 0; i < in; ++i) to[offset + i * out + o] = w[o * in + i];
        }
    }

    struct Tile {
        std::vector<T> numbers;
        std::vector<T*> value, tangent, gradient, gradient_t;  // of each register; gradient_t is that of the tangent
    };

    void run(int64_t first, int n, Tile& tile) const {
        set(tile);
        const bool dual = j.tangents, back = j.gradients;
        for (int i = 0; i < j.n_inputs; ++i) {
            copy_in(j.values[i], first, n, j.inputs[i], tile.value);
            if (dual) copy_in(j.tangents[i], first, n, j.inputs[i], tile.tangent);
        }
        for (const int64_t* p = j.program; p < j.program + j.n_program; p += 1 + p[0]) forward(p + 1, n, tile, dual);
        for (int i = 0; i < j.n_outputs && j.results; ++i)
            copy_out((dual ? tile.tangent : tile.value)[j.outputs[i]], j.results[i], first, n, j.outputs[i]);
        if (!back) return;
        for (int i = 0; i < j.n_outputs; ++i)
            copy_in(j.gradients[i], first, n, j.outputs[i], dual ? tile.gradient_t : tile.gradient);
        std::vector<const int64_t*> steps;
        for (const int64_t* p = j.program; p < j.program + j.n_program; p += 1 + p[0]) steps.push_back(p + 1);
        for (size_t s = steps.size(); s-- > 0;) backward(steps[s], n, tile, dual);
        for (int i = 0; i < j.n_inputs; ++i) copy_out(tile.gradient[j.inputs[i]], j.back[i], first, n, j.inputs[i]);
    }

private:
    const T* weights(int64_t i) const { return static_cast<const T*>(j.weights[i]); }
    T* d_weights(int64_t i) const { return j.d_weights ? static_cast<T*>(j.d_weights[i]) : nullptr; }

    void set(Tile& t) const {
        int64_t size = 0;
        for (int r = 0; r < j.n_registers; ++r) size += (j.sizes[r] * TILE + N - 1) / N * N;
        t.numbers.resize(4 * size);
        T* at = t.numbers.data();
        for (auto* registers : {&t.value, &t.tangent, &t.gradient, &t.gradient_t}) {
            registers->resize(j.n_registers);
            for (int r = 0; r < j.n_registers; ++r) (*registers)[r] = at, at += (j.sizes[r] * TILE + N - 1) / N * N;
        }
        if (j.gradients) std::fill_n(t.gradient[0], (j.tangents ? 2 : 1) * size, T(0));  // what adds up on the way back
    }
    void copy_in(const void* from, int64_t first, int n, int64_t r, const std::vector<T*>& to) const {
        std::copy_n(static_cast<const T*>(from) + first * j.sizes[r], n * j.sizes[r], to[r]);
    }
    void copy_out(const T* from, void* to, int64_t first, int n, int64_t r) const {
        std::copy_n(from, n * j.sizes[r], static_cast<T*>(to) + first * j.sizes[r]);
    }

    void forward(const int64_t* p, int n, Tile& t, bool dual) const {
        switch (p[0]) {
            case LINEAR: return linear(p, n, t, dual);
            case COUPLE: return couple(p, n, t, dual);
            case NORM: return norm(p, n, t, dual);
            case PRODUCT: return products(p, n, t, dual);
            case SILU: return silu(p, n, t, dual);
            case GATE: return gate(p, n, t, dual);
            case ADD: return add(p, n, t, dual);
        }
    }
    void backward(const int64_t* p, int n, Tile& t, bool dual) const {
        switch (p[0]) {
            case LINEAR: return linear_back(p, n, t, dual);
            case COUPLE: return couple_back(p, n, t, dual);
            case NORM: return norm_back(p, n, t, dual);
            case PRODUCT: return products_back(p, n, t, dual);
            case SILU: return silu_back(p, n, t, dual);
            case GATE: return gate_back(p, n, t, dual);
            case ADD: return add_back(p, n, t, dual);
        }
    }

    // Calls body(at, whole, lanes) for the vectors of n numbers.
    template <class Body>
    static void each_vector(int n, const Body& body) {
        int at = 0;
        for (; at + N <= n; at += N) body(at, std::true_type{}, N);
        if (at < n) body(at, std::false_type{}, n - at);
    }

    // For steps that add to what they make.
    void clear(int64_t r, int n, Tile& t, bool dual) const {
        std::fill_n(t.value[r], n * j.sizes[r], T(0));
        if (dual) std::fill_n(t.tangent[r], n * j.sizes[r], T(0));
    }

    // ---- LINEAR: from, to, weight, offset, in, out, rows, from offset, from stride, to offset, to stride, bias or -1

    // Addresses of the rows of a register, of values and then of tangents; returns how many.
    int rows_of(const std::vector<T*>& value, const std::vector<T*>& tangent, int64_t r, int n, int64_t rows, int64_t offset, int64_t stride, bool dual, T** found) const {
        int count = 0;
        for (int part = 0; part <= dual; ++part)
            for (int a = 0; a < n; ++a)
                for (int64_t k = 0; k < rows; ++k)
                    found[count++] = (part ? tangent : value)[r] + a * j.sizes[r] + offset + k * stride;
        return count;
    }

    void linear(const int64_t* p, int n, Tile& t, bool dual) const {
        T *x[MOST_ROWS], *y[MOST_ROWS];
        const int count = rows_of(t.value, t.tangent, p[1], n, p[7], p[8], p[9], dual, x);
        rows_of(t.value, t.tangent, p[2], n, p[7], p[10], p[11], dual, y);
        const T *w = transposed_[p[3]].data() + p[4], *bias = p[12] < 0 ? nullptr : weights(p[12]);
        const int values = dual ? count / 2 : count;  // a bias has no tangent
        product<T>(values, x, 1, y, w, p[5], p[6], bias, false);
        if (dual) product<T>(values, x + values, 1, y + values, w, p[5], p[6], nullptr, false);
    }

    void linear_back(const int64_t* p, int n, Tile& t, bool dual) const {
        T *x[MOST_ROWS], *g[MOST_ROWS], *d[MOST_ROWS];
        const int count = rows_of(t.gradient, t.gradient_t, p[2], n, p[7], p[10], p[11], dual, g);
        rows_of(t.gradient, t.gradient_t, p[1], n, p[7], p[8], p[9], dual, d);
        product<T>(count, g, 1, d, weights(p[3]) + p[4], p[6], p[5], nullptr, true);
        T* to = d_weights(p[3]);
        if (!to) return;
        rows_of(t.value, t.tangent, p[1], n, p[7], p[8], p[9], dual, x);
        outer<T>(count, g, p[6], x, to + p[4], p[5]);
        if (p[12] < 0) return;
        T* bias = d_weights(p[12]);
        for (int r = 0, values = dual ? count / 2 : count; r < values; ++r)
            for (int c = 0; c < p[6]; ++c) bias[c] += g[r][c];
    }

    // ---- COUPLE: from, to, width, entries, then (row of to, row of from, constant) of each

    void couple_rows(const int64_t* p, int n, const T* x, T* y, int64_t size_x, int64_t size_y, bool back) const {
        for (int a = 0; a < n; ++a, x += size_x, y += size_y)
            for (const int64_t *e = p + 5, *end = e + 3 * p[4]; e < end; e += 3) {
                const T weight = j.constants[e[2]];
                const T* from = x + e[back ? 0 : 1] * p[3];
                T* to = y + e[back ? 1 : 0] * p[3];
                each_vector(p[3], [&](int c, auto whole, int m) {
                    constexpr bool W = decltype(whole)::value;
                    put<W>(to + c, get<W>(to + c, m) + weight * get<W>(from + c, m), m);
                });
            }
    }
    void couple(const int64_t* p, int n, Tile& t, bool dual) const {
        clear(p[2], n, t, dual);
        couple_rows(p, n, t.value[p[1]], t.value[p[2]], j.sizes[p[1]], j.sizes[p[2]], false);
        if (dual) couple_rows(p, n, t.tangent[p[1]], t.tangent[p[2]], j.sizes[p[1]], j.sizes[p[2]], false);
    }
    void couple_back(const int64_t* p, int n, Tile& t, bool dual) const {
        couple_rows(p, n, t.gradient[p[2]], t.gradient[p[1]], j.sizes[p[2]], j.sizes[p[1]], true);
        if (dual) couple_rows(p, n, t.gradient_t[p[2]], t.gradient_t[p[1]], j.sizes[p[2]], j.sizes[p[1]], true);
    }

    // ---- NORM: from, to, rows, width, gamma, beta, first constant, added register or -1
    // y = c s gamma + beta (row 0) with c = x centred in row 0 and s = (n + eps)^-1/2, n = sum_rows weight c^2.

    struct Centred {
        std::vector<T> numbers;
        const T *c, *c_t;
        T s, s_t, n_t;
    };

    static void centre(const T* x, int width, T* y) {
        T mean = 0;
        for (int c = 0; c < width; ++c) mean += x[c];
        mean /= width;
        for (int c = 0; c < width; ++c) y[c] = x[c] - mean;
    }

    Centred centred(const int64_t* p, const T* x, const T* x_t, bool dual) const {
        const int rows = p[3], width = p[4], size = rows * width;
        Centred f;
        f.numbers.resize(2 * size);
        T *c = f.numbers.data(), *c_t = c + size;
        std::copy_n(x, size, c), std::copy_n(x_t, size, c_t);
        centre(x, width, c), centre(x_t, width, c_t);
        T n = 0, n_t = 0;
        for (int r = 0; r < rows; ++r) {
            const T weight = j.constants[p[7] + r];
            V sum = {}, sum_t = {};
            each_vector(width, [&](int at, auto whole, int m) {
                constexpr bool W = decltype(whole)::value;
                const V y = get<W>(c + r * width + at, m);
                sum += y * y;
                if (dual) sum_t += y * get<W>(c_t + r * width + at, m);
            });
            for (int i = 0; i < N; ++i) n += weight * sum[i], n_t += 2 * weight * sum_t[i];
        }
        f.c = c, f.c_t = c_t, f.n_t = n_t, f.s = 1 / std::sqrt(n + T(EPS)), f.s_t = T(-0.5) * f.s * f.s * f.s * n_t;
        return f;
    }

    void norm(const int64_t* p, int n, Tile& t, bool dual) const {
        const int rows = p[3], width = p[4], size = rows * width;
        const T *gamma = weights(p[5]), *beta = weights(p[6]);
        for (int a = 0; a < n; ++a) {
            const Centred f = centred(p, t.value[p[1]] + a * size, t.tangent[p[1]] + a * size, dual);
            T *y = t.value[p[2]] + a * size, *y_t = t.tangent[p[2]] + a * size;
            for (int r = 0; r < rows; ++r)
                for (int c = 0; c < width; ++c) {
                    const int at = r * width + c;
                    const T scale = gamma[degree(r) * width + c];
                    y[at] = f.c[at] * f.s * scale;
                    if (dual) y_t[at] = (f.c_t[at] * f.s + f.c[at] * f.s_t) * scale;
                }
            for (int c = 0; c < width; ++c) y[c] += beta[c];
            if (p[8] < 0) continue;
            const T *s = t.value[p[8]] + a * width, *s_t = t.tangent[p[8]] + a * width;
            for (int c = 0; c < width; ++c) y[c] += s[c], y_t[c] += s_t[c];
        }
    }

    void norm_back(const int64_t* p, int n, Tile& t, bool dual) const {
        const int rows = p[3], width = p[4], size = rows * width;
        const T* gamma = weights(p[5]);
        T *d_gamma = d_weights(p[5]), *d_beta = d_weights(p[6]);
        std::vector<T> scratch(2 * size);
        T *d = scratch.data(), *d_t = d + size;
        for (int a = 0; a < n; ++a) {
            const Centred f = centred(p, t.value[p[1]] + a * size, t.tangent[p[1]] + a * size, dual);
            const T *g = t.gradient[p[2]] + a * size, *g_t = t.gradient_t[p[2]] + a * size;
            T s = 0, s_t = 0;  // gradients of f.s and f.s_t
            for (int r = 0; r < rows; ++r) {
                V sum = {}, sum_t = {};
                each_vector(width, [&](int at, auto whole, int m) {
                    constexpr bool W = decltype(whole)::value;
                    const int from = r * width + at;
                    const V scale = get<W>(gamma + degree(r) * width + at, m), c = get<W>(f.c + from, m);
                    const V y = get<W>(g + from, m);
                    V u = y * scale, of_gamma = y * c * f.s;
                    sum += u * c;
                    if (dual) {
                        const V y_t = get<W>(g_t + from, m), c_t = get<W>(f.c_t + from, m), v = y_t * scale;
                        of_gamma += y_t * (c_t * f.s + c * f.s_t), sum += v * c_t, sum_t += v * c;
                        u = u * f.s + v * f.s_t;
                        put<W>(d_t + from, v * f.s, m);
                    } else {
                        u *= f.s;
                    }
                    put<W>(d + from, u, m);
                    if (d_gamma) {
                        T* to = d_gamma + degree(r) * width + at;
                        put<W>(to, get<W>(to, m) + of_gamma, m);
                    }
                });
                for (int i = 0; i < N; ++i) s += sum[i], s_t += sum_t[i];
            }
            if (d_beta)
                for (int c = 0; c < width; ++c) d_beta[c] += g[c];
            s += s_t * T(-1.5) * f.s * f.s * f.n_t;
            const T cube = T(-0.5) * f.s * f.s * f.s, of_n = s * cube, of_n_t = s_t * cube;
            for (int r = 0; r < rows; ++r) {
                const T weight = 2 * j.constants[p[7] + r], here = weight * of_n, there = weight * of_n_t;
                for (int c = 0; c < width; ++c) {
                    const int at = r * width + c;
                    d[at] += here * f.c[at];
                    if (dual) d[at] += there * f.c_t[at], d_t[at] += there * f.c[at];
                }
            }
            centre(d, width, d);
            if (dual) centre(d_t, width, d_t);
            T *to = t.gradient[p[1]] + a * size, *to_t = t.gradient_t[p[1]] + a * size;
            for (int at = 0; at < size; ++at) to[at] += d[at];
            if (dual)
                for (int at = 0; at < size; ++at) to_t[at] += d_t[at];
            if (p[8] < 0) continue;
            T *q = t.gradient[p[8]] + a * width, *q_t = t.gradient_t[p[8]] + a * width;
            for (int c = 0; c < width; ++c) q[c] += g[c], q_t[c] += g_t[c];
        }
    }

    // ---- PRODUCT: from, to, rows, stride, width, first offset, second offset
    // to[l] = sum of first[m] second[m] over the rows m of degree l.

    template <class Body>
    void each_product(const int64_t* p, int n, const Body& body) const {
        for (int a = 0; a < n; ++a)
            for (int r = 0; r < p[3]; ++r)
                each_vector(p[5], [&](int c, auto whole, int m) {
                    const int64_t from = a * j.sizes[p[1]] + r * p[4] + c;
                    body(from + p[6], from + p[7], a * j.sizes[p[2]] + degree(r) * p[5] + c, whole, m);
                });
    }
    void products(const int64_t* p, int n, Tile& t, bool dual) const {
        const T *x = t.value[p[1]], *x_t = t.tangent[p[1]];
        T *y = t.value[p[2]], *y_t = t.tangent[p[2]];
        clear(p[2], n, t, dual);
        each_product(p, n, [&](int64_t first, int64_t second, int64_t to, auto whole, int m) {
            constexpr bool W = decltype(whole)::value;
            const V u = get<W>(x + first, m), v = get<W>(x + second, m);
            put<W>(y + to, get<W>(y + to, m) + u * v, m);
            if (dual) put<W>(y_t + to, get<W>(y_t + to, m) + get<W>(x_t + first, m) * v + u * get<W>(x_t + second, m), m);
        });
    }
    void products_back(const int64_t* p, int n, Tile& t, bool dual) const {
        const T *x = t.value[p[1]], *x_t = t.tangent[p[1]], *g = t.gradient[p[2]], *g_t = t.gradient_t[p[2]];
        T *d = t.gradient[p[1]], *d_t = t.gradient_t[p[1]];
        each_product(p, n, [&](int64_t first, int64_t second, int64_t to, auto whole, int m) {
            constexpr bool W = decltype(whole)::value;
            const V u = get<W>(x + first, m), v = get<W>(x + second, m), y = get<W>(g + to, m);
            V du = y * v, dv = y * u;
            if (dual) {
                const V y_t = get<W>(g_t + to, m);
                du += y_t * get<W>(x_t + second, m), dv += y_t * get<W>(x_t + first, m);
                put<W>(d_t + first, get<W>(d_t + first, m) + y_t * v, m);
                put<W>(d_t + second, get<W>(d_t + second, m) + y_t * u, m);
            }
            put<W>(d + first, get<W>(d + first, m) + du, m);
            put<W>(d + second, get<W>(d + second, m) + dv, m);
        });
    }

    // ---- SILU: from, to

    void silu(const int64_t* p, int n, Tile& t, bool dual) const {
        each_vector(n * j.sizes[p[1]], [&](int at, auto whole, int m) {
            constexpr bool W = decltype(whole)::value;
            const V x = get<W>(t.value[p[1]] + at, m);
            const Sigmoid<T> f(x);
            put<W>(t.value[p[2]] + at, x * f.value, m);
            if (dual) put<W>(t.tangent[p[2]] + at, (f.value + x * f.slope) * get<W>(t.tangent[p[1]] + at, m), m);
        });
    }
    void silu_back(const int64_t* p, int n, Tile& t, bool dual) const {
        each_vector(n * j.sizes[p[1]], [&](int at, auto whole, int m) {
            constexpr bool W = decltype(whole)::value;
            const V x = get<W>(t.value[p[1]] + at, m);
            const Sigmoid<T> f(x);
            const V slope = f.value + x * f.slope;
            V d = get<W>(t.gradient[p[2]] + at, m) * slope;
            if (dual) {
                const V g_t = get<W>(t.gradient_t[p[2]] + at, m);
                d += g_t * (2 * f.slope + x * f.curvature) * get<W>(t.tangent[p[1]] + at, m);
                T* to = t.gradient_t[p[1]] + at;
                put<W>(to, get<W>(to, m) + g_t * slope, m);
            }
            T* to = t.gradient[p[1]] + at;
            put<W>(to, get<W>(to, m) + d, m);
        });
    }

    // ---- GATE: features, gates (degrees, width), to, rows, width, constant
    // to[0] = k0 silu(gate[0]); to[m] = k1 sigmoid(gate[l]) features[m] for the rows m of degree l > 0.

    template <class Body>
    void each_gate(const int64_t* p, int n, const Body& body) const {
        const int rows = p[4], width = p[5];
        for (int a = 0; a < n; ++a)
            for (int l = 0; l * l < rows; ++l)
                each_vector(width, [&](int c, auto whole, int m) {
                    body(l, a * j.sizes[p[2]] + l * width + c, a * j.sizes[p[1]] + c, width, whole, m);
                });
    }
    void gate(const int64_t* p, int n, Tile& t, bool dual) const {
        const T k0 = j.constants[p[6]], k1 = j.constants[p[6] + 1];
        const T *x = t.value[p[1]], *x_t = t.tangent[p[1]];
        T *y = t.value[p[3]], *y_t = t.tangent[p[3]];
        each_gate(p, n, [&](int l, int64_t at, int64_t row, int width, auto whole, int m) {
            constexpr bool W = decltype(whole)::value;
            const V g = get<W>(t.value[p[2]] + at, m), g_t = get<W>(t.tangent[p[2]] + at, m);
            const Sigmoid<T> f(g);
            if (l == 0) {
                put<W>(y + row, k0 * g * f.value, m);
                if (dual) put<W>(y_t + row, k0 * (f.value + g * f.slope) * g_t, m);
                return;
            }
            for (int64_t r = row + l * l * width; r < row + (l + 1) * (l + 1) * width; r += width) {
                const V v = get<W>(x + r, m);
                put<W>(y + r, k1 * f.value * v, m);
                if (dual) put<W>(y_t + r, k1 * (f.slope * g_t * v + f.value * get<W>(x_t + r, m)), m);
            }
        });
    }
    void gate_back(const int64_t* p, int n, Tile& t, bool dual) const {
        const T k0 = j.constants[p[6]], k1 = j.constants[p[6] + 1];
        const T *x = t.value[p[1]], *x_t = t.tangent[p[1]], *d = t.gradient[p[3]], *d_t = t.gradient_t[p[3]];
        each_gate(p, n, [&](int l, int64_t at, int64_t row, int width, auto whole, int m) {
            constexpr bool W = decltype(whole)::value;
            const V g = get<W>(t.value[p[2]] + at, m), g_t = get<W>(t.tangent[p[2]] + at, m);
            const Sigmoid<T> f(g);
            V to_gate = {}, to_gate_t = {};
            if (l == 0) {
                const V slope = f.value + g * f.slope, y = k0 * get<W>(d + row, m);
                to_gate = y * slope;
                if (dual) {
                    const V y_t = k0 * get<W>(d_t + row, m);
                    to_gate += y_t * (2 * f.slope + g * f.curvature) * g_t, to_gate_t = y_t * slope;
                }
            } else {
                for (int64_t r = row + l * l * width; r < row + (l + 1) * (l + 1) * width; r += width) {
                    const V v = get<W>(x + r, m), y = k1 * get<W>(d + r, m);
                    V to_v = y * f.value;
                    to_gate += y * f.slope * v;
                    if (dual) {
                        const V y_t = k1 * get<W>(d_t + r, m), v_t = get<W>(x_t + r, m);
                        to_v += y_t * f.slope * g_t;
                        to_gate += y_t * (f.curvature * g_t * v + f.slope * v_t), to_gate_t += y_t * f.slope * v;
                        T* to = t.gradient_t[p[1]] + r;
                        put<W>(to, get<W>(to, m) + y_t * f.value, m);
                    }
                    T* to = t.gradient[p[1]] + r;
                    put<W>(to, get<W>(to, m) + to_v, m);
                }
            }
            T *to = t.gradient[p[2]] + at, *to_t = t.gradient_t[p[2]] + at;
            put<W>(to, get<W>(to, m) + to_gate, m);
            if (dual) put<W>(to_t, get<W>(to_t, m) + to_gate_t, m);
        });
    }

    // ---- ADD: first, second, to

    void add(const int64_t* p, int n, Tile& t, bool dual) const {
        for (int part = 0; part <= dual; ++part) {
            auto& x = part ? t.tangent : t.value;
            for (int64_t at = 0; at < n * j.sizes[p[3]]; ++at) x[p[3]][at] = x[p[1]][at] + x[p[2]][at];
        }
    }
    void add_back(const int64_t* p, int n, Tile& t, bool dual) const {
        for (int part = 0; part <= dual; ++part) {
            auto& g = part ? t.gradient_t : t.gradient;
            for (int64_t at = 0; at < n * j.sizes[p[3]]; ++at) g[p[1]][at] += g[p[3]][at];
            for (int64_t at = 0; at < n * j.sizes[p[3]]; ++at) g[p[2]][at] += g[p[3]][at];
        }
    }

    const Job& j;
    std::vector<std::vector<T>> transposed_;
};

template <class T>
void run(const Job& job) {
    const int threads = job.d_weights ? 1 : std::max<int64_t>(1, job.threads);
    const Network<T> network(job);
    std::vector<typename Network<T>::Tile> tiles(threads);
    SharedPool::run((job.atoms + TILE - 1) / TILE, threads, [&](int64_t tile, int thread) {
        const int64_t first = tile * TILE;
        network.run(first, std::min<int64_t>(TILE, job.atoms - first), tiles[thread]);
    });
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Hash of the sources this was built from.
EXPORT const char* omnicalc_source() { return OMNICALC_SOURCE; }

// wide: float64. Returns 1 when memory was not to be had, else 0.
EXPORT int omnicalc_nodes(const Job* job, int wide) {
    try {
        if (wide) run<double>(*job);
        else run<float>(*job);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
