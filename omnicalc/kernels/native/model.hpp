// The weights of one E2Former-V2, read from a flat array of numbers and laid out for the kernels.
//
// Layout of features: (atom, block of channels, row, lane), rows ordered by degree, channels padded to whole blocks of
// one vector; so a row lies at the same distance from its neighbours whatever the width. Attention heads live in lanes:
// channel c belongs to head c mod H, so lane g of the "head lanes" holds head g mod H, and block b of channels goes with
// block b mod (blocks of head lanes). Replicated lanes are treated as heads of their own; their gradients add up where
// the lanes were made, in the transposed matrices. Where half a vector holds all heads, head lanes are half a vector.
#pragma once
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "coupling.hpp"
#include "matrix.hpp"

constexpr int MAX_WIDTH = 512;
constexpr int SPLINE_DEGREE = 5;
constexpr int HALF = VW > 4 ? VW / 2 : VW;  // lanes for few attention heads
enum Weights { SOFTPLUS = 0, SIGMOID = 1, SOFTMAX = 2 };

// Reads a flat array front to back.
struct Reader {
    const float* at;
    int64_t left;
    const float* take(int64_t n) {
        if (n > left) throw std::invalid_argument("fewer weights than the settings need");
        const float* here = at;
        at += n, left -= n;
        return here;
    }
};

struct Layer {
    int components;  // 1: plain sum over neighbours; 3: times the unit vector; 4: both
    Buffer gamma1, beta1, gamma2, beta2;
    std::vector<Matrix> maps;  // per degree: C -> query and key, first and second factor
    Buffer maps_bias;
    std::vector<Matrix> value;
    Buffer value_bias;
    Matrix hidden[2], lanes[2];  // query, key
    Buffer hidden_bias[2], norm_gamma[2], norm_beta[2], lanes_bias[2];
    bool mirror;  // no path leads from a degree to itself but the plain sum
    int coupled, summed;  // rows, see coupling.hpp: of the couplings, of the sum over neighbours
    std::vector<std::vector<Matrix>> mix;  // per degree and path
    Buffer mix_bias;
    Matrix gate;
    Buffer gate_bias;
    std::vector<Matrix> ffn_in, ffn_out;  // ffn_in has no degree 0
    Buffer ffn_bias;
};

// Calls body<Form> for the form of the attention of a layer.
template <int DEGREES, class Body>
static void by_form(const Layer& w, const Body& body) {
    using coupling::Form;
    if (w.components == 1) body.template operator()<Form<DEGREES, 1, true>>();
    else if (w.components == 3 && w.mirror) body.template operator()<Form<DEGREES, 3, true>>();
    else if (w.components == 3) body.template operator()<Form<DEGREES, 3, false>>();
    else if (w.mirror) body.template operator()<Form<DEGREES, 4, true>>();
    else body.template operator()<Form<DEGREES, 4, false>>();
}
template <class Body>
static void by_form(int degrees, const Layer& w, const Body& body) {
    if (degrees == 3) by_form<3>(w, body);
    else by_form<2>(w, body);
}

struct EnergyHead {
    Matrix first, second;
    Buffer bias1, bias2, last;
    float bias3;
};

struct Model {
    int degrees, rows, channels, width, layers, hidden, hidden_width, elements, n_heads;
    int heads, head_vector, head_lanes, query_width, query_lanes;  // attention; lanes of a vector of heads, of all, of a query
    int envelope;
    float cutoff;
    Weights weights;
    Buffer core_radius;  // (target, source); 0: none
    float core_height;
    Buffer type_embedding, mask, hidden_mask, row_weight;
    std::vector<Layer> layer;
    Buffer gamma, beta;
    std::vector<EnergyHead> energy;
    // Control points of uniform B-splines, so that neighbouring intervals share all but one of their rows.
    // Every element pair has a grid of its own, whatever other elements there are: its results are the same in all company.
    std::vector<int> intervals, first;  // of the pair; where its points begin
    Buffer radial;  // (point of all pairs, block, degree, lane): embedding, envelope included
    std::vector<Buffer> gates;  // per layer (point of all pairs, block of head lanes, gate or factor, lane)

    Model(const int32_t* settings, float cutoff_, Reader weights_, Reader table) {
        const int32_t* s = settings;
        degrees = *s++ + 1, channels = *s++, heads = *s++, query_width = *s++, layers = *s++, hidden = *s++;
        elements = *s++, n_heads = *s++, envelope = *s++, weights = (Weights)*s++;
        cutoff = cutoff_, rows = degrees * degrees, width = padded(channels), hidden_width = padded(hidden);
        if (width > MAX_WIDTH) throw std::invalid_argument("too many channels");
        if (degrees < 2 || degrees > 3) throw std::invalid_argument("l_max must be 1 or 2");
        head_vector = heads <= HALF && HALF % heads == 0 ? HALF : VW;
        head_lanes = std::min(std::lcm(heads, head_vector), width), query_lanes = padded(query_width * head_lanes);
        Reader& w = weights_;
        const Places c = padded_places(channels);
        core_radius = rows_of(w, 1, padded_places(elements * elements)), core_height = *w.take(1);
        type_embedding = rows_of(w, elements, c);
        mask = Buffer(width), hidden_mask = Buffer(hidden_width), row_weight = Buffer(rows);
        std::fill_n(mask.data, channels, 1.0f);
        std::fill_n(hidden_mask.data, hidden, 1.0f);
        for (int l = 0; l < degrees; ++l)
            for (int r = l * l; r < (l + 1) * (l + 1); ++r) row_weight.data[r] = 1.0f / ((2 * l + 1) * degrees * channels);
        for (int k = 0; k < layers; ++k) layer.push_back(read_layer(w, c, *s++));
        gamma = rows_of(w, degrees, c), beta = rows_of(w, 1, c);
        for (int h = 0; h < n_heads; ++h) energy.push_back(read_head(w, c));
        if (w.left) throw std::invalid_argument("more weights than the settings need");
        read_tables(s, table);
    }

