// Attention of E2Former-V2 with its first and second derivatives, for training and for plain torch on a CPU.
//
// The formulas are those at the head of omnicalc/kernels/triton_attention.py, and so are the passes: one by target for
// the moments, one by target and one by source for the gradients, and with directions (suffix _t) the tangents of
// these. An atom's numbers are written by one piece of work alone, in the order of its edges, so that results do not
// depend on the number of threads. Only edges that exist are visited, and no channel-wide quantity of an edge is ever
// in memory but for its weights.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lanes.hpp"
#include "shared_pool.hpp"

namespace {

constexpr double SOFTMAX_EPS = 1e-3;  // added to the softmax denominator
constexpr int SOFTMAX = 0, SOFTPLUS = 1;

// What a call is given; arrays are contiguous unless said otherwise. Mirrored by omnicalc/kernels/native/attention.py.
struct Job {
    int64_t atoms, heads, d, rows, channels;
    int64_t kind, first, zero, threads;
    int64_t gate_stride, factor_stride;  // from edge to edge
    const void *q, *k, *v;  // (N, H, d) twice, (N, rows, C)
    const void *gate, *factor, *step, *unit;  // (., H) twice, (.), (., 3): by the number of an edge
    const void *q_t, *k_t, *v_t, *gate_t, *factor_t, *step_t, *unit_t;  // directions, or null; all contiguous
    const int64_t *begin, *number, *source, *target;  // by target: (N + 1), then number of the edge and its two atoms
    const int64_t *leaving, *edge;  // by source: (N + 1), places in the lists above
    const void* grad;  // (N, W, rows, C)
    void* out;  // the same
    void *d_q, *d_k, *d_v, *d_gate, *d_factor, *d_step, *d_unit;  // zeroed where edges do not exist
    void *alpha, *alpha_t, *pull, *pull_t;  // (E, H), by place: passed from pass to pass
};

// log(1 + t) for 0 <= t <= 1, with the inverse of 1 + t: 2 artanh(t / (2 + t)), whose series needs seven terms.
static inline Vec<float> log1p_lanes(Vec<float> t, Vec<float> inverse) {
    const vf z = t / (2.0f + t), z2 = z * z;
    vf series = splat(1.0f / 13);
    for (float n : {11.0f, 9.0f, 7.0f, 5.0f, 3.0f, 1.0f}) series = series * z2 + 1.0f / n;
    (void)inverse;
    return 2.0f * z * series;
}
static inline Vec<double> log1p_lanes(Vec<double> t, Vec<double>) {
    for (int i = 0; i < Lanes<double>::N; ++i) t[i] = std::log1p(t[i]);
    return t;
}

template <class T>
class Attention {
    using V = Vec<T>;
    static constexpr int N = Lanes<T>::N;

    struct Array : std::vector<T> {
        T* sized(size_t n) {
            if (this->size() < n) this->resize(n);
            return this->data();
        }
    };

public:
    explicit Attention(const Job& job)
        : j(job), H(job.heads), D(job.d), C(job.channels), R(job.rows), RC(R * C), padded((C + N - 1) / N * N),
          W(3 * job.first + job.zero), scale(1 / std::sqrt((T)D)) {}

    template <class Each>
    void forward(const Each& each) {
        swap(j.q, q_), swap(j.k, k_);
        each([&](int i, Scratch& s) { moments(i, s); });
    }

    template <class Each>
    void backward(const Each& each) {
        swap(j.q, q_), swap(j.k, k_);
        if (j.q_t) swap(j.q_t, qt_), swap(j.k_t, kt_);
        each([&](int i, Scratch& s) { by_target(i, s); });
        each([&](int i, Scratch& s) { by_source(i, s); });
    }

    template <class Each>
    void tangent(const Each& each) {
        each([&](int i, Scratch& s) { tangent_moments(i, s); });
    }

    struct Scratch {
        Array coefficient, lanes, contracted, other, folded, head;
        std::vector<int64_t> atom;
    };

private:
    const T* in(const void* p) const { return static_cast<const T*>(p); }
    T* to(void* p) const { return static_cast<T*>(p); }

