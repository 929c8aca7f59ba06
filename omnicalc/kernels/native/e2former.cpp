// Energy and forces of E2Former-V2 in one fused pass, float32 inside, written without a tape.
//
// The work runs in 2 * layers + 2 loops over tiles of atoms. Within a loop every atom is independent: forward and
// target-major backward passes read the features of the sources; the source-major backward pass of an atom walks its
// own neighbours and takes what each of them, as a target, has stored for the reversed edge, so nothing is ever added to
// another atom's numbers. Results do not depend on the number of threads.
//
// Formulas: attention and its derivatives, UBio-MolFM release (arXiv:2602.17709), in the edge form of the plain torch
// model beside this (omnicalc/models/e2former).
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "model.hpp"
#include "pool.hpp"

namespace {

constexpr int TILE = 12;  // atoms whose node features are worked on together; whole blocks of rows in a product
constexpr float SOFTMAX_EPS = 1e-3f;
constexpr int CACHE_LINE = 16;  // numbers
constexpr int ORDER = SPLINE_DEGREE + 1;  // control points that one length lies among

struct Input {
    int n_atoms;
    const double* positions;  // (N, 3)
    const int32_t *type, *system, *head;  // (N,) row of the element; structure; energy head
    const float* system_embedding;  // (S, channels)
    const int64_t* row;  // (N + 1,): pairs of atom i are row[i] .. row[i + 1] - 1
    const int32_t *source, *reverse;  // (E,): source atom; index of the pair seen from there
    const double* offset;  // (E, 3): lattice translation of the source
};

struct Output {
    double *energies, *forces, *virial;  // (N,), (N, 3), (N, 3, 3) or null
};

// Attention over the edges of one target, (edge, head lane) or (edge).
struct Weighing {
    Buffer gate, dgate, factor, dfactor, qk, alpha, slope, act, dalpha, pull, denominator, step, dstep;
};

// Numbers of one thread, for one tile or for the edges of one atom.
struct Scratch {
    Buffer y, maps, product, hidden, moments, coupled, wide, gates, harmonics, place, per_length;
    Weighing weighing[TILE];  // of each atom in the last layer, whose way back begins at once; else the first serves all
    std::vector<double> delta[3], square;  // of the edges of one atom, Å and Å^2
};

// Everything kept between loops; grows with the largest system seen.
struct Store {
    struct PerLayer {
        Buffer x, maps, value, normed, spread, lanes[2], middle, inner, gates;
    };
    std::vector<PerLayer> layer;
    Buffer last, dx, dquery, dsum[2];  // dE/d(sum over neighbours), one buffer for even and one for odd layers
    Buffer radius, unit, gradient;  // per edge: r; u and 1/r; dE/du and dE/dr, in the end dE/dd (one more edge of zeros)
    Buffer shared[2];  // per edge: alpha and ds * gate, for the source pass; for even and odd layers; one more edge of zeros
    Buffer weights;  // per edge: of the six control points that its length lies among, for values and for slopes by r
    std::vector<float> core;  // repulsion energy of each atom
    std::vector<int> count, source, reverse, slot, point;
};

// One evaluation. DEGREES is l_max + 1, HW the lanes of a vector of attention heads.
template <int DEGREES, int HW>
class Evaluation {
    static constexpr int R = DEGREES * DEGREES, STEP = R * VW;  // rows, and distance between blocks of features
    typedef Vf<HW> vh;

public:
    Evaluation(const Model& model, Store& store, std::vector<Scratch>& scratch, Pool& pool, const Input& in, const Output& out)
        : m(model), st(store), scratch_(scratch), pool_(pool), in(in), out(out), C(m.width), RC(R * C), H(m.hidden_width),
          HL(m.head_lanes), QL(m.query_lanes), lap(std::max(HL, VW)), top(m.layers - 1), tiles((in.n_atoms + TILE - 1) / TILE),
          with_forces(out.forces) {
        for (int a = 0; a < TILE; ++a) {
            by_channels.push_back(a * C), by_gates.push_back(a * DEGREES * C), by_lanes.push_back(a * QL);
            by_hidden.push_back(a * H), by_product.push_back(a * DEGREES * H);
        }
        by_path.resize(m.layers);
        for (int l = 0; l < DEGREES; ++l)
            for (int a = 0; a < TILE; ++a)
                for (int r = l * l; r < (l + 1) * (l + 1); ++r) {
                    by_row[l].push_back(a * RC + r * VW), by_map[l].push_back((a * R + r) * 4 * H);
                }
        for (int k = 0; k < m.layers; ++k)
            by_form<DEGREES>(m.layer[k], [&]<class F>() {
                for (int l = 0; l < DEGREES; ++l)
                    for (int a = 0; a < TILE; ++a)
                        for (int r = 0; r < 2 * l + 1; ++r)
                            by_path[k][l].push_back(a * F::OUT * C + (F::start(l) + r * F::paths(l)) * VW);
            });
    }

    void run() {
        reserve();
        each_tile([&](int first, int n, Scratch& s) {
            for (int i = first; i < first + n; ++i) find_edges(i, s), embed(i, s);
            before_attention(0, first, n, s);
        });
        for (int k = 0; k < top; ++k)
            each_tile([&](int first, int n, Scratch& s) {
                after_attention(k, first, n, s);
                before_attention(k + 1, first, n, s);
            });
        each_tile([&](int first, int n, Scratch& s) {
            after_attention(top, first, n, s);
            read_out(first, n, s);
            if (with_forces) after_attention_backward(top, first, n, s);
        });
        if (!with_forces) return;
        for (int k = top; k >= 0; --k)
            each_tile([&](int first, int n, Scratch& s) {
                before_attention_backward(k, first, n, s);
                if (k) after_attention_backward(k - 1, first, n, s);
                else for (int i = first; i < first + n; ++i) embed_backward(i);
            });
        each_tile([&](int first, int n, Scratch&) {
            for (int i = first; i < first + n; ++i) collect_force(i);
        });
    }

private:
    template <class Body>
    void each_tile(const Body& body) {
        pool_.run(tiles, [&](int tile, int thread) {
            const int first = tile * TILE;
            body(first, std::min(TILE, in.n_atoms - first), scratch_[thread]);
        });
    }

    // ---------------------------------------------------------------- memory

