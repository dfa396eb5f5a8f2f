/* Dense layers. A tile of outputs times lanes stays in registers while the inputs are walked; a pack of eight outputs is one
   tile or three. Blocks of inputs are so small that their lanes stay in the first cache while all outputs pass. */
#pragma once
#include "half.h"
#include "sparse.h"
#include "vector.h"

constexpr int PACK = 8;
/* Vectors of a tile. Its outputs are eight or three: sixteen registers hold three times four sums, the lanes of an input and a
   weight, thirty-two hold eight times two. */
constexpr int TILE_VECTORS = VL == 16 ? 2 : 4;
constexpr int TILE_LANES = TILE_VECTORS * VL;
/* Inputs that are walked at once. */
constexpr int INPUT_BLOCK = 128;

/* What is summed over: single numbers, or pairs of bfloat16. */
INLINE int64_t steps_of(int64_t count, const float *) { return count; }
INLINE int64_t steps_of(int64_t count, const uint32_t *) { return (count + 1) / 2; }

/* sum[r][v] += the weight of row r at each step, times vector v of the step's lanes. */
template <int rows, class Number>
INLINE void accumulate(Vector (&sum)[rows][TILE_VECTORS], int64_t steps, const Number *weights, int64_t next_row,
                       int64_t next_step, const Number *lanes) {
    for (int64_t i = 0; i < steps; i++, weights += next_step, lanes += LANES) {
        decltype(splat(*weights)) weight[rows];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) weight[r] = in_register(splat(weights[r * next_row]));
#pragma GCC unroll 8
        for (int v = 0; v < TILE_VECTORS; v++) {
            const auto in = in_register(load(lanes + v * VL));
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) sum[r][v] = fused(weight[r], in, sum[r][v]);
        }
    }
}

/* Some outputs of a pack over a block of inputs. Between the blocks y holds the sums. */
template <Store how, int rows, class Number>
INLINE void dense_tile(int64_t steps, bool begins, bool ends, const Number *weights, const float *bias, const Number *lanes,
                       float *y, const float *h) {
    Vector sum[rows][TILE_VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < TILE_VECTORS; v++) {
            const float *at = y + r * LANES + v * VL;
            if (!begins)
                sum[r][v] = load(at);
            else
                sum[r][v] = how == WITH_BIAS || how == WITH_BIAS_RELU ? splat(bias[r]) : Vector{};
        }
    accumulate<rows>(sum, steps, weights, 1, PACK, lanes);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < TILE_VECTORS; v++) {
            const int64_t at = r * LANES + v * VL;
            if (!ends)
                store(y + at, sum[r][v]);
            else
                store_sum<how>(y + at, h + at, sum[r][v]);
        }
}

/* A number of rows that is a constant. */
template <int n> struct Count {
    static constexpr int value = n;
};

/* Calls the function for tiles that together are the rows of a pack, with their first one and their number as constants. */
template <class Function> INLINE void for_tiles(int64_t rows, Function function) {
    if (VL == 16 && rows >= PACK) return function(0, Count<PACK>());
    int r = 0;
    for (; rows - r >= 3; r += 3) function(r, Count<3>());
    if (rows - r == 2) function(r, Count<2>());
    if (rows - r == 1) function(r, Count<1>());
}

/* The lanes of a block of inputs, as they are or in pairs. */
INLINE const float *as_numbers(int64_t, const float *x, float *) { return x; }
INLINE const uint32_t *as_numbers(int64_t inputs, const float *x, uint32_t *pairs) {
    alignas(64) static const float none[LANES] = {};
    for (int64_t i = 0; i < inputs; i += 2)
        pairs_of(LANES, x + i * LANES, i + 1 < inputs ? x + (i + 1) * LANES : none, pairs + i / 2 * LANES);
    return pairs;
}

/* y = the packed weights times x. */
template <Store how, class Number>
KERNEL void dense_product(int64_t outputs, int64_t inputs, const Number *weights, const float *bias, const float *x, float *y,
                          const float *h) {
    alignas(64) Number block[INPUT_BLOCK / 2 * LANES];
    const int64_t length = steps_of(inputs, weights);
    for (int64_t i = 0; i < inputs; i += INPUT_BLOCK) {
        const int64_t count = inputs - i < INPUT_BLOCK ? inputs - i : INPUT_BLOCK;
        const int64_t steps = steps_of(count, weights);
        const bool begins = i == 0, ends = i + count == inputs;
        const Number *numbers = as_numbers(count, x + i * LANES, block);
        for (int64_t o = 0; o < outputs; o += PACK)
            for (int lane = 0; lane < LANES; lane += TILE_LANES)
                for_tiles(outputs - o < PACK ? outputs - o : PACK, [&](int r, auto rows) __attribute__((always_inline)) {
                    const int64_t at = (o + r) * LANES + lane;
                    const Number *pack = weights + o * length + steps_of(i, weights) * PACK + r;
                    dense_tile<how, decltype(rows)::value>(steps, begins, ends, pack, bias + o + r, numbers + lane, y + at,
                                                           h + at);
                });
    }
}