    // (N, H, d) -> (N, d, H), so that heads lie side by side.
    void swap(const void* from, Array& into) const {
        T* y = into.sized(j.atoms * H * D);
        const T* x = in(from);
        for (int64_t i = 0; i < j.atoms; ++i, x += H * D, y += H * D)
            for (int h = 0; h < H; ++h)
                for (int d = 0; d < D; ++d) y[d * H + h] = x[h * D + d];
    }
    void put_swapped(const T* x, void* into, int64_t i) const {
        T* y = to(into) + i * H * D;
        for (int h = 0; h < H; ++h)
            for (int d = 0; d < D; ++d) y[h * D + d] = x[d * H + h];
    }

    // -------------------------------------------------------------- the three contractions of one atom's edges

    // Calls block(c, lanes) for the vectors of a row of channels.
    template <class Block>
    void each_vector(const Block& block) const {
        int c = 0;
        for (; c + N <= C; c += N) block(c, std::true_type{}, N);
        if (c < C) block(c, std::false_type{}, C - c);
    }

    // out[w][row] (+)= sum_e coefficient[e][w] value[atom[e]][row], G rows from ``at`` on.
    template <int WIDTH, int G, bool WHOLE>
    void gather_rows(const T* value, const int64_t* atom, int n, const T* weight, int at, int m, T* out, bool add) const {
        V acc[G][WIDTH] = {};
        for (int e = 0; e < n; ++e, weight += WIDTH * padded) {
            const T* x = value + atom[e] * RC + at;
            V p[WIDTH];
            for (int w = 0; w < WIDTH; ++w) p[w] = get<true>(weight + w * padded, N);
            for (int g = 0; g < G; ++g) {
                const V row = get<WHOLE>(x + g * C, m);
                for (int w = 0; w < WIDTH; ++w) acc[g][w] += p[w] * row;
            }
        }
        for (int w = 0; w < WIDTH; ++w)
            for (int g = 0; g < G; ++g) {
                T* y = out + w * RC + at + g * C;
                put<WHOLE>(y, add ? get<WHOLE>(y, m) + acc[g][w] : acc[g][w], m);
            }
    }
    template <int WIDTH>
    void gather(const void* value, const int64_t* atom, int n, const T* weight, T* out, bool add) const {
        each_vector([&](int c, auto whole, int m) {
            constexpr bool WHOLE = decltype(whole)::value;
            int r = 0;
            for (; r + 3 <= R; r += 3) gather_rows<WIDTH, 3, WHOLE>(in(value), atom, n, weight + c, r * C + c, m, out, add);
            for (; r < R; ++r) gather_rows<WIDTH, 1, WHOLE>(in(value), atom, n, weight + c, r * C + c, m, out, add);
        });
    }

    // out[row] = sum_e sum_w coefficient[e][w] moments[atom[e]][w][row].
    template <int WIDTH, int G, bool WHOLE>
    void spread_rows(const T* moments, const int64_t* atom, int n, const T* weight, int at, int m, T* out) const {
        V acc[G] = {};
        for (int e = 0; e < n; ++e, weight += WIDTH * padded) {
            const T* x = moments + atom[e] * WIDTH * RC + at;
            for (int w = 0; w < WIDTH; ++w) {
                const V p = get<true>(weight + w * padded, N);
                for (int g = 0; g < G; ++g) acc[g] += p * get<WHOLE>(x + w * RC + g * C, m);
            }
        }
        for (int g = 0; g < G; ++g) put<WHOLE>(out + at + g * C, acc[g], m);
    }
    template <int WIDTH>
    void spread(const void* moments, const int64_t* atom, int n, const T* weight, T* out) const {
        each_vector([&](int c, auto whole, int m) {
            constexpr bool WHOLE = decltype(whole)::value;
            int r = 0;
            for (; r + 9 <= R; r += 9) spread_rows<WIDTH, 9, WHOLE>(in(moments), atom, n, weight + c, r * C + c, m, out);
            for (; r + 2 <= R; r += 2) spread_rows<WIDTH, 2, WHOLE>(in(moments), atom, n, weight + c, r * C + c, m, out);
            for (; r < R; ++r) spread_rows<WIDTH, 1, WHOLE>(in(moments), atom, n, weight + c, r * C + c, m, out);
        });
    }