    void reserve() {
        const size_t n = tiles * TILE, edges = in.row[in.n_atoms];
        st.layer.resize(m.layers);
        for (auto& y : st.layer) {
            y.x.reserve(n * RC), y.value.reserve(n * RC), y.middle.reserve(n * RC), y.inner.reserve(n * RC);
            y.maps.reserve(n * R * 4 * H), y.gates.reserve(n * DEGREES * C);
            y.normed.reserve(n * 2 * H), y.spread.reserve(n * 2);
            for (auto& lanes : y.lanes) lanes.reserve(n * QL);
        }
        st.last.reserve(n * RC), st.dx.reserve(n * RC), st.dquery.reserve(n * QL);
        for (int k = 0; k < m.layers; ++k) st.dsum[k % 2].reserve(n * m.layer[k].summed * C);
        st.radius.reserve(edges), st.weights.reserve(2 * ORDER * edges), st.unit.reserve(4 * edges);
        for (auto& shared : st.shared) {
            shared.reserve((edges + 1) * 2 * HL);
            std::fill_n(shared + edges * 2 * HL, 2 * HL, 0.0f);
        }
        st.gradient.reserve(4 * (edges + 1)), store(st.gradient + 4 * edges, f4{});
        for (auto* v : {&st.source, &st.reverse, &st.slot, &st.point})
            if (v->size() < edges) v->resize(edges);
        if (st.core.size() < n) st.count.resize(n), st.core.resize(n);
        size_t widest = 1;
        for (int i = 0; i < in.n_atoms; ++i) widest = std::max<size_t>(widest, in.row[i + 1] - in.row[i]);
        for (auto& s : scratch_) {
            s.y.reserve(TILE * RC), s.wide.reserve(TILE * RC);
            s.maps.reserve(TILE * std::max(R * 4 * H, C)), s.product.reserve(TILE * DEGREES * H);
            s.hidden.reserve(TILE * H), s.gates.reserve(TILE * std::max(DEGREES * C, QL));
            for (const Layer& w : m.layer) s.moments.reserve(w.summed * C), s.coupled.reserve(TILE * w.coupled * C);
            for (auto& w : s.weighing) {
                for (auto* b : {&w.gate, &w.dgate, &w.factor, &w.dfactor, &w.qk, &w.alpha, &w.slope, &w.act, &w.dalpha, &w.pull})
                    b->reserve(widest * HL);
                w.step.reserve(widest), w.dstep.reserve(widest), w.denominator.reserve(HL);
            }
            s.harmonics.reserve(widest * R), s.place.reserve(widest), s.per_length.reserve(widest);
            for (auto* v : {&s.delta[0], &s.delta[1], &s.delta[2], &s.square})
                if (v->size() < widest) v->resize(widest);
        }
    }

    // ---------------------------------------------------------------- edges

    // Pairs of atom i that are shorter than the cutoff now: distances in float64, stored as float32.
    void find_edges(int i, Scratch& s) {
        const int64_t start = in.row[i];
        const int n = keep_near(i, s);
        const double *square = s.square.data(), *delta[3] = {s.delta[0].data(), s.delta[1].data(), s.delta[2].data()};
        float core = 0;
        for (int e = 0; e < n; ++e) {
            const int64_t at = start + e;
            const double r = std::sqrt(square[e]), inverse = 1 / std::max(r, 1e-6);
            const int pair = m.pair(in.type[i], in.type[st.source[at]]), intervals = m.intervals[pair];
            const float length = r, per_length = intervals / m.cutoff, t = length * per_length;
            const int interval = std::min((int)t, intervals - 1);
            st.radius.data[at] = length, st.point[at] = m.first[pair] + interval;
            s.place.data[e] = t - interval, s.per_length.data[e] = per_length;
            store(st.unit + 4 * at, f4{(float)(delta[0][e] * inverse), (float)(delta[1][e] * inverse),
                                       (float)(delta[2][e] * inverse), (float)inverse});
            float slope = 0;
            core += repulsion(m.core_radius.data[pair], length, slope);
            store(st.gradient + 4 * at, f4{0, 0, 0, slope});
        }
        for (int e = 0; e < n; e += VW)
            spline_weights(load(s.place + e), load(s.per_length + e), std::min(VW, n - e), start + e);
        st.count[i] = n, st.core[i] = core;
    }

    // How many pairs of atom i are edges; their differences, sources and reverses move to the front, in order.
    int keep_near(int i, Scratch& s) {
        const double *p = in.positions, *here = p + 3 * i, limit = (double)m.cutoff * m.cutoff;
        const int64_t start = in.row[i], end = in.row[i + 1];
        int n = 0;
        for (int64_t e = start; e < end; ++e) {
            const int j = in.source[e];
            double square = 0;
            for (int a = 0; a < 3; ++a) {
                const double d = (here[a] - p[3 * j + a]) - in.offset[3 * e + a];
                s.delta[a][n] = d, square += d * d;
            }
            s.square[n] = square, st.source[start + n] = j, st.reverse[start + n] = in.reverse[e];
            const bool near = square < limit;
            st.slot[e] = near ? (int)start + n : -1;
            n += near;
        }
        return n;
    }

    // This atom's half of the repulsion h (1 - r / radius)^3 within the core, and its slope by r.
    float repulsion(float radius, float r, float& slope) const {
        if (r >= radius) return 0;
        const float depth = 1 - r / radius, half = 0.5f * m.core_height;
        slope = -3 * half * depth * depth / radius;
        return half * depth * depth * depth;
    }

    static f4 load_4(const float* p) { return load_as<f4>(p); }

    // From dE/du and dE/dr (x, y, z; fourth) to dE/dd, d = r u: across u over r, and along it.
    void finish_gradient(int64_t edge) {
        const f4 u = load_4(st.unit + 4 * edge), turn = load_4(st.gradient + 4 * edge);
        const float inverse = u[3], along = turn[0] * u[0] + turn[1] * u[1] + turn[2] * u[2];
        store(st.gradient + 4 * edge, inverse * turn + (turn[3] - along * inverse) * u);
    }

    // Weights of the control points at places x, 0 to 1, of their intervals, for n edges from the first: uniform B-splines
    // by the recursion of Cox and de Boor. The slopes are differences of the weights one degree lower, here by r.
    void spline_weights(vf x, vf per_length, int n, int64_t first) {
        alignas(64) float lanes[2 * ORDER][VW];
        vf w[ORDER] = {splat(1.0f)};
#pragma GCC unroll 5
        for (int degree = 1; degree <= SPLINE_DEGREE; ++degree) {
            if (degree == SPLINE_DEGREE)
                for (int j = 0; j <= degree; ++j)
                    store(lanes[ORDER + j], ((j ? w[j - 1] : vf{}) - (j < degree ? w[j] : vf{})) * per_length);
#pragma GCC unroll 6
            for (int j = degree; j >= 0; --j) {
                const vf lower = j ? (x + float(degree - j)) * w[j - 1] : vf{};
                const vf upper = j < degree ? (float(1 + j) - x) * w[j] : vf{};
                w[j] = (lower + upper) * (1.0f / degree);
            }
        }
        for (int j = 0; j < ORDER; ++j) store(lanes[j], w[j]);
        float* to = st.weights + 2 * ORDER * first;
        for (int e = 0; e < n; ++e)
            for (int j = 0; j < 2 * ORDER; ++j) *to++ = lanes[j][e];
    }

    // Splines of the functions that lie next to each other at c, and their slopes by r.
    template <class V>
    static V spline(const float* c, int step, const float* w) {
        V v = w[0] * load_as<V>(c);
        for (int j = 1; j < ORDER; ++j) v += w[j] * load_as<V>(c + j * step);
        return v;
    }
    template <class V>
    static V spline(const float* c, int step, const float* w, V& slope) {
        V v = w[0] * load_as<V>(c), d = w[ORDER] * load_as<V>(c);
        for (int j = 1; j < ORDER; ++j) {
            const V point = load_as<V>(c + j * step);
            v += w[j] * point, d += w[ORDER + j] * point;
        }
        slope = d;
        return v;
    }

