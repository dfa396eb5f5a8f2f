/* Gradients of the weights of dense layers. */
#pragma once
#include "dense.h"

/* The lanes of a block of 32 features with the features last, [sample][32]. Features that do not exist are left as they are:
   nothing reads what becomes of them. */
KERNEL void transpose_input(int64_t features, const float *from, int64_t panel, int64_t panels, float *to) {
    for (int64_t p = 0; p < panels; p++, from += panel, to += LANES * LANES)
        for (int64_t j = 0; j < features; j += 8)
            for (int s = 0; s < LANES; s += 8)
                if (j + 8 <= features)
                    transpose(from + j * LANES + s, LANES, to + s * LANES + j, LANES);
                else
                    for (int64_t f = j; f < features; f++)
                        for (int i = s; i < s + 8; i++) to[i * LANES + f] = from[f * LANES + i];
}

/* The samples of panels with their features last, one by one or in pairs. */
INLINE const float *as_columns(int64_t, const float *samples, float *) { return samples; }
INLINE const uint32_t *as_columns(int64_t panels, const float *samples, uint32_t *pairs) {
    for (int64_t s = 0; s < panels * LANES; s += 2)
        pairs_of(LANES, samples + s * LANES, samples + (s + 1) * LANES, pairs + s / 2 * LANES);
    return pairs;
}

/* The gradients of a pack of outputs: those of panel p begin at base + p * panel. */
template <class Number> struct Rates {
    const Number *base;
    int64_t panel;
};
INLINE Rates<float> as_rates(int64_t, int64_t, const float *y, int64_t panel, float *) { return {y, panel}; }
INLINE Rates<uint32_t> as_rates(int64_t rows, int64_t panels, const float *y, int64_t panel, uint32_t *pairs) {
    for (int64_t p = 0; p < panels; p++)
        pairs_in_row(rows * LANES / 2, y + p * panel, pairs + p * PACK * LANES / 2);
    return {pairs, PACK * LANES / 2};
}

template <int rows, class Number>
INLINE void gradient_tile(Rates<Number> dy, const Number *columns, int64_t panels, float *sums) {
    Vector sum[rows][TILE_VECTORS] = {};
    const int64_t steps = steps_of(LANES, columns);
    for (int64_t p = 0; p < panels; p++, dy.base += dy.panel, columns += steps * LANES)
        accumulate<rows>(sum, steps, dy.base, steps, 1, columns);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < TILE_VECTORS; v++) store(sums + r * TILE_LANES + v * VL, sum[r][v]);
}

/* The gradients of `features` weights of a pack of outputs, from sums [8][TILE_LANES]. */
INLINE void store_gradient(const float *sums, int64_t features, bool add, float *gradient) {
    alignas(64) float packed[TILE_LANES * PACK];
    for (int j = 0; j < TILE_LANES; j += 8) transpose(sums + j, TILE_LANES, packed + j * PACK, PACK);
    for (int64_t i = 0; i < features * PACK; i++) gradient[i] = add ? gradient[i] + packed[i] : packed[i];
}

KERNEL void bias_gradient(const Layer &layer, const Operand &dy, int64_t panels, bool add) {
    for (int64_t o = 0; o < layer.outputs; o++) {
        Vector sum[VECTORS] = {};
        for (int64_t p = 0; p < panels; p++)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[v] += load(dy.base + p * dy.panel + o * LANES + v * VL);
        for (int v = 1; v < VECTORS; v++) sum[0] += sum[v];
        layer.bias_gradient[o] = add ? layer.bias_gradient[o] + sum_of(sum[0]) : sum_of(sum[0]);
    }
}

/* An outer product: the output's gradient is the weight, a vector holds features of one sample. */
template <class Number>
KERNEL void dense_weight_gradient(const Layer &layer, const Operand &dy, const Operand &x, int64_t panels, bool add,
                                  float *scratch) {
    alignas(64) Number columns_block[BLOCK * LANES * LANES / 2], rates_block[BLOCK * PACK * LANES / 2];
    const int64_t inputs = layer.inputs, outputs = layer.outputs;
    for (int64_t j = 0; j < inputs; j += LANES) {
        const int64_t features = inputs - j < LANES ? inputs - j : LANES;
        transpose_input(features, x.base + j * LANES, x.panel, panels, scratch);
        const Number *columns = as_columns(panels, scratch, columns_block);
        for (int64_t o = 0; o < outputs; o += PACK) {
            const int64_t rows = outputs - o < PACK ? outputs - o : PACK;
            const Rates<Number> rates = as_rates(rows, panels, dy.base + o * LANES, dy.panel, rates_block);
            for (int64_t lane = 0; lane < features; lane += TILE_LANES) {
                alignas(64) float sums[PACK * TILE_LANES];
                for_tiles(rows, [&](int r, auto count) __attribute__((always_inline)) {
                    const Rates<Number> from = {rates.base + r * steps_of(LANES, columns), rates.panel};
                    gradient_tile<decltype(count)::value>(from, columns + lane, panels, sums + r * TILE_LANES);
                });
                for (int64_t r = rows; r < PACK; r++) memset(sums + r * TILE_LANES, 0, TILE_LANES * sizeof(float));
                const int64_t stored = features - lane < TILE_LANES ? features - lane : TILE_LANES;
                store_gradient(sums, stored, add, layer.gradient + o * inputs + (j + lane) * PACK);
            }
        }
    }
    bias_gradient(layer, dy, panels, add);
}
