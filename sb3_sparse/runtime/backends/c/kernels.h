/* A policy from its plan, one observation at a time, or a panel of them (panel.h): what the compiled backends run. Plain C99
   without malloc and libm, but for vectors of GCC and Clang in panel.h; kernels that round hidden activations to 8 bits are in
   vbmi.h, avx2.h and neon.h. sb3_sparse/runtime/backends/plan.py writes the plan. It is trusted: Python built it in memory from a
   validated file. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "activations.h"
#include "smooth.h"

enum { SB3S_IDENTITY, SB3S_RELU, SB3S_TANH, SB3S_CLIP, SB3S_LEAKY_RELU, SB3S_ELU, SB3S_SIGMOID, SB3S_SILU,
       SB3S_GELU, SB3S_GELU_TANH, SB3S_MISH, SB3S_SOFTPLUS, SB3S_SOFTSIGN, SB3S_HARDSWISH, SB3S_PRELU };
enum { SB3S_COLUMNS, SB3S_ROWS, SB3S_SPARSE, SB3S_CONVOLUTION, SB3S_LANES, SB3S_BYTES, SB3S_DOTS, SB3S_PATCHES, SB3S_PICKS };
enum { SB3S_UNSCALE, SB3S_CLIP_ACTION, SB3S_ARGMAX, SB3S_POSITIVE };

typedef struct {
    int32_t kind, activation, in, out;
    float low, high;
    /* Convolutions: max(x, 0) first, the input of the layer before added; a pool unless its height is 0. */
    int32_t rectify, residual, pool_height, pool_width, pool_down, pool_right, pool_top, pool_side, pool_mean;
    /* Offsets into the plan. */
    int32_t weights, indices, biases, counts;
    /* Runs of equal counts, or slices. */
    int32_t runs;
    int32_t scales, sums;
    /* Convolutions: input and output planes, stride, padding. */
    int32_t channels, height, width, stride_height, stride_width, pad_height, pad_width;
    int32_t out_height, out_width, pitch, phase;
    /* Convolutions of bytes: offsets of quads in the input; output rows of a tile, the registers that they fill, and lanes from
       one row to the next. */
    int32_t places, tile, vectors, across;
    /* LSTM layers: units, or 0 of others, and where their outputs lie in the state. */
    int32_t units, state;
    /* Offsets of the slopes of a prelu, and of the scale and the shift of a layer norm, or 0. */
    int32_t slopes, norm_scale, norm_shift;
    float epsilon;
    /* Inputs that training has rounded: their smallest and largest integers, or 0, 0 of others, and the unit. */
    int32_t lowest, highest;
    float unit;
} sb3s_layer;

typedef struct {
    int32_t layers, inputs, outputs, head, actions, normalize;
    /* Offsets of limit, mean and scale, of low and high or the groups; floats in a buffer of the scratch memory, and buffers. */
    int32_t limit, mean, scale, low, high, groups, half, buffers;
    /* Offset of a layer that takes the place of the first one where the observation is bytes, or 0. */
    int32_t pixels;
    /* Floats of the state that are outputs of LSTM layers; as many cells follow. */
    int32_t memory;
    /* Offset of as many layers for panels of observations, or 0; fewer observations than few take less time one by one. */
    int32_t panel, few;
} sb3s_plan;