    // Envelope and its slope by r; softmax weighs with it, the other kinds have it in their factor tables.
    float envelope(float r, float& slope) const {
        const float x = std::min(r / m.cutoff, 1.0f), x2 = x * x;
        if (m.envelope == 7) {
            slope = -105 * x2 * x2 * (1 - x) * (1 - x) / m.cutoff;
            return 1 - x2 * x2 * x * (21 - x * (35 - 15 * x));
        }
        slope = -30 * x2 * (1 - x) * (1 - x) / m.cutoff;
        return 1 - x2 * x * (10 - x * (15 - 6 * x));
    }

    // ---------------------------------------------------------------- initial features

    static constexpr float S3 = 1.7320508f, S5 = 2.2360680f, S15 = 3.8729833f;

    static void harmonics(const float* u, float* y) {  // component normalisation, order of omnicalc.models.e2former.angular
        y[0] = 1, y[1] = S3 * u[0], y[2] = S3 * u[1], y[3] = S3 * u[2];
        if constexpr (DEGREES == 3) {
            y[4] = S15 * u[0] * u[2], y[5] = S15 * u[0] * u[1];
            y[6] = S5 * (u[1] * u[1] - 0.5f * (u[0] * u[0] + u[2] * u[2]));
            y[7] = S15 * u[1] * u[2], y[8] = 0.5f * S15 * (u[2] * u[2] - u[0] * u[0]);
        }
    }

    void embed(int i, Scratch& s) {
        const int64_t start = in.row[i];
        const int n = st.count[i];
        for (int e = 0; e < n; ++e) harmonics(st.unit + 4 * (start + e), s.harmonics + e * R);
        const float* token = m.type_embedding + (size_t)in.type[i] * C;
        float* x = st.layer[0].x + (size_t)i * RC;
        const int step = DEGREES * C;
        for (int b = 0; b < C; b += VW) {
            vf acc[R] = {};
            acc[0] = load(token + b);
            for (int e = 0; e < n; ++e) {
                const float *c = radial(start + e, b), *y = s.harmonics + e * R, *w = st.weights + 2 * ORDER * (start + e);
#pragma GCC unroll 3
                for (int l = 0; l < DEGREES; ++l) {
                    const vf f = spline<vf>(c + l * VW, step, w);
                    for (int r = l * l; r < (l + 1) * (l + 1); ++r) acc[r] += y[r] * f;
                }
            }
            for (int r = 0; r < R; ++r) store(x + b * R + r * VW, acc[r]);
        }
    }

    const float* radial(int64_t edge, int b) const { return m.radial + ((size_t)st.point[edge] * C + b) * DEGREES; }

    // Adds what comes through the initial features to dE/du and dE/dr, and turns them into dE/dd. With
    // z_l = sum_m Y_lm dx_lm, the length takes R'_l z_l and the direction R_l dz_l/du.
    void embed_backward(int i) {
        const float* dx = st.dx + (size_t)i * RC;
        const int step = DEGREES * C;
        for (int64_t e = in.row[i], end = e + st.count[i]; e < end; ++e) {
            const float *u = st.unit + 4 * e, *w = st.weights + 2 * ORDER * e;
            float y[R];
            harmonics(u, y);
            vf length = vf{}, turn[3] = {vf{}, vf{}, vf{}};
            for (int b = 0; b < C; b += VW) {
                const float *c = radial(e, b), *g = dx + b * R;
                vf f[DEGREES];
#pragma GCC unroll 3
                for (int l = 0; l < DEGREES; ++l) {
                    vf slope, z = vf{};
                    f[l] = spline<vf>(c + l * VW, step, w, slope);
                    for (int r = l * l; r < (l + 1) * (l + 1); ++r) z += y[r] * load(g + r * VW);
                    length += slope * z;
                }
                for (int a = 0; a < 3; ++a) turn[a] += f[1] * (S3 * load(g + (1 + a) * VW));
                if constexpr (DEGREES == 3) {
                    const vf xz = f[2] * load(g + 4 * VW), xy = f[2] * load(g + 5 * VW), yy = f[2] * load(g + 6 * VW);
                    const vf yz = f[2] * load(g + 7 * VW), zz = f[2] * load(g + 8 * VW);
                    turn[0] += S15 * (u[2] * xz + u[1] * xy - u[0] * zz) - S5 * u[0] * yy;
                    turn[1] += S15 * (u[0] * xy + u[2] * yz) + 2 * S5 * u[1] * yy;
                    turn[2] += S15 * (u[0] * xz + u[1] * yz + u[2] * zz) - S5 * u[2] * yy;
                }
            }
            float* to = st.gradient + 4 * e;
            store(to, load_4(to) + sums(turn[0], turn[1], turn[2], length));
            finish_gradient(e);
        }
    }

    // ---------------------------------------------------------------- rows of arrays, for the products

    Rows features(float* x, int l) const { return {x, by_row[l].data(), STEP}; }
    Rows maps_of(float* x, int l) const { return {x, by_map[l].data(), VW}; }
    Rows path_of(float* x, int k, int l, int p) const { return {x + p * VW, by_path[k][l].data(), m.layer[k].coupled * VW}; }
    static Rows flat(float* x, const std::vector<int>& offset) { return {x, offset.data(), VW}; }

    // ---------------------------------------------------------------- node features

    // y = x_centred s gamma + beta with s = (n + 1e-5)^-1/2.
    void norm(const float* x, const Buffer& gamma, const Buffer& beta, int n, float* y) const {
        for (int a = 0; a < n; ++a, x += RC, y += RC) {
            const float scale = centre(x, y);
            for (int b = 0; b < C; b += VW) {
                float* to = y + b * R;
                for (int l = 0; l < DEGREES; ++l) {
                    const vf factor = scale * load(gamma + l * C + b);
                    for (int r = l * l; r < (l + 1) * (l + 1); ++r) store(to + r * VW, load(to + r * VW) * factor);
                }
                store(to, load(to) + load(beta + b));
            }
        }
    }

    // Copies x with its scalars centred over channels and returns the scale of the norm.
    float centre(const float* x, float* y) const {
        vf total = vf{}, n = vf{};
        for (int b = 0; b < C; b += VW) total += load(x + b * R);
        const float mean = sum(total) / m.channels;
        for (int b = 0; b < C; b += VW)
            for (int r = 0; r < R; ++r) {
                const int at = b * R + r * VW;
                const vf c = r ? load(x + at) : (load(x + at) - mean) * load(m.mask + b);
                store(y + at, c), n += c * c * m.row_weight.data[r];
            }
        return 1 / std::sqrt(sum(n) + 1e-5f);
    }

    // Adds to dx what flows through the norm from dy; dy is overwritten.
    void norm_backward(const float* x, const Buffer& gamma, int n, float* dy, float* dx) const {
        alignas(64) float c[R * MAX_WIDTH];
        for (int a = 0; a < n; ++a, x += RC, dy += RC, dx += RC) {
            const float scale = centre(x, c);
            vf dot = vf{}, total = vf{};
            for (int b = 0; b < C; b += VW)
                for (int l = 0; l < DEGREES; ++l) {
                    const vf factor = load(gamma + l * C + b);
                    for (int r = l * l; r < (l + 1) * (l + 1); ++r) {
                        const int at = b * R + r * VW;
                        const vf g = load(dy + at) * factor;
                        store(dy + at, g), dot += g * load(c + at);
                    }
                }
            const float back = sum(dot) * scale * scale * scale;
            for (int b = 0; b < C; b += VW) {
                for (int r = 0; r < R; ++r) {
                    const int at = b * R + r * VW;
                    const vf g = load(dy + at) * scale - (back * m.row_weight.data[r]) * load(c + at);
                    if (r) store(dx + at, load(dx + at) + g);
                    else store(dy + at, g), total += g * load(m.mask + b);
                }
            }
            const float mean = sum(total) / m.channels;
            for (int b = 0; b < C; b += VW)
                store(dx + b * R, load(dx + b * R) + (load(dy + b * R) - mean) * load(m.mask + b));
        }
    }