/* [ceil(outputs / 8)][inputs][8] to [ceil((inputs - first) / 8)][outputs][8], with zeros for inputs that do not exist. */
KERNEL void dense_refresh(const Layer &layer) {
    const int64_t inputs = layer.inputs, outputs = layer.outputs, rows = inputs - layer.first;
    for (int64_t j = 0; j < rows; j += PACK)
        for (int64_t o = 0; o < outputs; o += PACK) {
            const float *from = layer.values + o * inputs + (layer.first + j) * PACK;
            float *to = layer.transposed + j * outputs + o * PACK;
            if (j + PACK <= rows && o + PACK <= outputs) {
                transpose(from, PACK, to, PACK);
                continue;
            }
            for (int64_t r = 0; r < PACK && o + r < outputs; r++)
                for (int64_t i = 0; i < PACK; i++) to[r * PACK + i] = j + i < rows ? from[i * PACK + r] : 0.0f;
        }
}

/* The same in pairs: of inputs for the products, and of outputs for their gradient. */
KERNEL void half_refresh(const Layer &layer) {
    const int64_t inputs = layer.inputs, outputs = layer.outputs, rows = inputs - layer.first;
    const int64_t length = steps_of(inputs, layer.pairs) * PACK;
    for (int64_t o = 0; o < outputs; o += PACK)
        pairs_of_packs(inputs, layer.values + o * inputs, layer.pairs + o / PACK * length);
    if (!layer.transposed) return;
    uint32_t *transposed = (uint32_t *)layer.transposed;
    for (int64_t j = 0; j < rows; j += PACK)
        for (int64_t o = 0; o < outputs; o += PACK) {
            const int64_t features = rows - j < PACK ? rows - j : PACK;
            float block[PACK * PACK] = {}, turned[PACK * PACK];
            memcpy(block, layer.values + o * inputs + (layer.first + j) * PACK, features * PACK * sizeof(float));
            transpose(block, PACK, turned, PACK);
            uint32_t *pair = transposed + j * steps_of(outputs, transposed) + o / 2 * PACK;
            pairs_of_packs(outputs - o < PACK ? outputs - o : PACK, turned, pair);
        }
}

typedef float Pack __attribute__((vector_size(PACK * 4), aligned(4), may_alias));

/* Some packs of outputs for one sample, from the first lane of x to all lanes of y. */
template <int packs>
INLINE void packs_of_one(const Layer &layer, int64_t o, const float *x, float *y, bool relu) {
    const int64_t inputs = layer.inputs;
    const float *weights = layer.values + o * inputs;
    Pack sum[packs];
    for (int p = 0; p < packs; p++) sum[p] = *(const Pack *)(layer.bias + o + p * PACK);
    for (int64_t i = 0; i < inputs; i++)
#pragma GCC unroll 8
        for (int p = 0; p < packs; p++) sum[p] += *(const Pack *)(weights + (p * inputs + i) * PACK) * x[i * LANES];
    for (int64_t r = 0; r < packs * PACK && o + r < layer.outputs; r++) {
        const float output = sum[r / PACK][r % PACK];
        const Vector lanes = relu ? maximum(Vector{}, splat(output)) : splat(output);
        for (int v = 0; v < VECTORS; v++) store(y + (o + r) * LANES + v * VL, lanes);
    }
}

/* The layer where all lanes hold the same sample. */
KERNEL void dense_linear_of_one(const Layer &layer, const float *x, float *y, bool relu) {
    int64_t o = 0;
    for (; o + 7 * PACK < layer.outputs; o += 8 * PACK) packs_of_one<8>(layer, o, x, y, relu);
    for (; o < layer.outputs; o += PACK) packs_of_one<1>(layer, o, x, y, relu);
}

template <class Number>
INLINE void linear_by(const Layer &layer, const Number *weights, const float *a, float *dst, bool relu) {
    const auto product = relu ? dense_product<WITH_BIAS_RELU, Number> : dense_product<WITH_BIAS, Number>;
    product(layer.outputs, layer.inputs, weights, layer.bias, a, dst, dst);
}

INLINE void dense_linear(const Layer &layer, const float *a, float *dst, int flags) {
    const bool relu = flags & RELU_OUTPUT;
    if (flags & SAME_LANES) return dense_linear_of_one(layer, a, dst, relu);
    if (layer.kind == HALF) return linear_by(layer, layer.pairs, a, dst, relu);
    linear_by(layer, layer.values, a, dst, relu);
}

template <class Number>
INLINE void input_gradient_by(const Layer &layer, const Number *weights, const float *a, float *dst, const float *c,
                              bool masked) {
    const auto product = masked ? dense_product<MASKED, Number> : dense_product<PLAIN, Number>;
    product(layer.inputs - layer.first, layer.outputs, weights, nullptr, a, dst, c);
}

INLINE void dense_input_gradient(const Layer &layer, const float *a, float *dst, const float *c, int flags) {
    const bool masked = flags & MASK_BY_INPUT;
    if (layer.kind == HALF) return input_gradient_by(layer, (const uint32_t *)layer.transposed, a, dst, c, masked);
    input_gradient_by(layer, layer.transposed, a, dst, c, masked);
}
