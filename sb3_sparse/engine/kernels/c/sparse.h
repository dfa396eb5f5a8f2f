/* Sparse layers. The lanes of one output stay in registers while its row of weights is walked, so an activation is loaded once
   for each weight and nothing else touches memory. */
#pragma once
#include "vector.h"

/* What a row does with its sum. */
enum Store { WITH_BIAS, WITH_BIAS_RELU, PLAIN, MASKED, ADDED };

/* Sums of a row that do not wait for each other: eight hide the latency of a multiplication and addition on two pipes. */
constexpr int CHAINS = VECTORS < 8 ? 8 / VECTORS : 1;

template <Store how> INLINE void store_sum(float *y, const float *h, Vector sum) {
    if (how == WITH_BIAS_RELU) sum = maximum(Vector{}, sum);
    if (how == MASKED) sum = where_positive(load(h), sum);
    if (how == ADDED) sum += load(y);
    store(y, sum);
}

/* y[row[r]] = sum of values[k] * x at offset[k], over the elements k of storage row r. */
template <Store how>
KERNEL void sparse_product(int rows, const int32_t *__restrict start, const int32_t *__restrict row,
                           const int32_t *__restrict offset, const float *__restrict values, const float *__restrict bias,
                           const float *__restrict inputs, float *y, const float *h) {
    const char *x = (const char *)inputs;
    int k = start[0];
    for (int r = 0; r < rows; r++) {
        const int end = start[r + 1], o = row[r];
        Vector sum[CHAINS][VECTORS] = {};
        if (how == WITH_BIAS || how == WITH_BIAS_RELU)
            for (int v = 0; v < VECTORS; v++) sum[0][v] = splat(bias[o]);
        for (; k + CHAINS <= end; k += CHAINS)
#pragma GCC unroll 8
            for (int u = 0; u < CHAINS; u++) {
                const Vector w = splat(values[k + u]);
                const float *lanes = (const float *)(x + offset[k + u]);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) sum[u][v] += w * load(lanes + v * VL);
            }
        for (; k < end; k++) {
            const Vector w = splat(values[k]);
            const float *lanes = (const float *)(x + offset[k]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[0][v] += w * load(lanes + v * VL);
        }
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            Vector total = sum[0][v];
            for (int u = 1; u < CHAINS; u++) total += sum[u][v];
            store_sum<how>(y + (int64_t)o * LANES + v * VL, h + (int64_t)o * LANES + v * VL, total);
        }
    }
}

/* Gradients of up to eight weights of one row, which share the loads of the output's gradient, and of its bias. */
template <int n, bool with_bias>
INLINE void dot_products(const Operand &dy, const float *y, const Operand &x, const int32_t *offset, int64_t panels, bool add,
                         float *gradient, float *bias_gradient) {
    Vector sum[8] = {}, bias = {};
    const char *lanes[n > 0 ? n : 1];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) lanes[i] = (const char *)x.base + offset[i];
    int64_t forward = 0;
    for (int64_t p = 0; p < panels; p++) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            const Vector g = load(y + v * VL);
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) sum[i] += g * load((const float *)(lanes[i] + forward) + v * VL);
            if (with_bias) bias += g;
        }
        y += dy.panel;
        forward += x.panel * (int64_t)sizeof(float);
    }
    float total[8];
    if (n > 2)
        sums_of(sum, total);
    else
        for (int i = 0; i < n; i++) total[i] = sum_of(sum[i]);
    for (int i = 0; i < n; i++) gradient[i] = add ? gradient[i] + total[i] : total[i];
    if (with_bias) *bias_gradient = add ? *bias_gradient + sum_of(bias) : sum_of(bias);
}

template <bool with_bias>
INLINE void dot_products(int n, const Operand &dy, const float *y, const Operand &x, const int32_t *offset, int64_t panels,
                         bool add, float *gradient, float *bias_gradient) {
    switch (n) {
#define CASE(i)                                                                                    \
    case i:                                                                                        \
        dot_products<i, with_bias>(dy, y, x, offset, panels, add, gradient, bias_gradient);        \
        break;
        CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    }
}

KERNEL void sparse_weight_gradient(const Layer &layer, const Operand &dy, const Operand &x, int64_t panels, bool add) {
    for (int r = 0; r < layer.outputs; r++) {
        const int o = layer.row[r], n = layer.start[r + 1] - layer.start[r];
        const float *y = dy.base + (int64_t)o * LANES;
        /* Groups of nearly the same size: eight and one would load the output's gradient as often as five and four. */
        const int groups = (n + 7) / 8;
        int k = layer.start[r];
        for (int j = 0; j < (groups ? groups : 1); j++) {
            const int size = groups ? n / groups + (j < n % groups) : 0;
            if (j == 0)
                dot_products<true>(size, dy, y, x, layer.offset + k, panels, add, layer.gradient + k, layer.bias_gradient + o);
            else
                dot_products<false>(size, dy, y, x, layer.offset + k, panels, add, layer.gradient + k, nullptr);
            k += size;
        }
    }
}

KERNEL void sparse_refresh(const Layer &layer) {
    const int count = layer.t_start[layer.inputs - layer.first];
    for (int k = 0; k < count; k++) layer.transposed[k] = layer.values[layer.t_index[k]];
}

INLINE void sparse_linear(const Layer &layer, const float *a, float *dst, bool relu) {
    (relu ? sparse_product<WITH_BIAS_RELU> : sparse_product<WITH_BIAS>)(layer.outputs, layer.start, layer.row, layer.offset,
                                                                        layer.values, layer.bias, a, dst, dst);
}

INLINE void sparse_input_gradient(const Layer &layer, const float *a, float *dst, const float *c, int flags) {
    (flags & MASK_BY_INPUT        ? sparse_product<MASKED>
     : flags & ADD_INPUT_GRADIENT ? sparse_product<ADDED>
                                  : sparse_product<PLAIN>)(layer.inputs - layer.first, layer.t_start, layer.t_row, layer.t_offset,
                                                           layer.transposed, nullptr, a, dst, c);
}