    // x -> queries, keys and values of layer k.
    void before_attention(int k, int first, int n, Scratch& s) {
        const Layer& w = m.layer[k];
        auto& y = st.layer[k];
        float* maps = y.maps + (size_t)first * R * 4 * H;
        norm(y.x + (size_t)first * RC, w.gamma1, w.beta1, n, s.y.data);
        for (int a = 0; a < n; ++a) {
            const float* embedding = in.system_embedding + (size_t)in.system[first + a] * m.channels;
            for (int c = 0; c < m.channels; ++c) s.y.data[a * RC + c / VW * STEP + c % VW] += embedding[c];
        }
        for (int l = 0; l < DEGREES; ++l) {
            const int rows = n * (2 * l + 1);
            const Rows from = features(s.y.data, l), value = features(y.value + (size_t)first * RC, l);
            product(rows, from, w.maps[l].forward, C, 4 * H, l ? nullptr : w.maps_bias.data, maps_of(maps, l));
            product(rows, from, w.value[l].forward, C, C, l ? nullptr : w.value_bias.data, value);
        }
        for (int side = 0; side < 2; ++side) {
            for (int a = 0; a < n; ++a)
                for (int l = 0; l < DEGREES; ++l)
                    for (int b = 0; b < H; b += VW) {
                        vf total = vf{};
                        for (int r = l * l; r < (l + 1) * (l + 1); ++r) {
                            const float* pair = maps + ((a * R + r) * 4 + 2 * side) * H + b;
                            total += load(pair) * load(pair + H);
                        }
                        store(s.product + (a * DEGREES + l) * H + b, total);
                    }
            const Rows hidden = flat(s.hidden.data, by_hidden);
            product(n, flat(s.product.data, by_product), w.hidden[side].forward, DEGREES * H, H, w.hidden_bias[side].data, hidden);
            for (int a = 0; a < n; ++a) layer_norm_silu(w, side, s.hidden + a * H, y, first + a);
            product(n, hidden, w.lanes[side].forward, H, QL, w.lanes_bias[side].data,
                    flat(y.lanes[side] + (size_t)first * QL, by_lanes));
        }
    }

    // h -> SiLU(LayerNorm(h)) in place; the normalised h and its scale are kept.
    void layer_norm_silu(const Layer& w, int side, float* h, Store::PerLayer& y, size_t atom) const {
        float* normed = y.normed + (atom * 2 + side) * H;
        vf total = vf{}, square = vf{};
        for (int b = 0; b < H; b += VW) total += load(h + b);
        const float mean = sum(total) / m.hidden;
        for (int b = 0; b < H; b += VW) {
            const vf c = (load(h + b) - mean) * load(m.hidden_mask + b);
            store(normed + b, c), square += c * c;
        }
        const float scale = 1 / std::sqrt(sum(square) / m.hidden + 1e-5f);
        y.spread.data[atom * 2 + side] = scale;
        for (int b = 0; b < H; b += VW) {
            const vf c = load(normed + b) * scale, z = c * load(w.norm_gamma[side] + b) + load(w.norm_beta[side] + b);
            store(normed + b, c), store(h + b, z * sigmoid(z));
        }
    }

    void layer_norm_silu_backward(const Layer& w, int side, float* dh, const Store::PerLayer& y, size_t atom) const {
        const float* normed = y.normed + (atom * 2 + side) * H;
        vf total = vf{}, dot = vf{};
        for (int b = 0; b < H; b += VW) {
            const vf c = load(normed + b), gamma = load(w.norm_gamma[side] + b), z = c * gamma + load(w.norm_beta[side] + b);
            const vf open = sigmoid(z), g = load(dh + b) * open * (1.0f + z * (1.0f - open)) * gamma;
            store(dh + b, g), total += g, dot += g * c;
        }
        const float mean = sum(total) / m.hidden, slant = sum(dot) / m.hidden, scale = y.spread.data[atom * 2 + side];
        for (int b = 0; b < H; b += VW)
            store(dh + b, (load(dh + b) - mean - load(normed + b) * slant) * scale * load(m.hidden_mask + b));
    }

    // Sum over neighbours, mixing, and feed-forward of layer k; writes the input of the next layer.
    void after_attention(int k, int first, int n, Scratch& s) {
        const Layer& w = m.layer[k];
        auto& y = st.layer[k];
        const int all = w.coupled * C;
        for (int a = 0; a < n; ++a) {
            Weighing& weighing = weighing_of(k, a, s);
            if (k == top && with_forces) score<true>(k, first + a, weighing);
            else score<false>(k, first + a, weighing);
            weigh(first + a, weighing);
            by_form<DEGREES>(w, [&]<class F>() {
                gather<typename F::Summed>(k, first + a, weighing, F::EDGES ? s.coupled + a * all : s.moments.data);
                if constexpr (!F::EDGES) couple<F>(s.moments.data, s.coupled + a * all);
            });
        }
        float* middle = y.middle + (size_t)first * RC;
        std::copy_n(y.x + (size_t)first * RC, n * RC, middle);
        for (int l = 0; l < DEGREES; ++l)
            for (int p = 0; p < (int)w.mix[l].size(); ++p)
                product<true>(n * (2 * l + 1), path_of(s.coupled.data, k, l, p), w.mix[l][p].forward, C, C,
                              l || p ? nullptr : w.mix_bias.data, features(middle, l));
        feed_forward(k, first, n, s);
    }

    // x' = x + W_out [silu(g_0), sigmoid(g_l) W_in y] with y = norm(x) and gates g = W_gate y_0; gains are in W_out.
    void feed_forward(int k, int first, int n, Scratch& s) {
        const Layer& w = m.layer[k];
        auto& y = st.layer[k];
        const int wide = DEGREES * C;
        const float* middle = y.middle + (size_t)first * RC;
        float *gates = y.gates + (size_t)first * wide, *inner = y.inner + (size_t)first * RC;
        float* next = (k + 1 < m.layers ? st.layer[k + 1].x : st.last) + (size_t)first * RC;
        norm(middle, w.gamma2, w.beta2, n, s.y.data);
        product(n, features(s.y.data, 0), w.gate.forward, C, wide, w.gate_bias.data, flat(gates, by_gates));
        for (int l = 1; l < DEGREES; ++l)
            product(n * (2 * l + 1), features(s.y.data, l), w.ffn_in[l - 1].forward, C, C, nullptr, features(inner, l));
        for (int a = 0; a < n; ++a)
            for (int b = 0; b < C; b += VW)
                for (int l = 0; l < DEGREES; ++l) {
                    const vf g = load(gates + a * wide + l * C + b), open = sigmoid(g);
                    float *to = s.y + a * RC + b * R, *from = inner + a * RC + b * R;
                    if (l == 0) store(to, g * open);
                    else for (int r = l * l; r < (l + 1) * (l + 1); ++r) store(to + r * VW, open * load(from + r * VW));
                }
        std::copy_n(middle, n * RC, next);
        for (int l = 0; l < DEGREES; ++l)
            product<true>(n * (2 * l + 1), features(s.y.data, l), w.ffn_out[l].forward, C, C, l ? nullptr : w.ffn_bias.data,
                          features(next, l));
    }

