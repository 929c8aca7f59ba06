// Distances in an upright box: between two sets of atoms, counted into bins, and of listed pairs, those within a cutoff.
// Called through plain pointers (library.py).
//
// The arithmetic is that of MDAnalysis's distances for such boxes, so that the counts are the same: differences of
// coordinates in single precision, nearest image and root in double.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kTile = 2048;  // pairs whose bins are found before they are counted
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding and taking it off rounds to the nearest integer

struct Set {
  const float *x, *y, *z;
  const int32_t* molecule;  // null where pairs inside molecules count
};

struct Box {
  double edge[3], inverse[3];
};

Box box_of(const float* edges) {
  Box box;
  for (int k = 0; k < 3; ++k) {
    box.edge[k] = edges[k];
    box.inverse[k] = static_cast<float>(1.0 / edges[k]);
  }
  return box;
}

inline double nearest(float difference, double edge, double inverse) {
  const double s = inverse * static_cast<double>(difference);
  return edge * (s - ((s + kRound) - kRound));
}

// Bins of atom i of a with atoms j0 .. j1 of b; pairs that do not count get the bin behind the last.
void bins_of(const Set& a, int64_t i, const Set& b, int64_t j0, int64_t j1, const Box& box, double per_width, int32_t n_bins,
             int32_t* bins) {
  const float xi = a.x[i], yi = a.y[i], zi = a.z[i];
  const double last = n_bins;
  for (int64_t j = j0; j < j1; ++j) {
    const double dx = nearest(b.x[j] - xi, box.edge[0], box.inverse[0]);
    const double dy = nearest(b.y[j] - yi, box.edge[1], box.inverse[1]);
    const double dz = nearest(b.z[j] - zi, box.edge[2], box.inverse[2]);
    const double scaled = std::sqrt(dx * dx + dy * dy + dz * dz) * per_width;
    bins[j - j0] = static_cast<int32_t>(scaled < last ? scaled : last);
  }
  if (a.molecule == nullptr) return;
  const int32_t own = a.molecule[i];
  for (int64_t j = j0; j < j1; ++j) bins[j - j0] = b.molecule[j] == own ? n_bins : bins[j - j0];
}

void count_rows(const Set& a, int64_t n_a, const Set& b, int64_t n_b, bool like, const Box& box, double per_width,
                int32_t n_bins, int64_t first, int64_t stride, std::vector<int64_t>& counts) {
  std::vector<int32_t> bins(kTile), even(n_bins + 1, 0), odd(n_bins + 1, 0);
  int64_t waiting = 0;  // in the small counters, which could overflow
  const auto empty = [&] {
    for (int32_t k = 0; k <= n_bins; ++k) counts[k] += static_cast<int64_t>(even[k]) + odd[k];
    std::fill(even.begin(), even.end(), 0);
    std::fill(odd.begin(), odd.end(), 0);
    waiting = 0;
  };
  for (int64_t i = first; i < n_a; i += stride) {
    for (int64_t j0 = like ? i + 1 : 0; j0 < n_b; j0 += kTile) {
      const int64_t j1 = std::min(j0 + kTile, n_b), n = j1 - j0;
      bins_of(a, i, b, j0, j1, box, per_width, n_bins, bins.data());
      int64_t k = 0;
      for (; k + 1 < n; k += 2) {  // two tables: a bin that repeats does not wait for itself
        ++even[bins[k]];
        ++odd[bins[k + 1]];
      }
      if (k < n) ++even[bins[k]];
      waiting += n;
    }
    if (waiting > (int64_t{1} << 30)) empty();
  }
  empty();
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const char* omnicalc_source() { return OMNICALC_SOURCE; }

// a (3, n_a), b (3, n_b): coordinates, x first; edges (3,); molecule numbers or null; counts (n_bins,) are set.
// like: a is b, and each pair counts twice; an atom with itself never.
__attribute__((visibility("default"))) void omnicalc_count_pairs(const float* a, int64_t n_a, const int32_t* of_a,
                                                                 const float* b, int64_t n_b, const int32_t* of_b,
                                                                 int32_t like, const float* edges, double per_width,
                                                                 int32_t n_bins, int32_t threads, int64_t* counts) {
  const Set first{a, a + n_a, a + 2 * n_a, of_a}, second{b, b + n_b, b + 2 * n_b, of_b};
  const Box box = box_of(edges);
  const int64_t n = std::max<int64_t>(1, std::min<int64_t>(threads, n_a));
  std::vector<std::vector<int64_t>> parts(n, std::vector<int64_t>(n_bins + 1, 0));
  const auto work = [&](int64_t t) {
    count_rows(first, n_a, second, n_b, like != 0, box, per_width, n_bins, t, n, parts[t]);
  };
  std::vector<std::thread> others;
  others.reserve(n);
  int64_t t = 1;
  try {
    for (; t < n; ++t) others.emplace_back(work, t);
  } catch (const std::system_error&) {  // no more threads to be had: the other parts are done here
  }
  work(0);
  for (; t < n; ++t) work(t);
  for (auto& other : others) other.join();
  for (int32_t k = 0; k < n_bins; ++k) {
    counts[k] = 0;
    for (const auto& part : parts) counts[k] += part[k];
    if (like) counts[k] *= 2;
  }
}

// x (atoms, 3); pairs of atoms a[k], b[k], k < n; edges (3,), or null without a box. The places k of the pairs up to the
// cutoff go into places, their distances into distances, both with room for n; returns how many there are.
__attribute__((visibility("default"))) int64_t omnicalc_within(const float* x, const int64_t* a, const int64_t* b, int64_t n,
                                                               const float* edges, double cutoff, int64_t* places,
                                                               double* distances) {
  const Box box = edges != nullptr ? box_of(edges) : Box{};
  double tile[kTile];
  int64_t found = 0;
  for (int64_t k0 = 0; k0 < n; k0 += kTile) {
    const int64_t size = std::min(kTile, n - k0);
    if (edges != nullptr) {
      for (int64_t k = 0; k < size; ++k) {
        const float *p = x + 3 * a[k0 + k], *q = x + 3 * b[k0 + k];
        const double dx = nearest(p[0] - q[0], box.edge[0], box.inverse[0]);
        const double dy = nearest(p[1] - q[1], box.edge[1], box.inverse[1]);
        const double dz = nearest(p[2] - q[2], box.edge[2], box.inverse[2]);
        tile[k] = std::sqrt(dx * dx + dy * dy + dz * dz);
      }
    } else {
      for (int64_t k = 0; k < size; ++k) {
        const float *p = x + 3 * a[k0 + k], *q = x + 3 * b[k0 + k];
        const double dx = p[0] - q[0], dy = p[1] - q[1], dz = p[2] - q[2];
        tile[k] = std::sqrt(dx * dx + dy * dy + dz * dz);
      }
    }
    for (int64_t k = 0; k < size; ++k) {  // written always, kept where it is near: no branch to guess
      places[found] = k0 + k;
      distances[found] = tile[k];
      found += tile[k] <= cutoff;
    }
  }
  return found;
}
}
