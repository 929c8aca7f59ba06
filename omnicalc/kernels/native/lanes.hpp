// Vectors of either precision, as wide as the widest registers that the compiler was allowed.
#pragma once
#include <cmath>

#include "simd.hpp"

template <class T>
struct Lanes {
    typedef T type __attribute__((vector_size(4 * VW)));
    static constexpr int N = 4 * VW / sizeof(T);
};
template <class T>
using Vec = typename Lanes<T>::type;

// The first m lanes; WHOLE says at compile time that they are all.
template <bool WHOLE, class T>
static inline Vec<T> get(const T* p, int m) {
    Vec<T> x = {};
    if constexpr (WHOLE) std::memcpy(&x, p, sizeof x);
    else std::memcpy(&x, p, m * sizeof(T));
    return x;
}
template <bool WHOLE, class T>
static inline void put(T* p, Vec<T> x, int m) {
    if constexpr (WHOLE) std::memcpy(p, &x, sizeof x);
    else std::memcpy(p, &x, m * sizeof(T));
}

// e^x for x <= 0, lane by lane; float64 is for reference and takes its time.
static inline void exp_lanes(Vec<float>& x) { x = exp(x); }
static inline void exp_lanes(Vec<double>& x) {
    for (int i = 0; i < Lanes<double>::N; ++i) x[i] = std::exp(x[i]);
}

// sigmoid(x) with its first two derivatives by x, and what e^-|x| gives besides.
template <class T>
struct Sigmoid {
    Vec<T> small, inverse, value, slope, curvature;  // small = e^-|x|, inverse = 1 / (1 + small)
    explicit Sigmoid(Vec<T> x) : small(x > 0 ? -x : x) {
        exp_lanes(small);
        inverse = 1 / (1 + small), value = (x > 0 ? 1 + Vec<T>{} : small) * inverse;
        slope = small * inverse * inverse, curvature = slope * (1 - 2 * value);
    }
};
