/* Dense layers. A tile of outputs times lanes stays in registers while the inputs are walked; a pack of eight outputs is one
   tile or three. Blocks of inputs are so small that their lanes stay in the first cache while all outputs pass. */
#pragma once
#include "sparse.h"
#include "vector.h"

constexpr int PACK = 8;
/* Vectors of a tile. Its outputs are eight or three: sixteen registers hold three times four sums, the lanes of an input and a
   weight, thirty-two hold eight times two. */
constexpr int TILE_VECTORS = VL == 16 ? 2 : 4;
constexpr int TILE_LANES = TILE_VECTORS * VL;
/* Inputs that are walked at once. */
constexpr int INPUT_BLOCK = 128;

/* sum[r][v] += the weight of row r at each step, times vector v of the step's lanes. */
template <int rows>
INLINE void accumulate(Vector (&sum)[rows][TILE_VECTORS], int64_t steps, const float *weights, int64_t next_row,
                       int64_t next_step, const float *lanes) {
    for (int64_t i = 0; i < steps; i++, weights += next_step, lanes += LANES) {
        Vector weight[rows];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) weight[r] = in_register(splat(weights[r * next_row]));
#pragma GCC unroll 8
        for (int v = 0; v < TILE_VECTORS; v++) {
            const Vector in = in_register(load(lanes + v * VL));
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) sum[r][v] = fused(weight[r], in, sum[r][v]);
        }
    }
}

/* Some outputs of a pack over a block of inputs. Between the blocks y holds the sums. */
template <Store how, int rows>
INLINE void dense_tile(int64_t steps, bool begins, bool ends, const float *weights, const float *bias, const float *lanes,
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

/* y = the packed weights times x. */
template <Store how>
KERNEL void dense_product(int64_t outputs, int64_t inputs, const float *weights, const float *bias, const float *x, float *y,
                          const float *h) {
    for (int64_t i = 0; i < inputs; i += INPUT_BLOCK) {
        const int64_t steps = inputs - i < INPUT_BLOCK ? inputs - i : INPUT_BLOCK;
        const bool begins = i == 0, ends = i + steps == inputs;
        for (int64_t o = 0; o < outputs; o += PACK)
            for (int lane = 0; lane < LANES; lane += TILE_LANES)
                for_tiles(outputs - o < PACK ? outputs - o : PACK, [&](int r, auto rows) __attribute__((always_inline)) {
                    const int64_t at = (o + r) * LANES + lane;
                    const float *pack = weights + o * inputs + i * PACK + r, *lanes = x + i * LANES + lane;
                    dense_tile<how, decltype(rows)::value>(steps, begins, ends, pack, bias + o + r, lanes, y + at, h + at);
                });
    }
}

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

template <int rows>
INLINE void gradient_tile(const Operand &dy, const float *y, const float *columns, int64_t panels, float *sums) {
    Vector sum[rows][TILE_VECTORS] = {};
    for (int64_t p = 0; p < panels; p++, y += dy.panel, columns += LANES * LANES)
        accumulate<rows>(sum, LANES, y, LANES, 1, columns);
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
KERNEL void dense_weight_gradient(const Layer &layer, const Operand &dy, const Operand &x, int64_t panels, bool add,
                                  float *scratch) {
    const int64_t inputs = layer.inputs, outputs = layer.outputs;
    for (int64_t j = 0; j < inputs; j += LANES) {
        const int64_t features = inputs - j < LANES ? inputs - j : LANES;
        transpose_input(features, x.base + j * LANES, x.panel, panels, scratch);
        for (int64_t o = 0; o < outputs; o += PACK)
            for (int64_t lane = 0; lane < features; lane += TILE_LANES) {
                alignas(64) float sums[PACK * TILE_LANES];
                const float *y = dy.base + o * LANES, *columns = scratch + lane;
                for_tiles(outputs - o < PACK ? outputs - o : PACK, [&](int r, auto rows) __attribute__((always_inline)) {
                    gradient_tile<decltype(rows)::value>(dy, y + r * LANES, columns, panels, sums + r * TILE_LANES);
                });
                for (int64_t r = outputs - o; r < PACK; r++) memset(sums + r * TILE_LANES, 0, TILE_LANES * sizeof(float));
                const int64_t stored = features - lane < TILE_LANES ? features - lane : TILE_LANES;
                store_gradient(sums, stored, add, layer.gradient + o * inputs + (j + lane) * PACK);
            }
    }
    bias_gradient(layer, dy, panels, add);
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

INLINE void dense_linear(const Layer &layer, const float *a, float *dst, int flags) {
    const bool relu = flags & RELU_OUTPUT;
    if (flags & SAME_LANES) return dense_linear_of_one(layer, a, dst, relu);
    const auto product = relu ? dense_product<WITH_BIAS_RELU> : dense_product<WITH_BIAS>;
    product(layer.outputs, layer.inputs, layer.values, layer.bias, a, dst, dst);
}

INLINE void dense_input_gradient(const Layer &layer, const float *a, float *dst, const float *c, int flags) {
    const auto product = flags & MASK_BY_INPUT ? dense_product<MASKED> : dense_product<PLAIN>;
    product(layer.inputs - layer.first, layer.outputs, layer.transposed, nullptr, a, dst, c);
}