    // dE/d(output of layer k) -> dE/d(its middle), both in dx.
    void feed_forward_backward(int k, int first, int n, Scratch& s) {
        const Layer& w = m.layer[k];
        const auto& y = st.layer[k];
        const int wide = DEGREES * C;
        float* dx = st.dx + (size_t)first * RC;
        const float *gates = y.gates + (size_t)first * wide, *inner = y.inner + (size_t)first * RC;
        for (int l = 0; l < DEGREES; ++l)
            product(n * (2 * l + 1), features(dx, l), w.ffn_out[l].backward, C, C, nullptr, features(s.wide.data, l));
        for (int a = 0; a < n; ++a)
            for (int b = 0; b < C; b += VW)
                for (int l = 0; l < DEGREES; ++l) {
                    const vf g = load(gates + a * wide + l * C + b), open = sigmoid(g);
                    const float* was = inner + a * RC + b * R;
                    float* d = s.wide + a * RC + b * R;
                    vf dg = vf{};
                    if (l == 0) dg = load(d) * open * (1.0f + g * (1.0f - open));
                    else {
                        for (int r = l * l; r < (l + 1) * (l + 1); ++r) {
                            dg += load(d + r * VW) * load(was + r * VW);
                            store(d + r * VW, load(d + r * VW) * open);
                        }
                        dg *= open * (1.0f - open);
                    }
                    store(s.gates + a * wide + l * C + b, dg);
                }
        product(n, flat(s.gates.data, by_gates), w.gate.backward, wide, C, nullptr, features(s.y.data, 0));
        for (int l = 1; l < DEGREES; ++l)
            product(n * (2 * l + 1), features(s.wide.data, l), w.ffn_in[l - 1].backward, C, C, nullptr, features(s.y.data, l));
        norm_backward(y.middle + (size_t)first * RC, w.gamma2, n, s.y.data, dx);
    }

    // Energies of the atoms, and dE/d(features) in dx.
    void read_out(int first, int n, Scratch& s) {
        const float* x = st.last + (size_t)first * RC;
        float* dx = st.dx + (size_t)first * RC;
        norm(x, m.gamma, m.beta, n, s.y.data);
        float *h1 = s.gates.data, *h2 = s.wide.data, *back = s.maps.data;
        for (int begin = 0, end; begin < n; begin = end) {  // runs of atoms that ask for the same head
            const int which = in.head[first + begin];
            for (end = begin; end < n && in.head[first + end] == which;) ++end;
            const EnergyHead& w = m.energy[which];
            const int count = end - begin;
            float* y = s.y + begin * RC;
            product(count, features(y, 0), w.first.forward, C, C, w.bias1.data, flat(h1, by_channels));
            for (int i = 0; i < count * C; i += VW) store(back + i, load(h1 + i) * sigmoid(load(h1 + i)));
            product(count, flat(back, by_channels), w.second.forward, C, C, w.bias2.data, flat(h2, by_channels));
            for (int a = 0; a < count; ++a) {
                vf energy = vf{};
                for (int b = 0; b < C; b += VW) {
                    const vf h = load(h2 + a * C + b), open = sigmoid(h), last = load(w.last + b);
                    energy += h * open * last;
                    store(h2 + a * C + b, last * open * (1.0f + h * (1.0f - open)));
                }
                out.energies[first + begin + a] = sum(energy) + w.bias3 + st.core[first + begin + a];
            }
            if (!with_forces) continue;
            product(count, flat(h2, by_channels), w.second.backward, C, C, nullptr, flat(back, by_channels));
            for (int i = 0; i < count * C; i += VW) {
                const vf h = load(h1 + i), open = sigmoid(h);
                store(back + i, load(back + i) * open * (1.0f + h * (1.0f - open)));
            }
            std::fill_n(y, count * RC, 0.0f);
            product(count, flat(back, by_channels), w.first.backward, C, C, nullptr, features(y, 0));
        }
        if (!with_forces) return;
        std::fill_n(dx, n * RC, 0.0f);
        norm_backward(x, m.gamma, n, s.y.data, dx);
    }

    // From dE/d(output of layer k) to dE/d(sum over neighbours) and on to edges and queries; dx keeps dE/d(middle).
    void after_attention_backward(int k, int first, int n, Scratch& s) {
        feed_forward_backward(k, first, n, s);
        const Layer& w = m.layer[k];
        const int all = w.coupled * C;
        float* dx = st.dx + (size_t)first * RC;
        float* dcoupled = w.mirror ? st.dsum[k % 2] + (size_t)first * all : s.coupled.data;
        for (int l = 0; l < DEGREES; ++l)
            for (int p = 0; p < (int)w.mix[l].size(); ++p)
                product(n * (2 * l + 1), features(dx, l), w.mix[l][p].backward, C, C, nullptr, path_of(dcoupled, k, l, p));
        for (int a = 0; a < n; ++a) {
            const int i = first + a;
            Weighing& weighing = weighing_of(k, a, s);
            if (k < top) score<true>(k, i, weighing), weigh(i, weighing);
            by_form<DEGREES>(w, [&]<class F>() {
                using Sum = typename F::Summed;
                float* dsum = st.dsum[k % 2] + (size_t)i * Sum::OUT * C;
                if constexpr (!F::EDGES) uncouple<F>(dcoupled + a * all, dsum);
                pull_edges<Sum>(k, i, dsum, weighing);
            });
            if (m.weights == SOFTMAX) unweigh_softmax(i, weighing);
            else unweigh(i, weighing);
            share(k, i, weighing);
        }
    }