static void sb3s_activate(const sb3s_layer *layer, const float *restrict slopes, float *restrict y, int n) {
    int i, j;
    const int size = layer->out_height > 0 ? layer->out_height * layer->out_width : 1;
    const float low = layer->low, high = layer->high;
    switch (layer->activation) {
    case SB3S_RELU:
        for (i = 0; i < n; i++) y[i] = y[i] < 0.0f ? 0.0f : y[i];
        break;
    case SB3S_TANH:
        for (i = 0; i < n; i++) y[i] = sb3s_tanh(y[i]);
        break;
    case SB3S_CLIP:
        for (i = 0; i < n; i++) y[i] = y[i] < low ? low : y[i] > high ? high : y[i];
        break;
    case SB3S_LEAKY_RELU:
        for (i = 0; i < n; i++) y[i] = y[i] < 0.0f ? low * y[i] : y[i];
        break;
    case SB3S_ELU:
        for (i = 0; i < n; i++) y[i] = y[i] < 0.0f ? low * (sb3s_exp(y[i]) - 1.0f) : y[i];
        break;
    case SB3S_SIGMOID:
        for (i = 0; i < n; i++) y[i] = sb3s_sigmoid(y[i]);
        break;
    case SB3S_SILU:
        for (i = 0; i < n; i++) y[i] = y[i] * sb3s_sigmoid(y[i]);
        break;
    case SB3S_GELU:
        for (i = 0; i < n; i++) y[i] = sb3s_gelu(y[i]);
        break;
    case SB3S_GELU_TANH:
        for (i = 0; i < n; i++) y[i] = sb3s_gelu_tanh(y[i]);
        break;
    case SB3S_MISH:
        for (i = 0; i < n; i++) y[i] = sb3s_mish(y[i]);
        break;
    case SB3S_SOFTPLUS:
        for (i = 0; i < n; i++) y[i] = sb3s_softplus(y[i]);
        break;
    case SB3S_SOFTSIGN:
        for (i = 0; i < n; i++) y[i] = sb3s_softsign(y[i]);
        break;
    case SB3S_HARDSWISH:
        for (i = 0; i < n; i++) y[i] = sb3s_hardswish(y[i]);
        break;
    case SB3S_PRELU:
        for (i = 0; i < n; i += size, slopes++)
            for (j = i; j < i + size; j++) y[j] = y[j] < 0.0f ? *slopes * y[j] : y[j];
        break;
    default:
        break;
    }
}

/* Inputs to the grid of training, in place. Adding 1.5 * 2^23 rounds to the nearest integer, halves to even ones. NaN stays NaN. */
static void sb3s_to_grid(const sb3s_layer *layer, float *restrict x, int n) {
    const float low = (float)layer->lowest, top = (float)layer->highest, unit = layer->unit;
    int i;
    for (i = 0; i < n; i++) {
        const float q = x[i] / unit;
        x[i] = ((q < low ? low : q > top ? top : q) + 12582912.0f - 12582912.0f) * unit;
    }
}

/* Dense, by columns: inputs that are zero, as most are after a ReLU, cost nothing. Sums are read and written once for four of
   the others. */
static void sb3s_columns(const sb3s_layer *layer, const float *restrict w, const float *restrict b, const float *restrict x,
                         float *restrict y) {
    const int n = layer->out;
    int i, j, found = 0, places[4];
    for (j = 0; j < n; j++) y[j] = b[j];
    for (i = 0; i < layer->in; i++) {
        if (x[i] == 0.0f) continue;
        places[found++] = i;
        if (found == 4) {
            const float v0 = x[places[0]], v1 = x[places[1]], v2 = x[places[2]], v3 = x[places[3]];
            const float *c0 = w + (long)places[0] * n, *c1 = w + (long)places[1] * n;
            const float *c2 = w + (long)places[2] * n, *c3 = w + (long)places[3] * n;
            for (j = 0; j < n; j++) {
                float sum = y[j];
                sum += v0 * c0[j];
                sum += v1 * c1[j];
                sum += v2 * c2[j];
                sum += v3 * c3[j];
                y[j] = sum;
            }
            found = 0;
        }
    }
    for (i = 0; i < found; i++) {
        const float v = x[places[i]];
        const float *column = w + (long)places[i] * n;
        for (j = 0; j < n; j++) y[j] += v * column[j];
    }
}

/* Dense, by rows, in 16 sums that a compiler can put into vectors; rows are padded to a multiple of 16, and so is x. */
static void sb3s_rows(const sb3s_layer *layer, const float *restrict w, const float *restrict b, float *restrict x,
                      float *restrict y) {
    int i, j, l;
    const int n = (layer->in + 15) & ~15;
    for (i = layer->in; i < n; i++) x[i] = 0.0f;
    for (j = 0; j < layer->out; j++, w += n) {
        float sum[16] = {0.0f}, total = b[j];
        for (i = 0; i < n; i += 16)
            for (l = 0; l < 16; l++) sum[l] += w[i + l] * x[i + l];
        for (l = 0; l < 16; l++) total += sum[l];
        y[j] = total;
    }
}

