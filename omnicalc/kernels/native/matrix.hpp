// Small dense matrices in the layout that the products below read, with their transposes for the backward pass.
#pragma once
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include "simd.hpp"

// Zero-initialised floats, aligned to a cache line; grows, never shrinks.
struct Buffer {
    float* data = nullptr;
    size_t size = 0;
    Buffer() = default;
    explicit Buffer(size_t n) { reserve(n); }
    Buffer(Buffer&& other) noexcept : data(other.data), size(other.size) { other.data = nullptr, other.size = 0; }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data, other.data), std::swap(size, other.size);
        return *this;
    }
    ~Buffer() { std::free(data); }
    void reserve(size_t n) {
        if (n <= size) return;
        n = (n + 15) / 16 * 16;
        std::free(data);
        data = static_cast<float*>(std::aligned_alloc(64, n * sizeof(float)));
        if (!data) {
            size = 0;
            throw std::bad_alloc();
        }
        std::memset(data, 0, n * sizeof(float));
        size = n;
    }
    float* operator+(size_t offset) const { return data + offset; }
};

inline int padded(int n) { return (n + VW - 1) / VW * VW; }

// Which source entry stands at each place of a padded axis; -1: none, a zero.
typedef std::vector<int> Places;

inline Places padded_places(int n) {
    Places places(padded(n), -1);
    for (int i = 0; i < n; ++i) places[i] = i;
    return places;
}

// Places of several blocks of length n, each padded on its own.
inline Places padded_blocks(int blocks, int n) {
    Places places;
    for (int b = 0; b < blocks; ++b)
        for (int i : padded_places(n)) places.push_back(i < 0 ? -1 : b * n + i);
    return places;
}

struct Matrix {
    int in = 0, out = 0;  // padded
    Buffer forward, backward;  // (in, out) and (out, in), row-major

    Matrix() = default;
    // From w (rows of the output, columns of the input: n_in of them) times a number, spread to the given places.
    Matrix(const float* w, int n_in, const Places& ins, const Places& outs, double scale = 1)
        : in(ins.size()), out(outs.size()), forward(ins.size() * outs.size()), backward(ins.size() * outs.size()) {
        for (int i = 0; i < in; ++i)
            for (int o = 0; o < out; ++o)
                if (ins[i] >= 0 && outs[o] >= 0)
                    forward.data[i * out + o] = backward.data[o * in + i] = scale * w[outs[o] * n_in + ins[i]];
    }
};

inline Buffer spread(const float* v, const Places& places) {
    Buffer buffer(places.size());
    for (size_t i = 0; i < places.size(); ++i) buffer.data[i] = places[i] < 0 ? 0.0f : v[places[i]];
    return buffer;
}

// An array of rows of numbers in blocks of one vector: number c of a row stands at its offset + c / VW * step + c % VW.
// With step = VW a row is contiguous.
struct Rows {
    float* data;
    const int* offset;
    int step;
};

// Y (+)= X W + bias for MR rows and NB vectors of columns, whose accumulators stay in registers once loops are unrolled.
template <int MR, int NB, bool ADD>
static void product_block(const Rows& x, int row, const float* w, int k, int m, const float* bias, const Rows& y, int column) {
    vf acc[MR][NB];
    const float* from[MR];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
        from[r] = x.data + x.offset[row + r];
        for (int b = 0; b < NB; ++b) acc[r][b] = bias ? load(bias + column + b * VW) : vf{};
    }
    for (const float* at = w + column; k > 0; k -= VW) {
        for (int i = 0; i < VW; ++i, at += m) {
            vf weights[NB];
            for (int b = 0; b < NB; ++b) weights[b] = load(at + b * VW);
#pragma GCC unroll 16
            for (int r = 0; r < MR; ++r)
                for (int b = 0; b < NB; ++b) acc[r][b] += from[r][i] * weights[b];
        }
        for (int r = 0; r < MR; ++r) from[r] += x.step;
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
        for (int b = 0; b < NB; ++b) {
            float* to = y.data + y.offset[row + r] + (column / VW + b) * y.step;
            store(to, ADD ? load(to) + acc[r][b] : acc[r][b]);
        }
}

// The same for any number of rows up to MR.
template <int NB, bool ADD, int MR = GEMM_ROWS>
static void product_rows(int rows, const Rows& x, int row, const float* w, int k, int m, const float* bias, const Rows& y,
                         int column) {
    if (rows == MR) product_block<MR, NB, ADD>(x, row, w, k, m, bias, y, column);
    else if constexpr (MR > 1) product_rows<NB, ADD, MR - 1>(rows, x, row, w, k, m, bias, y, column);
}

// The same for n rows, in pieces as equal as they can be.
template <int NB, bool ADD>
static void product_columns(int n, const Rows& x, const float* w, int k, int m, const float* bias, const Rows& y,
                            int column) {
    const int pieces = (n + GEMM_ROWS - 1) / GEMM_ROWS;
    for (int p = 0, row = 0, next; p < pieces; ++p, row = next) {
        next = n * (p + 1) / pieces;
        product_rows<NB, ADD>(next - row, x, row, w, k, m, bias, y, column);
    }
}

// n rows of Y (., m) from X (., k) and W (k, m), row-major; all widths are whole vectors.
template <bool ADD = false>
static void product(int n, const Rows& x, const Buffer& w, int k, int m, const float* bias, const Rows& y) {
    int c = 0;
    for (; c + 2 * VW <= m; c += 2 * VW) product_columns<2, ADD>(n, x, w.data, k, m, bias, y, c);
    if (c < m) product_columns<1, ADD>(n, x, w.data, k, m, bias, y, c);
}