    // From what the atoms' own edges and, as sources, all others pull, to dE/d(input of layer k) in dx.
    void before_attention_backward(int k, int first, int n, Scratch& s) {
        const Layer& w = m.layer[k];
        const auto& y = st.layer[k];
        float *dkey = s.gates.data, *dvalue = s.wide.data;
        if (k == top)
            for (int j = first; j < first + n; ++j) find_reversed(j);
        fetch_shared(k, first);
        for (int a = 0; a < n; ++a) {
            const int j = first + a;
            if (a + 1 < n) fetch_shared(k, j + 1);
            by_form<DEGREES>(w, [&]<class F>() { pull_value<typename F::Summed>(k, j, dvalue + a * RC); });
            pull_key(k, j, dkey + a * QL);
        }
        const float* maps = y.maps + (size_t)first * R * 4 * H;
        for (int side = 0; side < 2; ++side) {
            float* lanes = side ? dkey : st.dquery + (size_t)first * QL;
            const Rows hidden = flat(s.hidden.data, by_hidden);
            product(n, flat(lanes, by_lanes), w.lanes[side].backward, QL, H, nullptr, hidden);
            for (int a = 0; a < n; ++a) layer_norm_silu_backward(w, side, s.hidden + a * H, y, first + a);
            product(n, hidden, w.hidden[side].backward, H, DEGREES * H, nullptr, flat(s.product.data, by_product));
            for (int a = 0; a < n; ++a)
                for (int l = 0; l < DEGREES; ++l)
                    for (int b = 0; b < H; b += VW) {
                        const vf d = load(s.product + (a * DEGREES + l) * H + b);
                        for (int r = l * l; r < (l + 1) * (l + 1); ++r) {
                            const size_t at = ((a * R + r) * 4 + 2 * side) * H + b;
                            store(s.maps + at, d * load(maps + at + H)), store(s.maps + at + H, d * load(maps + at));
                        }
                    }
        }
        for (int l = 0; l < DEGREES; ++l) {
            const int rows = n * (2 * l + 1);
            product(rows, maps_of(s.maps.data, l), w.maps[l].backward, 4 * H, C, nullptr, features(s.y.data, l));
            product<true>(rows, features(dvalue, l), w.value[l].backward, C, C, nullptr, features(s.y.data, l));
        }
        norm_backward(y.x + (size_t)first * RC, w.gamma1, n, s.y.data, st.dx + (size_t)first * RC);
    }

    // ---------------------------------------------------------------- attention over the edges of one target

    Weighing& weighing_of(int k, int a, Scratch& s) const { return s.weighing[k == top ? a : 0]; }

    // Weights of the W components of one edge: alpha times the unit vector, times 1, or both.
    template <int W>
    static void spread(vf alpha, f4 u, vf* p) {
        if constexpr (W >= 3)
            for (int a = 0; a < 3; ++a) p[a] = alpha * u[a];
        if constexpr (W != 3) p[W - 1] = alpha;
    }

    // a + c x y. Written so that terms with c and with -c share the product of x with |c|.
    template <coupling::Term T>
    static vf add(vf a, vf x, vf y) {
        if constexpr (T.coefficient > 0) return a + (x * T.coefficient) * y;
        else return a - (x * -T.coefficient) * y;
    }

    // q . k, gate and factor of every edge of atom i, with the slopes of the latter two by r when asked.
    template <bool SLOPES>
    void score(int k, int i, Weighing& s) const {
        const float *query = st.layer[k].lanes[0] + (size_t)i * QL, *keys = st.layer[k].lanes[1].data, *table = m.gates[k].data;
        const int64_t start = in.row[i];
        const int n = st.count[i];
        for (int e = 0; e < n; ++e) {
            const float *key = keys + (size_t)st.source[start + e] * QL, *w = st.weights + 2 * ORDER * (start + e);
            const float* c = table + (size_t)st.point[start + e] * 2 * HL;
            for (int g = 0; g < HL; g += HW, c += 2 * HW) {
                const int to = e * HL + g;
                vh qk = vh{};
                for (int d = 0; d < m.query_width; ++d) qk += load_as<vh>(query + d * HL + g) * load_as<vh>(key + d * HL + g);
                store(s.qk + to, qk);
                if constexpr (SLOPES) {
                    vh dgate, dfactor;
                    store(s.gate + to, spline<vh>(c, 2 * HL, w, dgate));
                    store(s.factor + to, spline<vh>(c + HW, 2 * HL, w, dfactor));
                    store(s.dgate + to, dgate), store(s.dfactor + to, dfactor);
                } else {
                    store(s.gate + to, spline<vh>(c, 2 * HL, w)), store(s.factor + to, spline<vh>(c + HW, 2 * HL, w));
                }
            }
        }
        if (m.weights == SOFTMAX)
            for (int e = 0; e < n; ++e) s.step.data[e] = envelope(st.radius.data[start + e], s.dstep.data[e]);
    }

    // alpha = act * factor. softplus, sigmoid: act and its slope by the score; softmax: act = e^(s - max) u / D and, in
    // the place of the slope, e^(s - max).
    void weigh(int i, Weighing& s) const {
        if (m.weights == SOFTMAX) return weigh_softmax(i, s);
        const bool soft = m.weights == SOFTPLUS;
        for (int e = 0, n = st.count[i] * HL; e < n; e += VW) {
            const vf score = load(s.gate + e) * load(s.qk + e);
            vf act, slope;
            if (soft) act = softplus(score, slope);
            else act = sigmoid(score), slope = act * (1.0f - act);
            store(s.act + e, act), store(s.slope + e, slope), store(s.alpha + e, act * load(s.factor + e));
        }
    }

    void weigh_softmax(int i, Weighing& s) const {
        const int n = st.count[i];
        for (int g = 0; g < HL; g += HW) {
            vh top = splat_as<vh>(-3e38f), total = splat_as<vh>(SOFTMAX_EPS);
            for (int e = g; e < n * HL; e += HL) {
                const vh score = load_as<vh>(s.gate + e) * load_as<vh>(s.qk + e);
                store(s.slope + e, score), top = max(top, score);
            }
            for (int e = 0; e < n; ++e) {
                const int at = e * HL + g;
                // the stored score, for a product anew might be fused with the difference, and not give 0 for the maximum
                const vh power = exp(load_as<vh>(s.slope + at) - top);
                store(s.slope + at, power), total += power * s.step.data[e];
            }
            store(s.denominator + g, total);
            for (int e = 0; e < n; ++e) {
                const int at = e * HL + g;
                const vh act = load_as<vh>(s.slope + at) * s.step.data[e] / total;
                store(s.act + at, act), store(s.alpha + at, act * load_as<vh>(s.factor + at));
            }
        }
    }

    // to[block][row][lane] = sum over edges of the terms of p and value.
    template <class Sum>
    void gather(int k, int i, const Weighing& s, float* to) const {
        gather_part<Sum, 0>(k, i, s, to);
        if constexpr (Sum::PARTS == 2) gather_part<Sum, 1>(k, i, s, to);
    }
    template <class Sum, int PART>
    void gather_part(int k, int i, const Weighing& s, float* to) const {
        const int64_t start = in.row[i];
        const int n = st.count[i];
        const int* source = st.source.data() + start;
        const float* unit = st.unit + 4 * start;
        for (int g = 0; g < HL; g += HW)
            for (int b = g; b < C; b += lap) {
                const float *value = st.layer[k].value + b * R, *alpha = s.alpha + g;
                vf acc[Sum::OUT] = {};
                for (int e = 0; e < n; ++e) {
                    vf p[Sum::W];
                    spread<Sum::W>(widen(load_as<vh>(alpha + e * HL)), load_4(unit + 4 * e), p);
                    const float* v = value + (size_t)source[e] * RC;
                    coupling::each<Sum::BY_IN>([&]<coupling::Term T>() {
                        if constexpr (Sum::part(T) == PART) acc[T.out] = add<T>(acc[T.out], p[T.component], load(v + T.in * VW));
                    });
                }
                coupling::each<Sum::BY_OUT>([&]<coupling::Term T>() {
                    if constexpr (Sum::part(T) == PART) store(to + b * Sum::OUT + T.out * VW, acc[T.out]);
                });
            }
    }

