// What becomes of edges before attention: activations of the radial network with their slopes by r, and the sum of edges
// that makes an atom's first features. Each with what its derivatives need.
#include <cstdint>

#include "lanes.hpp"
#include "shared_pool.hpp"

namespace {

// a = f(h), f = x sigmoid(x), and its first two derivatives by x.
template <class T>
struct Silu {
    Vec<T> value, slope, curvature;
    explicit Silu(Vec<T> x) {
        const Sigmoid<T> s(x);
        value = x * s.value, slope = s.value + x * s.slope, curvature = 2 * s.slope + x * s.curvature;
    }
};

// Numbers h and their slopes side by side, both n long. Forward: (f(h), f'(h) h'). Backward, with the gradients d and d'
// of these: (f'(h) d + f''(h) h' d', f'(h) d').
template <class T, bool BACKWARD>
void silu(int64_t n, int threads, const T* h, const T* d, T* out) {
    constexpr int N = Lanes<T>::N;
    constexpr int64_t STRIP = 1024;
    SharedPool::run((n + STRIP - 1) / STRIP, threads, [&](int64_t strip, int) {
        const auto work = [&](int64_t at, auto whole, int m) {
            constexpr bool WHOLE = decltype(whole)::value;
            const Silu<T> f(get<WHOLE>(h + at, m));
            const Vec<T> h_t = get<WHOLE>(h + n + at, m);
            Vec<T> first = f.value, second = f.slope * h_t;
            if constexpr (BACKWARD) {
                const Vec<T> g = get<WHOLE>(d + at, m), g_t = get<WHOLE>(d + n + at, m);
                first = f.slope * g + f.curvature * h_t * g_t, second = f.slope * g_t;
            }
            put<WHOLE>(out + at, first, m), put<WHOLE>(out + n + at, second, m);
        };
        int64_t at = strip * STRIP;
        const int64_t end = std::min(at + STRIP, n);
        for (; at + N <= end; at += N) work(at, std::true_type{}, N);
        if (at < end) work(at, std::false_type{}, end - at);
    });
}

// T(A, B, G) = sum over edges e of atom i, rows r of degree l and channels c of A[e, r] B[e, l, c] G[i, r, c], by each of
// the three. Rows of B lie ``stride`` apart.
template <class T>
struct Sum {
    int64_t atoms, rows, channels, stride;
    const int64_t* begin;  // (atoms + 1): the edges of atom i are begin[i] .. begin[i + 1] - 1
    const T *a, *b, *g;
    T* out;
    static constexpr int N = Lanes<T>::N, MOST = 9;  // rows

    static int degree(int row) { return row == 0 ? 0 : row < 4 ? 1 : 2; }

    template <class Block>
    void each_vector(const Block& block) const {
        int64_t c = 0;
        for (; c + N <= channels; c += N) block(c, std::true_type{}, N);
        if (c < channels) block(c, std::false_type{}, (int)(channels - c));
    }

    template <int R>
    void by_target(int64_t i) const {
        each_vector([&](int64_t c, auto whole, int m) {
            constexpr bool WHOLE = decltype(whole)::value;
            Vec<T> acc[R] = {};
            for (int64_t e = begin[i]; e < begin[i + 1]; ++e)
                for (int l = 0, r = 0; r < R; ++l) {
                    const Vec<T> x = get<WHOLE>(b + e * stride + l * channels + c, m);
                    for (; r < (l + 1) * (l + 1); ++r) acc[r] += a[e * R + r] * x;
                }
            for (int r = 0; r < R; ++r) put<WHOLE>(out + (i * R + r) * channels + c, acc[r], m);
        });
    }

    template <int R>
    void by_row(int64_t i) const {
        for (int64_t e = begin[i]; e < begin[i + 1]; ++e) {
            Vec<T> acc[R] = {};
            each_vector([&](int64_t c, auto whole, int m) {
                constexpr bool WHOLE = decltype(whole)::value;
                for (int r = 0; r < R; ++r)
                    acc[r] += get<WHOLE>(b + e * stride + degree(r) * channels + c, m) * get<WHOLE>(g + (i * R + r) * channels + c, m);
            });
            for (int r = 0; r < R; ++r) {
                T total = 0;
                for (int k = 0; k < N; ++k) total += acc[r][k];
                out[e * R + r] = total;
            }
        }
    }

    template <int R>
    void by_degree(int64_t i) const {
        const int64_t width = (R == 9 ? 3 : 2) * channels;
        each_vector([&](int64_t c, auto whole, int m) {
            constexpr bool WHOLE = decltype(whole)::value;
            Vec<T> x[R];
            for (int r = 0; r < R; ++r) x[r] = get<WHOLE>(g + (i * R + r) * channels + c, m);
            for (int64_t e = begin[i]; e < begin[i + 1]; ++e)
                for (int l = 0, r = 0; r < R; ++l) {
                    Vec<T> acc = {};
                    for (; r < (l + 1) * (l + 1); ++r) acc += a[e * R + r] * x[r];
                    put<WHOLE>(out + e * width + l * channels + c, acc, m);
                }
        });
    }

    template <int R>
    void run(int pass, int threads) const {
        SharedPool::run(atoms, threads, [&](int64_t i, int) {
            if (pass == 0) by_target<R>(i);
            else if (pass == 1) by_row<R>(i);
            else by_degree<R>(i);
        });
    }
};

template <class T>
void sum(int pass, int threads, int64_t atoms, int64_t rows, int64_t channels, int64_t stride, const int64_t* begin,
         const void* a, const void* b, const void* g, void* out) {
    const Sum<T> s{atoms, rows, channels, stride, begin, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<const T*>(g), static_cast<T*>(out)};
    if (rows == 9) s.template run<9>(pass, threads);
    else s.template run<4>(pass, threads);
}

template <class T>
void activate(int64_t n, int threads, const void* h, const void* d, void* out) {
    if (d) silu<T, true>(n, threads, static_cast<const T*>(h), static_cast<const T*>(d), static_cast<T*>(out));
    else silu<T, false>(n, threads, static_cast<const T*>(h), nullptr, static_cast<T*>(out));
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Hash of the sources this was built from.
EXPORT const char* omnicalc_source() { return OMNICALC_SOURCE; }

// Numbers and slopes through the activation, or, where d is not null, their gradients back; wide: float64.
EXPORT void omnicalc_silu(int wide, int threads, int64_t n, const void* h, const void* d, void* out) {
    if (wide) activate<double>(n, threads, h, d, out);
    else activate<float>(n, threads, h, d, out);
}

// pass: derivative of T by 0 G, 1 A, 2 B; the array that is not needed may be null. rows: 4 or 9.
EXPORT void omnicalc_edge_sum(int wide, int pass, int threads, int64_t atoms, int64_t rows, int64_t channels, int64_t stride,
                              const int64_t* begin, const void* a, const void* b, const void* g, void* out) {
    if (wide) sum<double>(pass, threads, atoms, rows, channels, stride, begin, a, b, g, out);
    else sum<float>(pass, threads, atoms, rows, channels, stride, begin, a, b, g, out);
}