    // out[e][w][h] = sum over rows and the channels of a head of value[atom[e]] moments[w].
    template <int WIDTH>
    void contract(const void* value, const int64_t* atom, int n, const T* moments, Scratch& s, T* out) const {
        T* sum = s.folded.sized(WIDTH * padded);
        std::fill_n(out, n * WIDTH * H, T(0));
        for (int e = 0; e < n; ++e, out += WIDTH * H) {
            const T* x = in(value) + atom[e] * RC;
            each_vector([&](int c, auto whole, int m) {
                constexpr bool WHOLE = decltype(whole)::value;
                V acc[WIDTH] = {};
                for (int r = 0; r < R; ++r) {
                    const V row = get<WHOLE>(x + r * C + c, m);
                    for (int w = 0; w < WIDTH; ++w) acc[w] += row * get<WHOLE>(moments + w * RC + r * C + c, m);
                }
                for (int w = 0; w < WIDTH; ++w) put<true>(sum + w * padded + c, acc[w], N);
            });
            for (int w = 0; w < WIDTH; ++w)
                for (int c = 0; c < C; c += H)
                    for (int h = 0; h < H; ++h) out[w * H + h] += sum[w * padded + c + h];
        }
    }

    template <class Body>
    void with_width(const Body& body) const {
        if (W == 4) body(std::integral_constant<int, 4>{});
        else if (W == 3) body(std::integral_constant<int, 3>{});
        else body(std::integral_constant<int, 1>{});
    }

    // Component w of an edge's vector; past the vector, the 1 of the plain sum, whose tangent is 0.
    T component(const T* unit, int64_t edge, int w) const { return j.first && w < 3 ? unit[3 * edge + w] : T(1); }
    T component_t(const T* unit, int64_t edge, int w) const { return j.first && w < 3 ? unit[3 * edge + w] : T(0); }

    // coefficient[w][c] = a[h(c)] U_w + b[h(c)] Y_w, with h(c) = c mod H; b may be null.
    void weigh(const T* a, const T* b, int64_t edge, const T* unit, const T* unit_t, T* coefficient) const {
        for (int w = 0; w < W; ++w, coefficient += padded) {
            const T x = component(unit, edge, w), y = b ? component_t(unit_t, edge, w) : T(0);
            for (int h = 0; h < H; ++h) coefficient[h] = b ? a[h] * x + b[h] * y : a[h] * x;
            for (int c = H; c < C; c += H)
                for (int h = 0; h < H; ++h) coefficient[c + h] = coefficient[h];
            for (int c = C; c < padded; ++c) coefficient[c] = 0;
        }
    }

    // -------------------------------------------------------------- numbers per edge and head

    // Scores and weights of the edges of one target; every array holds n * H numbers, padded to whole vectors.
    struct Edges {
        int n;
        int64_t first;
        T *dot, *gate, *factor, *u, *b, *b1, *b2, *alpha;
        T *dot_t, *gate_t, *factor_t, *u_t, *alpha_t;
        T *mean, *mean_t, *shift, *tie, *tie_t;  // the same for all edges of a head; zero without softmax
        T *da, *da_t, *pull, *pull_t, *d_gate, *d_factor, *d_step;
    };

    Edges edges_of(int64_t i, Scratch& s) const {
        Edges e;
        e.first = j.begin[i], e.n = j.begin[i + 1] - e.first;
        const size_t size = (e.n * H + N - 1) / N * N;
        T** all[] = {&e.dot, &e.gate, &e.factor, &e.u, &e.b, &e.b1, &e.b2, &e.alpha, &e.dot_t, &e.gate_t, &e.factor_t,
                     &e.u_t, &e.alpha_t, &e.mean, &e.mean_t, &e.shift, &e.tie, &e.tie_t, &e.da, &e.da_t, &e.pull,
                     &e.pull_t, &e.d_gate, &e.d_factor, &e.d_step};
        T* at = s.lanes.sized(size * std::size(all));
        std::fill_n(at, size * std::size(all), T(0));
        for (T** array : all) *array = at, at += size;
        s.atom.assign(j.source + e.first, j.source + e.first + e.n);
        return e;
    }