    // From moments to coupled rows, and the way back.
    template <class F>
    void couple(const float* moments, float* coupled) const {
        for (int b = 0; b < C; b += VW, moments += F::W * STEP, coupled += F::OUT * VW) {
            vf to[F::OUT] = {};
            coupling::each<F::BY_OUT>([&]<coupling::Term T>() {
                to[T.out] += T.coefficient * load(moments + (T.component * R + T.in) * VW);
            });
            for (int r = 0; r < F::OUT; ++r) store(coupled + r * VW, to[r]);
        }
    }
    template <class F>
    void uncouple(const float* dcoupled, float* dmoments) const {
        for (int b = 0; b < C; b += VW, dmoments += F::W * STEP, dcoupled += F::OUT * VW) {
            vf to[F::W * R] = {};
            coupling::each<F::BY_OUT>([&]<coupling::Term T>() {
                to[T.component * R + T.in] += T.coefficient * load(dcoupled + T.out * VW);
            });
            for (int r = 0; r < F::W * R; ++r) store(dmoments + r * VW, to[r]);
        }
    }

    // dE/d(alpha) of every edge, and dE/du.
    template <class Sum>
    void pull_edges(int k, int i, const float* dsum, Weighing& s) {
        constexpr int W = Sum::W;
        const int64_t start = in.row[i];
        const float* value = st.layer[k].value.data;
        for (int e = 0, n = st.count[i]; e < n; ++e) {
            const float* v = value + (size_t)st.source[start + e] * RC;
            const f4 u = load_4(st.unit + 4 * (start + e));
            vf turn[3] = {vf{}, vf{}, vf{}};
            for (int g = 0; g < HL; g += HW) {
                const vf alpha = widen(load_as<vh>(s.alpha + e * HL + g));
                vf dalpha = vf{};
                for (int b = g; b < C; b += lap) {
                    const float* d = dsum + b * Sum::OUT;
                    vf x[R], dp[W] = {};
                    for (int r = 0; r < R; ++r) x[r] = load(v + b * R + r * VW);
                    coupling::each<Sum::BY_OUT>([&]<coupling::Term T>() {
                        dp[T.component] = add<T>(dp[T.component], x[T.in], load(d + T.out * VW));
                    });
                    if constexpr (W >= 3)
                        for (int a = 0; a < 3; ++a) dalpha += dp[a] * u[a], turn[a] += dp[a] * alpha;
                    if constexpr (W != 3) dalpha += dp[W - 1];
                }
                store(s.dalpha + e * HL + g, narrow<vh>(dalpha));
            }
            float* to = st.gradient + 4 * (start + e);
            if constexpr (W >= 3) store(to, load_4(to) + sums(turn[0], turn[1], turn[2], vf{}));
        }
    }

    // dE/d(alpha) -> dE/d(score) in its place, and dE/dr by the factor's slope in s.pull.
    void unweigh(int i, Weighing& s) const {
        for (int e = 0, n = st.count[i] * HL; e < n; e += VW) {
            const vf d = load(s.dalpha + e);
            store(s.pull + e, d * load(s.act + e) * load(s.dfactor + e));
            store(s.dalpha + e, d * load(s.slope + e) * load(s.factor + e));
        }
    }

    // The same for softmax, where all scores share the denominator D and the maximum; equal maxima share its derivative.
    // They are known by e^(s - max) being 1.
    void unweigh_softmax(int i, Weighing& s) const {
        const int n = st.count[i];
        for (int g = 0; g < HL; g += HW) {
            const vh inverse = 1.0f / load_as<vh>(s.denominator + g);
            vh common = vh{}, dmax = vh{}, ties = vh{};
            for (int e = g; e < n * HL; e += HL) common += load_as<vh>(s.alpha + e) * load_as<vh>(s.dalpha + e);
            for (int e = 0; e < n; ++e) {
                const int at = e * HL + g;
                const vh d = load_as<vh>(s.dalpha + at), power = load_as<vh>(s.slope + at), factor = load_as<vh>(s.factor + at);
                const vh dweight = (factor * d - common) * inverse;  // by e^(s - max) u
                const vh by_factor = d * load_as<vh>(s.act + at) * load_as<vh>(s.dfactor + at);
                store(s.pull + at, by_factor + dweight * power * s.dstep.data[e]);
                const vh dscore = dweight * power * s.step.data[e];
                store(s.dalpha + at, dscore), dmax += dscore;
                ties += power == 1.0f ? splat_as<vh>(1.0f) : vh{};
            }
            for (int e = g; e < n * HL; e += HL) {
                const vh top = load_as<vh>(s.slope + e) == 1.0f ? dmax / ties : vh{};
                store(s.dalpha + e, load_as<vh>(s.dalpha + e) - top);
            }
        }
    }

    // dE/d(score) -> query, edge length, and what the source will need: alpha and ds * gate.
    void share(int k, int i, Weighing& s) {
        const int64_t start = in.row[i];
        const int n = st.count[i];
        float* shared = st.shared[k % 2] + start * 2 * HL;
        for (int e = 0; e < n; ++e) {
            vh length = vh{};
            for (int g = 0; g < HL; g += HW) {
                const int at = e * HL + g;
                const vh ds = load_as<vh>(s.dalpha + at);
                length += ds * load_as<vh>(s.qk + at) * load_as<vh>(s.dgate + at) + load_as<vh>(s.pull + at);
                store(shared + 2 * e * HL + g, load_as<vh>(s.alpha + at));
                store(shared + (2 * e + 1) * HL + g, ds * load_as<vh>(s.gate + at));
            }
            st.gradient.data[4 * (start + e) + 3] += sum(length);
        }
        const auto pull = [&](int e) { return shared + (2 * e + 1) * HL; };
        const auto key = [&](int e) { return st.layer[k].lanes[1] + (size_t)st.source[start + e] * QL; };
        sum_lanes(n, pull, key, st.dquery + (size_t)i * QL);
    }

    // to[component][head] = sum over edges of weight[head] from[component][head].
    template <class Weight, class From>
    void sum_lanes(int edges, const Weight& weight, const From& from, float* to) const {
        constexpr int AT_ONCE = 4;
        const int end = m.query_width;
        for (int g = 0; g < HL; g += HW) {
            int d = 0;
            for (; d + AT_ONCE <= end; d += AT_ONCE) sum_lanes_block<AT_ONCE>(edges, weight, from, g, d, to);
            for (; d < end; ++d) sum_lanes_block<1>(edges, weight, from, g, d, to);
        }
        std::fill(to + end * HL, to + QL, 0.0f);
    }
    template <int N, class Weight, class From>
    void sum_lanes_block(int edges, const Weight& weight, const From& from, int g, int d, float* to) const {
        vh total[N] = {};
        for (int e = 0; e < edges; ++e) {
            const vh w = load_as<vh>(weight(e) + g);
            const float* at = from(e) + d * HL + g;
            for (int c = 0; c < N; ++c) total[c] += w * load_as<vh>(at + c * HL);
        }
        for (int c = 0; c < N; ++c) store(to + (d + c) * HL + g, total[c]);
    }

    // ---------------------------------------------------------------- the same edges, seen from the source