/* Sparse: runs of rows with equal counts, columns in 16 bits. */
static void sb3s_sparse(const sb3s_layer *layer, const float *restrict w, const uint16_t *restrict c, const int32_t *restrict runs,
                        const float *restrict b, const float *restrict x, float *restrict y) {
    int run, row, j;
    for (run = 0; run < layer->runs; run++) {
        const int count = runs[2 * run];
        for (row = 0; row < runs[2 * run + 1]; row++) {
            float s0 = *b++, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
            for (j = 0; j + 4 <= count; j += 4) {
                s0 += w[j] * x[c[j]];
                s1 += w[j + 1] * x[c[j + 1]];
                s2 += w[j + 2] * x[c[j + 2]];
                s3 += w[j + 3] * x[c[j + 3]];
            }
            for (; j < count; j++) s0 += w[j] * x[c[j]];
            *y++ = (s0 + s1) + (s2 + s3);
            w += count;
            c += count;
        }
    }
}

#include "convolution.h"
#include "lstm.h"
#include "norm.h"
#include "pool.h"

/* From outputs to an action. */
static void sb3s_head(const sb3s_plan *plan, const float *restrict x, void *action) {
    const char *base = (const char *)plan;
    int i, j;
    switch (plan->head) {
    case SB3S_UNSCALE: {
        const float *low = (const float *)(base + plan->low), *high = (const float *)(base + plan->high);
        float *out = (float *)action;
        for (i = 0; i < plan->actions; i++) out[i] = low[i] + 0.5f * (x[i] + 1.0f) * (high[i] - low[i]);
        break;
    }
    case SB3S_CLIP_ACTION: {
        const float *low = (const float *)(base + plan->low), *high = (const float *)(base + plan->high);
        float *out = (float *)action;
        for (i = 0; i < plan->actions; i++) out[i] = x[i] < low[i] ? low[i] : x[i] > high[i] ? high[i] : x[i];
        break;
    }
    case SB3S_ARGMAX: {
        const int32_t *groups = (const int32_t *)(base + plan->groups);
        int64_t *out = (int64_t *)action;
        for (i = 0; i < plan->actions; x += groups[i++]) {
            int best = 0;
            for (j = 1; j < groups[i]; j++)
                if (x[j] > x[best]) best = j;
            out[i] = best;
        }
        break;
    }
    default: {
        float *out = (float *)action;
        for (i = 0; i < plan->actions; i++) out[i] = x[i] > 0.0f ? 1.0f : x[i] <= 0.0f ? 0.0f : x[i];
    }
    }
}

#include "panel.h"

/* The best family of kernels for 8-bit activations in this compilation. A plan is laid out for one of them. A kernel returns
   whether it has applied the activation; then it has found the range of its outputs too, which the next layer needs to round them
   to bytes. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VBMI__) && defined(__AVX512VNNI__)
#include "vbmi.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "avx2.h"
#elif defined(__AARCH64EL__) && defined(__ARM_NEON)
#include "neon.h"
#endif

/* One action. The observation is in pixels, if it is bytes; else that is NULL, and x holds it in front. x is overwritten: it has
   plan->buffers buffers of plan->half floats, 64-byte aligned, and behind them what convolutions work in. Layers go from x to y;
   z, if there is one, holds the input of the layer before until it has been added, and else is free. The state has 2 * plan->memory
   floats, and becomes the next one; it is NULL where there is nothing to remember. */