    static void dot_heads(const T* q, const T* k, T scale, int H, int D, T* out) {
        for (int d = 0; d < D; ++d)
            for (int h = 0; h < H; ++h) out[h] += scale * q[d * H + h] * k[d * H + h];
    }

    void load(const Edges& e, int64_t i, bool with_tangent) const {
        const T *gate = in(j.gate), *factor = in(j.factor), *step = in(j.step);
        for (int a = 0; a < e.n; ++a) {
            const int64_t edge = j.number[e.first + a], to = j.source[e.first + a];
            const int at = a * H;
            std::copy_n(gate + edge * j.gate_stride, H, e.gate + at);
            std::copy_n(factor + edge * j.factor_stride, H, e.factor + at);
            std::fill_n(e.u + at, H, step[edge]);
            dot_heads(q_.data() + i * H * D, k_.data() + to * H * D, scale, H, D, e.dot + at);
            if (!with_tangent) continue;
            std::copy_n(in(j.gate_t) + edge * H, H, e.gate_t + at);
            std::copy_n(in(j.factor_t) + edge * H, H, e.factor_t + at);
            std::fill_n(e.u_t + at, H, in(j.step_t)[edge]);
            dot_heads(qt_.data() + i * H * D, k_.data() + to * H * D, scale, H, D, e.dot_t + at);
            dot_heads(q_.data() + i * H * D, kt_.data() + to * H * D, scale, H, D, e.dot_t + at);
        }
    }

    // b, b1, b2 and alpha, vector by vector; softmax fills mean's place with top and tie's with the inverse first.
    void weights(const Edges& e, Scratch& s) const {
        if (j.kind == SOFTMAX) return softmax_weights(e, s);
        for (int x = 0; x < e.n * H; x += N) {
            const V score = get<true>(e.gate + x, N) * get<true>(e.dot + x, N);
            const Sigmoid<T> f(score);
            V b = f.value, b1 = f.slope, b2 = f.curvature;
            if (j.kind == SOFTPLUS) {
                b = (score > 0 ? score : V{}) + log1p_lanes(f.small, f.inverse);
                b1 = f.value, b2 = f.slope;
            }
            put<true>(e.b + x, b, N), put<true>(e.b1 + x, b1, N), put<true>(e.b2 + x, b2, N);
            put<true>(e.alpha + x, get<true>(e.factor + x, N) * b * get<true>(e.u + x, N), N);
        }
    }

    // Per head: top and 1 / (total + eps), in s.head.
    void softmax_weights(const Edges& e, Scratch& s) const {
        T *top = s.head.sized(4 * H), *inverse = top + H;
        std::fill_n(top, H, -std::numeric_limits<T>::infinity());
        for (int a = 0; a < e.n; ++a)
            for (int h = 0; h < H; ++h) top[h] = std::max(top[h], e.gate[a * H + h] * e.dot[a * H + h]);
        for (int a = 0; a < e.n; ++a)
            for (int h = 0; h < H; ++h) e.b[a * H + h] = e.gate[a * H + h] * e.dot[a * H + h] - top[h];
        for (int x = 0; x < e.n * H; x += N) {
            V b = get<true>(e.b + x, N);
            exp_lanes(b);
            put<true>(e.b + x, b, N);
        }
        std::fill_n(inverse, H, T(0));
        for (int a = 0; a < e.n; ++a)
            for (int h = 0; h < H; ++h) inverse[h] += e.b[a * H + h] * e.u[a * H + h];
        for (int h = 0; h < H; ++h) inverse[h] = 1 / (inverse[h] + T(SOFTMAX_EPS));
        for (int a = 0; a < e.n; ++a)
            for (int h = 0; h < H; ++h) {
                const int at = a * H + h;
                e.b[at] *= inverse[h], e.b1[at] = e.b2[at] = e.b[at], e.alpha[at] = e.factor[at] * e.b[at] * e.u[at];
            }
    }