    // The numbers of the reversed edges of atom j, once all edges have one. Should rounding put only one of the two within
    // the cutoff itself, where all weights vanish, the other is one that shares nothing.
    void find_reversed(int j) {
        for (int64_t e = in.row[j], end = e + st.count[j]; e < end; ++e) {
            const int slot = st.slot[st.reverse[e]];
            st.reverse[e] = slot < 0 ? in.row[in.n_atoms] : slot;
        }
    }

    // What the targets of atom j's edges shared lies anywhere: this has it on its way before it is used.
    void fetch_shared(int k, int j) const {
        const float* shared = st.shared[k % 2].data;
        for (int64_t e = in.row[j], end = e + st.count[j]; e < end; ++e)
            for (int number = 0; number < 2 * HL; number += CACHE_LINE)
                __builtin_prefetch(shared + (size_t)st.reverse[e] * 2 * HL + number);
    }

    // dvalue[row] = sum over targets i of the terms of p(ij) and dE/d(sum of i). The unit vector points back from j's own
    // edges.
    template <class Sum>
    void pull_value(int k, int j, float* dvalue) const {
        const int64_t start = in.row[j];
        const int n = st.count[j];
        const int *target = st.source.data() + start, *shared = st.reverse.data() + start;
        const float* unit = st.unit + 4 * start;
        for (int g = 0; g < HL; g += HW) {
            int b = g;
            if constexpr (VW == 16)
                for (; b + lap < C; b += 2 * lap) pull_value_blocks<Sum, 2>(k, n, target, shared, unit, g, b, dvalue);
            for (; b < C; b += lap) pull_value_blocks<Sum, 1>(k, n, target, shared, unit, g, b, dvalue);
        }
    }

    // The same for N blocks of channels of the same heads, as many as fit in registers.
    template <class Sum, int N>
    void pull_value_blocks(int k, int n, const int* target, const int* shared, const float* unit, int g, int b,
                           float* dvalue) const {
        const float *dsum = st.dsum[k % 2] + b * Sum::OUT, *alpha = st.shared[k % 2] + g;
        vf acc[N][R] = {};
        for (int e = 0; e < n; ++e) {
            vf p[Sum::W];
            spread<Sum::W>(widen(load_as<vh>(alpha + (size_t)shared[e] * 2 * HL)), -load_4(unit + 4 * e), p);
            const float* d = dsum + (size_t)target[e] * Sum::OUT * C;
            for (int i = 0; i < N; ++i, d += lap * Sum::OUT)
                coupling::each<Sum::BY_OUT>([&]<coupling::Term T>() {
                    acc[i][T.in] = add<T>(acc[i][T.in], p[T.component], load(d + T.out * VW));
                });
        }
        for (int i = 0; i < N; ++i)
            for (int r = 0; r < R; ++r) store(dvalue + (b + i * lap) * R + r * VW, acc[i][r]);
    }

    void pull_key(int k, int j, float* dkey) const {
        const int64_t start = in.row[j];
        const auto pull = [&](int e) { return st.shared[k % 2] + ((size_t)st.reverse[start + e] * 2 + 1) * HL; };
        const auto query = [&](int e) { return st.layer[k].lanes[0] + (size_t)st.source[start + e] * QL; };
        sum_lanes(st.count[j], pull, query, dkey);
    }

    // ---------------------------------------------------------------- forces

    // F_i = -sum dE/d(d_ij) + sum dE/d(d_ji), in float64; the virial of the atom's own edges, d (x) dE/dd.
    void collect_force(int i) const {
        double force[3] = {0, 0, 0}, virial[9] = {};
        for (int64_t e = in.row[i], end = e + st.count[i]; e < end; ++e) {
            const f4 g = load_4(st.gradient + 4 * e), u = load_4(st.unit + 4 * e);
            const f4 back = load_4(st.gradient + 4 * (size_t)st.reverse[e]);
            for (int a = 0; a < 3; ++a) force[a] += (double)back[a] - g[a];
            if (out.virial)
                for (int a = 0; a < 9; ++a) virial[a] += (double)st.radius.data[e] * u[a / 3] * g[a % 3];
        }
        std::copy_n(force, 3, out.forces + 3 * i);
        if (out.virial) std::copy_n(virial, 9, out.virial + 9 * i);
    }

    const Model& m;
    Store& st;
    std::vector<Scratch>& scratch_;
    Pool& pool_;
    const Input& in;
    const Output& out;
    const int C, RC, H;  // channels, rows of them, hidden numbers; all padded
    const int HL, QL, lap;  // lanes of heads; of a query; between blocks of channels whose lanes belong to the same heads
    const int top, tiles;  // last layer; tiles of atoms
    const bool with_forces;
    // offsets of rows within a tile
    std::vector<int> by_row[DEGREES], by_map[DEGREES], by_channels, by_gates, by_lanes, by_hidden, by_product;
    std::vector<std::array<std::vector<int>, DEGREES>> by_path;  // per layer
};

struct Handle {
    Model model;
    Store store;
    std::vector<Scratch> scratch;
    std::unique_ptr<Pool> pool;
};

template <int DEGREES>
void evaluate(Handle& h, const Input& in, const Output& out) {
    const auto run = [&]<int HW>() { Evaluation<DEGREES, HW>(h.model, h.store, h.scratch, *h.pool, in, out).run(); };
    if (h.model.head_vector == VW) run.template operator()<VW>();
    else run.template operator()<HALF>();
}

void report(char* message, int size, const char* text) {
    std::strncpy(message, text, size - 1);
    message[size - 1] = 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Hash of the sources this was built from.
EXPORT const char* omnicalc_source() { return OMNICALC_SOURCE; }

// Null and a message when settings and numbers do not belong together.
EXPORT void* omnicalc_e2former_create(const int32_t* settings, float cutoff, const float* weights, int64_t n_weights,
                                      const float* table, int64_t n_table, char* message, int size) {
    try {
        return new Handle{Model(settings, cutoff, {weights, n_weights}, {table, n_table}), {}, {}, {}};
    } catch (const std::exception& error) {
        report(message, size, error.what());
        return nullptr;
    }
}

EXPORT void omnicalc_e2former_destroy(void* handle) { delete static_cast<Handle*>(handle); }

// Per-atom energies without references (eV), forces (eV/Å) and per-atom virials (eV) when their arrays are not null.
// Returns 0, or 1 with a message (out of memory).
EXPORT int omnicalc_e2former_evaluate(void* handle, int threads, int32_t n_atoms, const double* positions,
                                      const int32_t* type, const int32_t* system, const int32_t* head,
                                      const float* system_embedding, const int64_t* row, const int32_t* source,
                                      const int32_t* reverse, const double* offset, double* energies, double* forces,
                                      double* virial, char* message, int size) {
    Handle& h = *static_cast<Handle*>(handle);
    try {
        if (!h.pool || !h.pool->serves(threads)) h.pool = nullptr, h.pool = std::make_unique<Pool>(threads);
        h.scratch.resize(threads);
        const Input in{n_atoms, positions, type, system, head, system_embedding, row, source, reverse, offset};
        const Output out{energies, forces, virial};
        if (h.model.degrees == 3) evaluate<3>(h, in, out);
        else evaluate<2>(h, in, out);
        return 0;
    } catch (const std::exception& error) {
        report(message, size, error.what());
        return 1;
    }
}
