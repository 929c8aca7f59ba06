// How first-order attention couples the features of a source with the unit vector of an edge, as tables that the compiler
// unrolls.
//
// Of degrees l1 and l3 at most one apart, "component" w = 0, 1, 2 of the vector, or 3 (0, where there is no vector) for
// the plain sum. Coupled rows are ordered by (l3, m3, path): ascending l1, and the plain sum last. Without its path's
// scale, which belongs to the map that follows, most coefficients are 1. Symbols: omnicalc.models.e2former.angular.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>

namespace coupling {

constexpr double ROOT_3 = 1.7320508075688772;

// Symmetric traceless matrices of degree 2, times sqrt(2), and the antisymmetric symbol.
constexpr double S[5][3][3] = {{{0, 0, 1}, {0, 0, 0}, {1, 0, 0}},
                               {{0, 1, 0}, {1, 0, 0}, {0, 0, 0}},
                               {{-1 / ROOT_3, 0, 0}, {0, 2 / ROOT_3, 0}, {0, 0, -1 / ROOT_3}},
                               {{0, 0, 0}, {0, 0, 1}, {0, 1, 0}},
                               {{-1, 0, 0}, {0, 0, 0}, {0, 0, 1}}};
constexpr double E[3][3][3] = {{{0, 0, 0}, {0, 0, 1}, {0, -1, 0}},
                               {{0, 0, -1}, {0, 0, 0}, {1, 0, 0}},
                               {{0, 1, 0}, {-1, 0, 0}, {0, 0, 0}}};

// Coefficient of (l1, m1) and component w of the vector in (l3, m3), without the scale of the path.
constexpr double symbol(int l1, int m1, int w, int l3, int m3) {
    if (l1 == 0) return w == m3;
    if (l3 == 0) return w == m1;
    if (l1 == 1) return l3 == 1 ? E[m1][w][m3] : S[m3][m1][w];
    if (l3 == 1) return S[m1][w][m3];
    double total = 0;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) total += S[m1][i][k] * E[k][w][j] * S[m3][j][i];
    return total;
}

inline double path_scale(int l1, int l3) {
    if (l1 == 0) return 1;
    if (l3 == 0) return 1 / ROOT_3;
    if (l1 == 1) return std::sqrt(0.5);
    return l3 == 1 ? std::sqrt(0.3) : std::sqrt(1.0 / 6);
}

// Row "out" of a sum over neighbours gets coefficient * component of the vector * row "in" of the source.
struct Term {
    int out, component, in;
    float coefficient;
};

template <size_t N>
constexpr auto by_in(std::array<Term, N> terms) {
    std::sort(terms.begin(), terms.end(), [](Term a, Term b) { return a.in != b.in ? a.in < b.in : a.out < b.out; });
    return terms;
}

// All products of components and rows, uncoupled: rows out (component, row). In two parts, as registers are few.
template <int DEGREES, int COMPONENTS>
struct Moments {
    static constexpr int W = COMPONENTS, R = DEGREES * DEGREES, OUT = W * R, PARTS = DEGREES == 3 ? 2 : 1;
    static constexpr int part(Term t) { return t.in >= 4; }

    static constexpr auto by_out() {
        std::array<Term, OUT> terms{};
        for (int out = 0; out < OUT; ++out) terms[out] = {out, out / R, out % R, 1.0f};
        return terms;
    }
    static constexpr auto BY_OUT = by_out(), BY_IN = by_in(by_out());
};

// Coupled rows of a layer. MIRROR: no path leads from a degree to itself but the plain sum.
template <int DEGREES, int COMPONENTS, bool MIRROR>
struct Form {
    static constexpr int W = COMPONENTS;
    static constexpr int PARTS = 1;
    static constexpr int part(Term) { return 0; }
    static constexpr bool FIRST = W >= 3, ZERO = W != 3;
    // What is summed over neighbours. With mirror symmetry there are fewer coupled rows than moments and about as many
    // terms, so each edge is coupled by itself; without it, twice as many terms, and their moments are coupled.
    static constexpr bool EDGES = MIRROR;
    using Summed = std::conditional_t<EDGES, Form, Moments<DEGREES, W>>;

    // Degree l1 of path p to l3; -1 for the plain sum, -2 where there is no such path.
    static constexpr int from(int l3, int p) {
        if (FIRST)
            for (int l1 = std::max(l3 - 1, 0); l1 < std::min(l3 + 2, DEGREES); ++l1) {
                if (l1 == l3 && (MIRROR || l1 == 0)) continue;
                if (p-- == 0) return l1;
            }
        return ZERO && p == 0 ? -1 : -2;
    }
    static constexpr int paths(int l3) {
        int n = 0;
        while (from(l3, n) > -2) ++n;
        return n;
    }
    static double scale(int l3, int p) { return from(l3, p) < 0 ? 1 : path_scale(from(l3, p), l3); }
    static constexpr int start(int l3) { return l3 ? start(l3 - 1) + (2 * l3 - 1) * paths(l3 - 1) : 0; }
    static constexpr int OUT = start(DEGREES);

    template <class Body>
    static constexpr void visit(const Body& body) {
        for (int l3 = 0; l3 < DEGREES; ++l3)
            for (int m3 = 0; m3 < 2 * l3 + 1; ++m3)
                for (int p = 0; p < paths(l3); ++p) {
                    const int l1 = from(l3, p), out = start(l3) + m3 * paths(l3) + p;
                    if (l1 < 0) body(Term{out, W - 1, l3 * l3 + m3, 1.0f});
                    else
                        for (int m1 = 0; m1 < 2 * l1 + 1; ++m1)
                            for (int w = 0; w < 3; ++w)
                                if (const double c = symbol(l1, m1, w, l3, m3)) body(Term{out, w, l1 * l1 + m1, (float)c});
                }
    }
    static constexpr int count() {
        int n = 0;
        visit([&](Term) { ++n; });
        return n;
    }
    static constexpr auto by_out() {
        std::array<Term, count()> terms{};
        int n = 0;
        visit([&](Term t) { terms[n++] = t; });
        return terms;
    }
    static constexpr auto BY_OUT = by_out(), BY_IN = by_in(by_out());
};

// Calls body<term> for each term of a list.
template <auto TERMS, class Body>
static inline void each(const Body& body) {
    [&]<size_t... I>(std::index_sequence<I...>) { (body.template operator()<TERMS[I]>(), ...); }(
        std::make_index_sequence<TERMS.size()>());
}

}  // namespace coupling