    bool highest(const Edges& e, const T* top, int at, int h) const { return e.gate[at] * e.dot[at] == top[h]; }

    // shift, that is top_t + total_t / (total + eps); leaves the second term per head in s.head + 3 H.
    void softmax_shift(const Edges& e, Scratch& s) const {
        T *top = s.head.data(), *shift = top + 2 * H, *sum_t = top + 3 * H;
        for (int h = 0; h < H; ++h) {
            T ties = 0, slope = 0, sum = 0, total = 0;  // sums are divided by total + eps already, as b is
            for (int a = 0; a < e.n; ++a) {
                const int at = a * H + h;
                const T s_t = e.gate_t[at] * e.dot[at] + e.gate[at] * e.dot_t[at];
                if (highest(e, top, at, h)) ++ties, slope += s_t;
                sum += e.b[at] * (e.u_t[at] + e.u[at] * s_t), total += e.b[at] * e.u[at];
            }
            const T top_t = slope / std::max(ties, T(1));
            sum_t[h] = sum - top_t * total, shift[h] = top_t + sum_t[h];
        }
        for (int a = 0; a < e.n; ++a) std::copy_n(shift, H, e.shift + a * H);
    }

    // A and tie with their tangents, once da and alpha are known.
    void softmax_means(const Edges& e, Scratch& s, bool with_tangent) const {
        const T *top = s.head.data(), *inverse = top + H, *sum_t = top + 3 * H;
        for (int h = 0; h < H; ++h) {
            T mean = 0, mean_t = 0, ties = 0;
            for (int a = 0; a < e.n; ++a) {
                const int at = a * H + h;
                mean += e.alpha[at] * e.da[at], mean_t += e.alpha_t[at] * e.da[at] + e.alpha[at] * e.da_t[at];
                ties += highest(e, top, at, h);
            }
            const T share = T(SOFTMAX_EPS) * inverse[h] / std::max(ties, T(1));
            for (int a = 0; a < e.n; ++a) {
                const int at = a * H + h;
                e.mean[at] = mean, e.mean_t[at] = mean_t;
                if (!highest(e, top, at, h)) continue;
                e.tie[at] = share * mean;
                if (with_tangent) e.tie_t[at] = share * (mean_t - mean * sum_t[h]);
            }
        }
    }

    // -------------------------------------------------------------- passes

    void moments(int64_t i, Scratch& s) const {
        const Edges e = edges_of(i, s);
        load(e, i, false);
        weights(e, s);
        T* coefficient = s.coefficient.sized(e.n * W * padded);
        for (int a = 0; a < e.n; ++a)
            weigh(e.alpha + a * H, nullptr, j.number[e.first + a], in(j.unit), nullptr, coefficient + a * W * padded);
        T* out = to(j.out) + i * W * RC;
        with_width([&](auto w) { gather<w()>(j.v, s.atom.data(), e.n, coefficient, out, false); });
    }

    // alpha_t U v + alpha U_t v + alpha U v_t.
    void tangent_moments(int64_t i, Scratch& s) const {
        const int64_t first = j.begin[i];
        const int n = j.begin[i + 1] - first, size = n * W * padded;
        T* coefficient = s.coefficient.sized(2 * size);
        for (int a = 0; a < n; ++a) {
            const T *alpha = in(j.alpha) + (first + a) * H, *alpha_t = in(j.alpha_t) + (first + a) * H;
            const int64_t edge = j.number[first + a];
            weigh(alpha_t, alpha, edge, in(j.unit), in(j.unit_t), coefficient + a * W * padded);
            weigh(alpha, nullptr, edge, in(j.unit), nullptr, coefficient + size + a * W * padded);
        }
        T* out = to(j.out) + i * W * RC;
        with_width([&](auto w) {
            gather<w()>(j.v, j.source + first, n, coefficient, out, false);
            gather<w()>(j.v_t, j.source + first, n, coefficient + size, out, true);
        });
    }

