/* Dense layers. A tile of outputs times lanes stays in registers while the inputs are walked. */
#pragma once
#include "sparse.h"
#include "vector.h"

constexpr int PACK = 8;
/* A tile: outputs times vectors. Sixteen registers hold eight sums, the inputs and a weight; thirty-two hold sixteen sums. */
constexpr int TILE_ROWS = VL == 16 ? 8 : 4;
constexpr int TILE_VECTORS = 2;

/* Walks `inputs` times LANES floats and as many packs of weights. */
template <Store how>
KERNEL void dense_product(int outputs, int inputs, const float *__restrict weights, const float *__restrict bias,
                          const float *__restrict x, float *y, const float *h) {
    for (int o = 0; o < outputs; o += TILE_ROWS) {
        const float *pack = weights + (int64_t)(o / PACK) * inputs * PACK + o % PACK;
        for (int lane = 0; lane < LANES; lane += TILE_VECTORS * VL) {
            Vector sum[TILE_ROWS][TILE_VECTORS] = {};
            if (how == WITH_BIAS || how == WITH_BIAS_RELU)
                for (int r = 0; r < TILE_ROWS; r++)
                    for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] = splat(bias[o + r]);
            const float *w = pack, *lanes = x + lane;
            for (int i = 0; i < inputs; i++, w += PACK, lanes += LANES) {
                Vector in[TILE_VECTORS];
#pragma GCC unroll 8
                for (int v = 0; v < TILE_VECTORS; v++) in[v] = load(lanes + v * VL);
#pragma GCC unroll 8
                for (int r = 0; r < TILE_ROWS; r++) {
                    const Vector weight = splat(w[r]);
#pragma GCC unroll 8
                    for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] += weight * in[v];
                }
            }
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
                for (int v = 0; v < TILE_VECTORS; v++) {
                    const int64_t at = (int64_t)(o + r) * LANES + lane + v * VL;
                    store_sum<how>(y + at, h + at, sum[r][v]);
                }
        }
    }
}

/* The input in [block of 32 features][sample][32], so that a vector holds features of one sample. What lies beyond the last
   feature is left as it is: nothing reads those sums. */
KERNEL void transpose_input(int inputs, const Operand &x, int64_t panels, float *scratch) {
    for (int64_t p = 0; p < panels; p++) {
        const float *lanes = x.base + p * x.panel;
        for (int j = 0; j < inputs; j++) {
            float *column = scratch + ((j / LANES) * panels + p) * LANES * LANES + j % LANES;
            for (int s = 0; s < LANES; s++) column[s * LANES] = lanes[(int64_t)j * LANES + s];
        }
    }
}

KERNEL void dense_weight_gradient(const Layer &layer, const Operand &dy, const Operand &x, int64_t panels, bool add,
                                  float *scratch) {
    const int inputs = layer.inputs, outputs = layer.outputs;
    transpose_input(inputs, x, panels, scratch);
    for (int j0 = 0; j0 < inputs; j0 += LANES) {
        const float *block = scratch + (int64_t)(j0 / LANES) * panels * LANES * LANES;
        for (int part = 0; part < LANES && j0 + part < inputs; part += TILE_VECTORS * VL)
            for (int o = 0; o < (outputs + PACK - 1) / PACK * PACK; o += TILE_ROWS) {
                Vector sum[TILE_ROWS][TILE_VECTORS] = {};
                const float *columns = block + part;
                for (int64_t p = 0; p < panels; p++) {
                    const float *y = dy.base + p * dy.panel + (int64_t)o * LANES;
                    for (int s = 0; s < LANES; s++, columns += LANES) {
                        Vector in[TILE_VECTORS];
#pragma GCC unroll 8
                        for (int v = 0; v < TILE_VECTORS; v++) in[v] = load(columns + v * VL);
#pragma GCC unroll 8
                        for (int r = 0; r < TILE_ROWS; r++) {
                            const Vector g = splat(y[r * LANES + s]);
#pragma GCC unroll 8
                            for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] += g * in[v];
                        }
                    }
                }
                float *gradient = layer.gradient + ((int64_t)(o / PACK) * inputs + j0 + part) * PACK + o % PACK;
                for (int j = 0; j < TILE_VECTORS * VL && j0 + part + j < inputs; j++)
                    for (int r = 0; r < TILE_ROWS; r++) {
                        /* Outputs that do not exist have no gradient, whatever their lanes hold. */
                        const float total = o + r < outputs ? sum[r][j / VL][j % VL] : 0.0f;
                        gradient[j * PACK + r] = add ? gradient[j * PACK + r] + total : total;
                    }
            }
    }
    for (int o = 0; o < outputs; o++) {
        Vector sum = {};
        for (int64_t p = 0; p < panels; p++)
            for (int v = 0; v < VECTORS; v++) sum += load(dy.base + p * dy.panel + (int64_t)o * LANES + v * VL);
        layer.bias_gradient[o] = add ? layer.bias_gradient[o] + sum_of(sum) : sum_of(sum);
    }
}

/* [ceil(outputs / 8)][inputs][8] to [ceil((inputs - first) / 8)][outputs][8], with zeros for inputs that do not exist. */
KERNEL void dense_refresh(const Layer &layer) {
    const int rows = layer.inputs - layer.first;
    for (int j = 0; j < (rows + PACK - 1) / PACK * PACK; j++) {
        float *to = layer.transposed + (int64_t)(j / PACK) * layer.outputs * PACK + j % PACK;
        for (int o = 0; o < layer.outputs; o++) {
            const int64_t from = ((int64_t)(o / PACK) * layer.inputs + layer.first + j) * PACK + o % PACK;
            to[o * PACK] = j < rows ? layer.values[from] : 0.0f;
        }
    }
}

INLINE int padded(int features) { return (features + PACK - 1) / PACK * PACK; }

INLINE void dense_linear(const Layer &layer, const float *a, float *dst, bool relu) {
    (relu ? dense_product<WITH_BIAS_RELU> : dense_product<WITH_BIAS>)(padded(layer.outputs), layer.inputs, layer.values,
                                                                      layer.bias, a, dst, dst);
}

INLINE void dense_input_gradient(const Layer &layer, const float *a, float *dst, const float *c, int flags) {
    (flags & MASK_BY_INPUT        ? dense_product<MASKED>
     : flags & ADD_INPUT_GRADIENT ? dense_product<ADDED>
                                  : dense_product<PLAIN>)(padded(layer.inputs - layer.first), layer.outputs, layer.transposed,
                                                          nullptr, a, dst, c);
}
