// Vectors of the widest registers that the compiler was allowed, and the few functions of them that the kernels need.
// One source serves AVX-512, AVX2 and any other machine: the type and its width follow from the compiler's flags.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int VW = 16;  // floats in a vector
constexpr int GEMM_ROWS = 12;
#elif defined(__AVX2__)
constexpr int VW = 8;
constexpr int GEMM_ROWS = 6;
#elif defined(__aarch64__)
constexpr int VW = 4;  // NEON
constexpr int GEMM_ROWS = 6;  // with two vectors of columns, 12 sums: four pipes are busy for as long as one sum takes
#else
constexpr int VW = 4;
constexpr int GEMM_ROWS = 4;
#endif

template <int N>
struct Floats {
    typedef float type __attribute__((vector_size(4 * N)));
};
template <int N>
using Vf = typename Floats<N>::type;
typedef Vf<VW> vf;
typedef Vf<4> f4;

template <class V>
static inline V load_as(const float* p) { return *reinterpret_cast<const V*>(p); }
static inline vf load(const float* p) { return load_as<vf>(p); }
template <class V>
static inline void store(float* p, V x) { *reinterpret_cast<V*>(p) = x; }
template <class V>
static inline V splat_as(float x) { return x - V{}; }
static inline vf splat(float x) { return splat_as<vf>(x); }
template <class V>
static inline V max(V a, V b) { return a > b ? a : b; }
template <class V>
static inline V min(V a, V b) { return a < b ? a : b; }

// A vector of half the lanes, twice; the sum of both halves. A whole vector as it is.
template <class V>
static inline vf widen(V x) {
    if constexpr (sizeof(V) == sizeof(vf)) return x;
    else if constexpr (sizeof(V) == 32) return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
    else return __builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3);
}
static inline Vf<8> halves(Vf<16> x) {
    return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline Vf<4> halves(Vf<8> x) {
    return __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
}
template <class V, class Whole>
static inline V narrow(Whole x) {
    if constexpr (sizeof(V) == sizeof(Whole)) return x;
    else return halves(x);
}

// Lanes added up until four are left.
static inline f4 quarter(Vf<4> x) { return x; }
static inline f4 quarter(Vf<8> x) { return halves(x); }
static inline f4 quarter(Vf<16> x) { return halves(halves(x)); }

// Sum of all lanes.
template <class V>
static inline float sum(V v) {
    const f4 q = quarter(v);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

// Sums of the lanes of four vectors.
static inline f4 sums(vf a, vf b, vf c, vf d) {
    const f4 x = quarter(a), y = quarter(b), z = quarter(c), w = quarter(d);
    const f4 xy = __builtin_shufflevector(x, y, 0, 4, 1, 5) + __builtin_shufflevector(x, y, 2, 6, 3, 7);
    const f4 zw = __builtin_shufflevector(z, w, 0, 4, 1, 5) + __builtin_shufflevector(z, w, 2, 6, 3, 7);
    return __builtin_shufflevector(xy, zw, 0, 1, 4, 5) + __builtin_shufflevector(xy, zw, 2, 3, 6, 7);
}

// e^x to 2 ulp for -87 <= x <= 88, clamped outside: 2^n times a polynomial on |r| <= ln(2) / 2
// (coefficients: Cephes mathematical library, expf).
template <class V>
static inline V exp(V x) {
    typedef decltype(x > x) Whole;  // 32-bit integers
    x = min(max(x, splat_as<V>(-87.0f)), splat_as<V>(88.0f));
    const V magic = splat_as<V>(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
    const V n = (x * 1.44269504088896341f + magic) - magic;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = splat_as<V>(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Whole bits = (__builtin_convertvector(n, Whole) + 127) << 23;
    return p * (V)bits;
}

static inline vf sigmoid(vf x) { return 1.0f / (1.0f + exp(-x)); }

// log(1 + e^x) and its slope, the sigmoid. With t = e^-|x|, log(1 + t) = 2 artanh(z), z = t / (2 + t) <= 1/3, whose
// series needs seven terms; one division serves both.
static inline vf softplus(vf x, vf& slope) {
    const vf t = exp(x > 0.0f ? -x : x);
    const vf inverse = 1.0f / ((1.0f + t) * (2.0f + t));
    const vf z = t * (1.0f + t) * inverse, z2 = z * z;
    vf series = splat(1.0f / 13);
    series = series * z2 + 1.0f / 11;
    series = series * z2 + 1.0f / 9;
    series = series * z2 + 1.0f / 7;
    series = series * z2 + 1.0f / 5;
    series = series * z2 + 1.0f / 3;
    series = series * z2 + 1.0f;
    const vf one = (2.0f + t) * inverse;  // 1 / (1 + t)
    slope = x > 0.0f ? one : t * one;
    return max(x, vf{}) + 2.0f * z * series;
}