    void by_target(int64_t i, Scratch& s) const {
        const bool tangent = j.q_t != nullptr;
        const Edges e = edges_of(i, s);
        load(e, i, tangent);
        weights(e, s);
        if (tangent) {
            if (j.kind == SOFTMAX) softmax_shift(e, s);
            weights_t(e);
        }
        T *t = s.contracted.sized(e.n * W * H), *r = s.other.sized(e.n * W * H);
        const T* grad = in(j.grad) + i * W * RC;
        with_width([&](auto w) {
            contract<w()>(j.v, s.atom.data(), e.n, grad, s, t);
            if (tangent) contract<w()>(j.v_t, s.atom.data(), e.n, grad, s, r);
        });
        for (int a = 0; a < e.n; ++a) across_components(e, a, t, tangent ? r : nullptr);
        if (j.kind == SOFTMAX) softmax_means(e, s, tangent);
        if (tangent) finish_t(e);
        else finish(e);
        write(e, i, tangent, s);
    }

    // Tangents of b (in place of d_step until it is needed) and alpha.
    void weights_t(const Edges& e) const {
        for (int x = 0; x < e.n * H; ++x) {
            const T s_t = e.gate_t[x] * e.dot[x] + e.gate[x] * e.dot_t[x], b_t = e.b1[x] * s_t - e.shift[x] * e.b[x];
            e.alpha_t[x] = e.factor_t[x] * e.b[x] * e.u[x] + e.factor[x] * (b_t * e.u[x] + e.b[x] * e.u_t[x]);
        }
    }

    // da = sum_w U_w t_w and dU_w = sum_h alpha t_w of one edge; r are the contractions of v_t.
    void across_components(const Edges& e, int a, const T* t, const T* r) const {
        const int64_t edge = j.number[e.first + a];
        const int at = a * H;
        for (int w = 0; w < W; ++w) {
            const T *tw = t + (a * W + w) * H, *rw = r ? r + (a * W + w) * H : nullptr;
            const T x = component(in(j.unit), edge, w), y = r ? component_t(in(j.unit_t), edge, w) : T(0);
            T sum = 0;
            for (int h = 0; h < H; ++h) {
                e.da[at + h] += x * tw[h];
                if (r) {
                    e.da_t[at + h] += y * tw[h] + x * rw[h];
                    sum += e.alpha_t[at + h] * tw[h] + e.alpha[at + h] * rw[h];
                } else {
                    sum += e.alpha[at + h] * tw[h];
                }
            }
            if (j.first && w < 3) to(j.d_unit)[3 * edge + w] = sum;
        }
    }

    void finish(const Edges& e) const {
        for (int x = 0; x < e.n * H; ++x) {
            const T rest = e.factor[x] * e.da[x] - e.mean[x], ds = e.b1[x] * e.u[x] * rest - e.tie[x];
            e.pull[x] = ds * e.gate[x] * scale;
            e.d_gate[x] = ds * e.dot[x], e.d_factor[x] = e.b[x] * e.u[x] * e.da[x], e.d_step[x] = e.b[x] * rest;
        }
    }

    void finish_t(const Edges& e) const {
        for (int x = 0; x < e.n * H; ++x) {
            const T g = e.gate[x], g_t = e.gate_t[x], f = e.factor[x], f_t = e.factor_t[x], u = e.u[x], u_t = e.u_t[x];
            const T dot = e.dot[x], dot_t = e.dot_t[x], da = e.da[x], da_t = e.da_t[x];
            const T b = e.b[x], b1 = e.b1[x], shift = e.shift[x], s_t = g_t * dot + g * dot_t;
            const T b_t = b1 * s_t - shift * b, b1_t = e.b2[x] * s_t - shift * b1;
            const T rest = f * da - e.mean[x], rest_t = f_t * da + f * da_t - e.mean_t[x];
            const T ds = b1 * u * rest - e.tie[x];
            const T ds_t = (b1_t * u + b1 * u_t) * rest + b1 * u * rest_t - e.tie_t[x];
            e.pull[x] = ds * g * scale, e.pull_t[x] = (ds_t * g + ds * g_t) * scale;
            e.d_gate[x] = ds_t * dot + ds * dot_t;
            e.d_factor[x] = (b_t * u + b * u_t) * da + b * u * da_t, e.d_step[x] = b_t * rest + b * rest_t;
        }
    }