    int pair(int target, int source) const { return target * elements + source; }

private:
    static Buffer rows_of(Reader& w, int n, const Places& places) {
        const int size = std::count_if(places.begin(), places.end(), [](int p) { return p >= 0; });
        Buffer buffer(n * places.size());
        for (int r = 0; r < n; ++r) {
            const float* row = w.take(size);
            for (size_t i = 0; i < places.size(); ++i)
                if (places[i] >= 0) buffer.data[r * places.size() + i] = row[places[i]];
        }
        return buffer;
    }

    static Places query_places(int heads, int query_width, int head_lanes) {  // the model orders (head, component)
        Places places;
        for (int d = 0; d < query_width; ++d)
            for (int g = 0; g < head_lanes; ++g) places.push_back(g % heads * query_width + d);
        places.resize(padded(places.size()), -1);
        return places;
    }

    Places path_places(const Places& c, int path) const {  // columns of one path among those of a degree
        Places places = c;
        for (int& at : places)
            if (at >= 0) at += path * channels;
        return places;
    }

    Layer read_layer(Reader& w, const Places& c, int components) const {
        Layer y;
        y.components = components;
        y.gamma1 = rows_of(w, degrees, c), y.beta1 = rows_of(w, 1, c);
        const Places four = padded_blocks(4, hidden), h = padded_places(hidden), joined = padded_blocks(degrees, hidden);
        for (int l = 0; l < degrees; ++l) y.maps.emplace_back(w.take(4 * hidden * channels), channels, c, four);
        y.maps_bias = spread(w.take(4 * hidden), four);
        for (int l = 0; l < degrees; ++l) y.value.emplace_back(w.take(channels * channels), channels, c, c);
        y.value_bias = spread(w.take(channels), c);
        const Places lanes = query_places(heads, query_width, head_lanes);
        for (int side = 0; side < 2; ++side) {
            y.hidden[side] = Matrix(w.take(hidden * degrees * hidden), degrees * hidden, joined, h);
            y.hidden_bias[side] = rows_of(w, 1, h);
            y.norm_gamma[side] = rows_of(w, 1, h), y.norm_beta[side] = rows_of(w, 1, h);
            y.lanes[side] = Matrix(w.take(heads * query_width * hidden), hidden, h, lanes);
            y.lanes_bias[side] = spread(w.take(heads * query_width), lanes);
        }
        y.mirror = *w.take(1) != 0;
        by_form(degrees, y, [&]<class F>() {
            y.coupled = F::OUT, y.summed = F::Summed::OUT;
            for (int l = 0; l < degrees; ++l) {
                const int n = F::paths(l);
                const float* maps = w.take(channels * n * channels);
                y.mix.emplace_back();
                for (int p = 0; p < n; ++p) y.mix[l].emplace_back(maps, n * channels, path_places(c, p), c, F::scale(l, p));
            }
        });
        y.mix_bias = rows_of(w, 1, c);
        y.gamma2 = rows_of(w, degrees, c), y.beta2 = rows_of(w, 1, c);
        const Places gates = padded_blocks(degrees, channels);
        y.gate = Matrix(w.take(degrees * channels * channels), channels, c, gates);
        y.gate_bias = spread(w.take(degrees * channels), gates);
        for (int l = 1; l < degrees; ++l) y.ffn_in.emplace_back(w.take(channels * channels), channels, c, c);
        for (int l = 0; l < degrees; ++l) y.ffn_out.emplace_back(w.take(channels * channels), channels, c, c);
        y.ffn_bias = rows_of(w, 1, c);
        return y;
    }

    EnergyHead read_head(Reader& w, const Places& c) const {
        EnergyHead y;
        y.first = Matrix(w.take(channels * channels), channels, c, c), y.bias1 = rows_of(w, 1, c);
        y.second = Matrix(w.take(channels * channels), channels, c, c), y.bias2 = rows_of(w, 1, c);
        y.last = rows_of(w, 1, c), y.bias3 = *w.take(1);
        return y;
    }

    void read_tables(const int32_t* of_pair, Reader& table) {
        size_t n = 0;
        for (int p = 0; p < elements * elements; ++p) {
            intervals.push_back(of_pair[p]), first.push_back(n);
            n += of_pair[p] + SPLINE_DEGREE;
        }
        radial = Buffer(n * degrees * width);
        for (int k = 0; k < layers; ++k) gates.emplace_back(n * 2 * head_lanes);
        for (size_t i = 0; i < n; ++i) {
            const float* from = table.take(degrees * channels + layers * 2 * heads);
            for (int l = 0; l < degrees; ++l)
                for (int c = 0; c < channels; ++c)
                    radial.data[((i * (width / VW) + c / VW) * degrees + l) * VW + c % VW] = *from++;
            for (int k = 0; k < layers; ++k, from += 2 * heads)
                for (int which = 0; which < 2; ++which)
                    for (int g = 0; g < head_lanes; ++g) {
                        const size_t block = i * (head_lanes / head_vector) + g / head_vector;
                        gates[k].data[(block * 2 + which) * head_vector + g % head_vector] = from[which * heads + g % heads];
                    }
        }
        if (table.left) throw std::invalid_argument("a larger radial table than the settings need");
    }
};