static void sb3s_act(const sb3s_plan *plan, const uint8_t *pixels, float *restrict x, void *action, float *restrict state) {
    const char *base = (const char *)plan;
    const sb3s_layer *next = (const sb3s_layer *)(plan + 1);
    float *y = x + plan->half, *z = y + plan->half, *const phases = x + plan->buffers * (long)plan->half;
    int i, n, invalid = 0;
#ifdef SB3S_FAMILY
    sb3s_range range;
    range.known = 0;
#endif
    if (pixels && !plan->pixels) {
        for (i = 0; i < plan->inputs; i++) x[i] = (float)pixels[i];
        pixels = NULL;
    } else if (!pixels) {
        for (i = 0; i < plan->inputs; i++) invalid |= x[i] != x[i];
    }
    for (i = 0; i < 2 * plan->memory; i++) invalid |= state[i] != state[i];
    if (plan->normalize) {
        const float *mean = (const float *)(base + plan->mean), *scale = (const float *)(base + plan->scale);
        const float *limit = (const float *)(base + plan->limit);
        for (i = 0; i < plan->inputs; i++) {
            const float v = (x[i] - mean[i]) * scale[i];
            x[i] = v < -limit[i] ? -limit[i] : v > limit[i] ? limit[i] : v;
        }
    }
    for (n = 0; n < plan->layers; n++, next++, pixels = NULL) {
        const sb3s_layer *layer = pixels ? (const sb3s_layer *)(base + plan->pixels) : next;
        const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
        const void *indices = base + layer->indices, *counts = base + layer->counts;
        int size = layer->out, finished = 0;
        float *swap;
        const float *input = x;
        if (layer->rectify) {
            /* Into another buffer, for the next layer may add x as it came in. */
            for (i = 0; i < layer->in; i++) z[i] = x[i] < 0.0f ? 0.0f : x[i];
            input = z;
        }
        if (layer->highest) sb3s_to_grid(layer, x, layer->in);
        /* Its last outputs follow its inputs. */
        for (i = 0; i < layer->units; i++) x[layer->in - layer->units + i] = state[layer->state + i];
        switch (layer->kind) {
        case SB3S_COLUMNS:
            sb3s_columns(layer, w, b, x, y);
            break;
        case SB3S_ROWS:
            sb3s_rows(layer, w, b, x, y);
            break;
        case SB3S_SPARSE:
            sb3s_sparse(layer, w, (const uint16_t *)indices, (const int32_t *)counts, b, x, y);
            break;
        case SB3S_CONVOLUTION:
            size *= layer->out_height * layer->out_width;
            sb3s_convolution(layer, w, (const int32_t *)indices, (const int32_t *)counts, b, input, y, phases);
            for (i = 0; layer->residual && i < size; i++) y[i] += z[i];
            break;
#ifdef SB3S_FAMILY
        case SB3S_LANES:
            finished = sb3s_lanes(layer, base, x, y, &range);
            size = (size + 15) & ~15;
            break;
        case SB3S_BYTES:
            finished = sb3s_bytes(layer, base, x, y, &range);
            size = (size + 15) & ~15;
            break;
        case SB3S_DOTS:
            finished = sb3s_dots(layer, base, x, y, &range);
            size = (size + 15) & ~15;
            break;
        case SB3S_PICKS:
            sb3s_picks(layer, base, x, y);
            break;
        case SB3S_PATCHES:
            finished = sb3s_patches(layer, base, pixels, x, y, phases, &range);
            size *= layer->out_height * layer->out_width;
            break;
#endif
        default:
            break;
        }
        if (layer->norm_scale)
            sb3s_norm(size, (const float *)(base + layer->norm_scale), (const float *)(base + layer->norm_shift), layer->epsilon, y);
        if (layer->units)
            sb3s_lstm(layer->units, state + layer->state, state + plan->memory + layer->state, y);
        else if (!finished)
            sb3s_activate(layer, (const float *)(base + layer->slopes), y, size);
#ifdef SB3S_FAMILY
        range.known = finished && !layer->pool_height;
#endif
        if (layer->pool_height) {
            sb3s_pool(layer, y, z);
            swap = z;
            z = y;
            y = swap;
        }
        swap = plan->buffers == 3 ? z : x;
        z = x;
        x = y;
        y = swap;
    }
    /* A NaN in the inputs makes every output NaN, as a dense product does, whether its weights exist or not. */
    for (i = 0; invalid && i < plan->outputs; i++) x[i] = 0.0f / 0.0f;
    for (i = 0; invalid && i < 2 * plan->memory; i++) state[i] = 0.0f / 0.0f;
    sb3s_head(plan, x, action);
}