    void write(const Edges& e, int64_t i, bool tangent, Scratch& s) const {
        T* dq = s.head.sized(std::max(4 * H, H * D));
        std::fill_n(dq, H * D, T(0));
        for (int a = 0; a < e.n; ++a) {
            const int64_t place = e.first + a, edge = j.number[place], from = j.source[place];
            const int at = a * H;
            std::copy_n(e.alpha + at, H, to(j.alpha) + place * H), std::copy_n(e.pull + at, H, to(j.pull) + place * H);
            std::copy_n(e.d_gate + at, H, to(j.d_gate) + edge * H);
            std::copy_n(e.d_factor + at, H, to(j.d_factor) + edge * H);
            T sum = 0;
            for (int h = 0; h < H; ++h) sum += e.d_step[at + h];
            to(j.d_step)[edge] = sum;
            const T *k = k_.data() + from * H * D, *k_t = tangent ? kt_.data() + from * H * D : nullptr;
            if (tangent) {
                std::copy_n(e.alpha_t + at, H, to(j.alpha_t) + place * H);
                std::copy_n(e.pull_t + at, H, to(j.pull_t) + place * H);
            }
            pull_heads(e.pull + at, e.pull_t + at, k, k_t, dq);
        }
        put_swapped(dq, j.d_q, i);
    }

    // y += c x, and with a tangent y += c_t x + c x_t, per head.
    void pull_heads(const T* c, const T* c_t, const T* x, const T* x_t, T* y) const {
        for (int d = 0; d < D; ++d)
            for (int h = 0; h < H; ++h) y[d * H + h] += x_t ? c_t[h] * x[d * H + h] + c[h] * x_t[d * H + h] : c[h] * x[d * H + h];
    }

    void by_source(int64_t i, Scratch& s) const {
        const bool tangent = j.q_t != nullptr;
        const int64_t first = j.leaving[i];
        const int n = j.leaving[i + 1] - first;
        T *coefficient = s.coefficient.sized(n * W * padded), *dk = s.head.sized(H * D);
        std::fill_n(dk, H * D, T(0));
        s.atom.resize(n);
        for (int a = 0; a < n; ++a) {
            const int64_t place = j.edge[first + a], edge = j.number[place], from = j.target[place];
            const T *alpha = in(j.alpha) + place * H, *alpha_t = tangent ? in(j.alpha_t) + place * H : nullptr;
            const T *pull = in(j.pull) + place * H, *pull_t = tangent ? in(j.pull_t) + place * H : nullptr;
            s.atom[a] = from;
            weigh(tangent ? alpha_t : alpha, tangent ? alpha : nullptr, edge, in(j.unit), in(j.unit_t), coefficient + a * W * padded);
            pull_heads(pull, pull_t, q_.data() + from * H * D, tangent ? qt_.data() + from * H * D : nullptr, dk);
        }
        put_swapped(dk, j.d_k, i);
        T* out = to(j.d_v) + i * RC;
        with_width([&](auto w) { spread<w()>(j.grad, s.atom.data(), n, coefficient, out); });
    }

    const Job& j;
    const int H, D, C, R, RC, padded, W;
    const T scale;
    Array q_, k_, qt_, kt_;
};

template <class T>
void run(const Job& job, int pass) {
    std::vector<typename Attention<T>::Scratch> scratch(std::max<int64_t>(1, job.threads));
    const auto each = [&](const auto& body) {
        SharedPool::run(job.atoms, job.threads, [&](int64_t i, int thread) { body(i, scratch[thread]); });
    };
    Attention<T> attention(job);
    if (pass == 0) attention.forward(each);
    else if (pass == 1) attention.backward(each);
    else attention.tangent(each);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Hash of the sources this was built from.
EXPORT const char* omnicalc_source() { return OMNICALC_SOURCE; }

// pass: 0 moments; 1 gradients, or their tangents where there are directions; 2 tangent of the moments.
// wide: float64. Returns 1 when memory was not to be had, else 0.
EXPORT int omnicalc_attention(const Job* job, int pass, int wide) {
    try {
        if (wide) run<double>(*job, pass);
        else run<float>(*job, pass);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
