/* Sparse layers. The lanes of one output stay in registers while its row of weights is walked, so an activation is loaded once
   for each weight and nothing else touches memory. */
#pragma once
#include "vector.h"

/* What a row does with its sum. */
enum Store { WITH_BIAS, WITH_BIAS_RELU, PLAIN, MASKED };

/* Sums of a row that do not wait for each other: eight hide the latency of a multiplication and addition on two pipes. Between
   short rows the processor finds enough that is independent, and adding the sums up would cost more than it saves. */
constexpr int CHAINS = VECTORS < 8 ? 8 / VECTORS : 1, SHORT_ROW = 8;

template <Store how> INLINE void store_sum(float *y, const float *h, Vector sum) {
    if (how == WITH_BIAS_RELU) sum = maximum(Vector{}, sum);
    if (how == MASKED) sum = where_positive(load(h), sum);
    store(y, sum);
}

/* Four weights in one load, and each of them in all lanes without another one: loads are what a sparse layer waits for. */
INLINE Vector load_four(const float *values) {
#if ENGINE_VL == 16
    return (Vector)_mm512_broadcast_f32x4(_mm_loadu_ps(values));
#elif ENGINE_VL == 8
    return (Vector)_mm256_broadcast_ps((const __m128 *)values);
#else
    return load_loose(values);
#endif
}
template <int i> INLINE Vector one_of_four(Vector four) {
#if ENGINE_VL == 16
    return (Vector)_mm512_permute_ps((__m512)four, i * 0x55);
#elif ENGINE_VL == 8
    return (Vector)_mm256_permute_ps((__m256)four, i * 0x55);
#else
    return splat(four[i]);
#endif
}

INLINE void multiply_add(Vector (&sum)[VECTORS], Vector weight, const char *lanes) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) sum[v] = fused(weight, load((const float *)lanes + v * VL), sum[v]);
}

INLINE void long_row(Vector (&total)[VECTORS], int64_t k, int64_t end, const int32_t *offset, const float *values,
                     const char *x) {
    Vector sum[CHAINS][VECTORS] = {};
    for (; k + 4 <= end; k += 4) {
        const Vector four = load_four(values + k);
        multiply_add(sum[0], one_of_four<0>(four), x + offset[k]);
        multiply_add(sum[1 % CHAINS], one_of_four<1>(four), x + offset[k + 1]);
        multiply_add(sum[2 % CHAINS], one_of_four<2>(four), x + offset[k + 2]);
        multiply_add(sum[3 % CHAINS], one_of_four<3>(four), x + offset[k + 3]);
    }
    for (; k < end; k++) multiply_add(sum[0], splat(values[k]), x + offset[k]);
#pragma GCC unroll 8
    for (int u = 0; u < CHAINS; u++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) total[v] += sum[u][v];
}

/* y[row[r]] = sum of values[k] * x at offset[k], over the elements k of storage row r. */
template <Store how>
KERNEL void sparse_product(int64_t rows, const int32_t *__restrict start, const int32_t *__restrict row,
                           const int32_t *__restrict offset, const float *__restrict values, const float *__restrict bias,
                           const float *__restrict inputs, float *y, const float *h) {
    const char *x = (const char *)inputs;
    int64_t k = start[0];
    for (int64_t r = 0; r < rows; r++) {
        const int64_t end = start[r + 1], o = row[r];
        Vector sum[VECTORS] = {};
        if (how == WITH_BIAS || how == WITH_BIAS_RELU)
            for (int v = 0; v < VECTORS; v++) sum[v] = splat(bias[o]);
        if (end - k < SHORT_ROW)
            for (int64_t i = k; i < end; i++) multiply_add(sum, splat(values[i]), x + offset[i]);
        else
            long_row(sum, k, end, offset, values, x);
        k = end;
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) store_sum<how>(y + o * LANES + v * VL, h + o * LANES + v * VL, sum[v]);
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
            const Vector g = in_register(load(y + v * VL));
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) sum[i] = fused(g, load((const float *)(lanes[i] + forward) + v * VL), sum[i]);
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
    const auto product = relu ? sparse_product<WITH_BIAS_RELU> : sparse_product<WITH_BIAS>;
    product(layer.outputs, layer.start, layer.row, layer.offset, layer.values, layer.bias, a, dst, dst);
}

INLINE void sparse_input_gradient(const Layer &layer, const float *a, float *dst, const float *c, int flags) {
    const auto product = flags & MASK_BY_INPUT ? sparse_product<MASKED> : sparse_product<PLAIN>;
    product(layer.inputs - layer.first, layer.t_start, layer.t_row, layer.t_offset, layer.transposed, nullptr, a, dst, c);
}
