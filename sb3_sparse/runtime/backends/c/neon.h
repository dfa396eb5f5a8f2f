/* Kernels for NEON of 64-bit ARM, with the arithmetic of vbmi.h to the bit. Inputs are bytes less 128, for products of bytes of
   different signs are rare there; what is missing is 128 times the sum of the row's weights. Four products are added up by one
   instruction where the processor has those of dotprod, else by a few. */
#include <arm_neon.h>
#define SB3S_FAMILY "neon"
#define SB3S_NEON

/* Four products of bytes into each lane. */
static inline int32x4_t sb3s_dot(int32x4_t sum, int32x4_t inputs, int32x4_t weights) {
    const int8x16_t x = vreinterpretq_s8_s32(inputs), w = vreinterpretq_s8_s32(weights);
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, x, w);
#else
    const int32x4_t front = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(w)));
    return vaddq_s32(sum, vpaddq_s32(front, vpaddlq_s16(vmull_high_s8(x, w))));
#endif
}

/* Smallest and largest outputs of a layer by lanes, 0 among them. */
typedef struct {
    float32x4_t smallest, largest;
    int known;
} sb3s_range;

static inline void sb3s_clear(sb3s_range *range) { range->smallest = range->largest = vdupq_n_f32(0.0f); }

/* Outputs as they will be stored. NaN stays NaN. */
static inline float32x4_t sb3s_finish(sb3s_range *range, int relu, float32x4_t y) {
    if (relu)
        y = vmaxq_f32(vdupq_n_f32(0.0f), y);
    else
        range->smallest = vminq_f32(range->smallest, y);
    range->largest = vmaxq_f32(range->largest, y);
    return y;
}

static inline int sb3s_is_finished(const sb3s_layer *layer) {
    return layer->activation == SB3S_RELU || layer->activation == SB3S_IDENTITY;
}

/* Float weights by columns of whole slices of 32 rows. A row is summed up from its bias in the order of the inputs. */
static int sb3s_lanes(const sb3s_layer *layer, const char *base, const float *restrict x, float *restrict y,
                      sb3s_range *found) {
    const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
    const int relu = layer->activation == SB3S_RELU, rows = (layer->out + 31) & ~31;
    sb3s_range range;
    int row, i, j;
    sb3s_clear(&range);
    for (row = 0; row < rows; row += 32) {
        const float *column = w + row;
        float32x4_t sum[8];
        for (j = 0; j < 8; j++) sum[j] = vld1q_f32(b + row + 4 * j);
        for (i = 0; i < layer->in; i++, column += rows)
            for (j = 0; j < 8; j++) sum[j] = vfmaq_n_f32(sum[j], vld1q_f32(column + 4 * j), x[i]);
        for (j = 0; j < 8; j++) vst1q_f32(y + row + 4 * j, sb3s_finish(&range, relu, sum[j]));
    }
    *found = range;
    return sb3s_is_finished(layer);
}

/* The steps of 8 bits between the smallest and the largest of some inputs, and how to round to them. */
typedef struct {
    float32x4_t unit, offset, inverse, shift;
} sb3s_grid;

static sb3s_grid sb3s_measure(const sb3s_layer *layer, const float *x, sb3s_range *range) {
    float lowest, span;
    sb3s_grid grid;
    const int in = layer->in;
    int i;
    if (layer->highest) {
        /* Of training: x lies on it already. */
        grid.unit = vdupq_n_f32(layer->unit);
        grid.inverse = vdupq_n_f32(1.0f / layer->unit);
        grid.shift = vdupq_n_f32((float)layer->lowest);
        grid.offset = vmulq_f32(grid.shift, grid.unit);
        return grid;
    }
    if (!range->known) {
        sb3s_clear(range);
        for (i = 0; i + 4 <= in; i += 4) sb3s_finish(range, 0, vld1q_f32(x + i));
        for (; i < in; i++) sb3s_finish(range, 0, vdupq_n_f32(x[i]));
    }
    lowest = vminvq_f32(range->smallest);
    span = vmaxvq_f32(range->largest) - lowest;
    grid.unit = vdupq_n_f32(span * (1.0f / 255.0f));
    grid.offset = vdupq_n_f32(lowest);
    grid.inverse = vdupq_n_f32(span > 0.0f ? 255.0f / span : 0.0f);
    grid.shift = vmulq_f32(grid.offset, grid.inverse);
    return grid;
}

/* Floats to bytes, in place: 16 bytes are written where 64 have been read. What is beyond the last is rounded too, whatever it is,
   and meets weights of 0. */
static void sb3s_to_bytes(float *x, int count, const sb3s_grid *grid) {
    const float32x4_t shift = vnegq_f32(grid->shift);
    int i;
#define SB3S_INTEGERS(k) vqmovun_s32(vcvtnq_s32_f32(vfmaq_f32(shift, vld1q_f32(x + i + 4 * (k)), grid->inverse)))
    for (i = 0; i < count; i += 16) {
        const uint16x8_t front = vcombine_u16(SB3S_INTEGERS(0), SB3S_INTEGERS(1));
        const uint16x8_t back = vcombine_u16(SB3S_INTEGERS(2), SB3S_INTEGERS(3));
        vst1q_u8((uint8_t *)x + i, vcombine_u8(vqmovn_u16(front), vqmovn_u16(back)));
    }
#undef SB3S_INTEGERS
}

/* Inputs less 128, as bytes in place. */
static sb3s_grid sb3s_round(const sb3s_layer *layer, float *x, sb3s_range *range) {
    const sb3s_grid grid = sb3s_measure(layer, x, range);
    uint8_t *bytes = (uint8_t *)x;
    int i;
    sb3s_to_bytes(x, layer->in, &grid);
    for (i = 0; i < layer->in; i += 16) vst1q_u8(bytes + i, veorq_u8(vld1q_u8(bytes + i), vdupq_n_u8(0x80)));
    return grid;
}

/* scale * (unit * sum + lowest * (sum of the row's weights)) + bias of four rows */
static inline float32x4_t sb3s_scale(const sb3s_layer *layer, const char *base, const sb3s_grid *grid, int row, int32x4_t sum) {
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float32x4_t weights = vld1q_f32((const float *)(base + layer->sums) + row);
    const float32x4_t value = vcvtq_f32_s32(vaddq_s32(sum, vshlq_n_s32(vcvtq_s32_f32(weights), 7)));
    return vfmaq_f32(vld1q_f32(b + row), vfmaq_f32(vmulq_f32(grid->offset, weights), value, grid->unit), vld1q_f32(scales + row));
}

/* Sparse, in slices of four rows: per step 16 indices and 16 weights, four of each row, and the place of the 64 input bytes that
   all of them are picked from. */
static int sb3s_bytes(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y, sb3s_range *found) {
    const uint8_t *w = (const uint8_t *)(base + layer->weights), *bytes = (const uint8_t *)x;
    const uint16_t *places = (const uint16_t *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    const int relu = layer->activation == SB3S_RELU;
    const sb3s_grid grid = sb3s_round(layer, x, found);
    sb3s_range range;
    int slice, step;
    sb3s_clear(&range);
    for (slice = 0; slice < layer->runs; slice++) {
        int32x4_t sum = vdupq_n_s32(0);
        for (step = steps[slice]; step > 0; step--, w += 32, places++) {
            const uint8x16_t picked = vqtbl4q_u8(vld1q_u8_x4(bytes + *places), vld1q_u8(w));
            sum = sb3s_dot(sum, vreinterpretq_s32_u8(picked), vreinterpretq_s32_u8(vld1q_u8(w + 16)));
        }
        vst1q_f32(y + 4 * slice, sb3s_finish(&range, relu, sb3s_scale(layer, base, &grid, 4 * slice, sum)));
    }
    *found = range;
    return sb3s_is_finished(layer);
}

/* Dense: eight rows at a time, 16 inputs of each per step. The last slice of 16 rows is filled up: what lies there may not be a
   float. */
static int sb3s_dots(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y, sb3s_range *found) {
    const int8_t *w = (const int8_t *)(base + layer->weights), *bytes = (const int8_t *)x;
    const int relu = layer->activation == SB3S_RELU;
    const sb3s_grid grid = sb3s_round(layer, x, found);
    sb3s_range range;
    int row, i, j;
    sb3s_clear(&range);
    for (row = 0; row < layer->out; row += 8) {
        int32x4_t sum[8];
        for (j = 0; j < 8; j++) sum[j] = vdupq_n_s32(0);
        for (i = 0; i < layer->in; i += 16, w += 128) {
            const int32x4_t inputs = vreinterpretq_s32_s8(vld1q_s8(bytes + i));
            for (j = 0; j < 8; j++) sum[j] = sb3s_dot(sum[j], inputs, vreinterpretq_s32_s8(vld1q_s8(w + 16 * j)));
        }
        /* The sums of eight registers into eight lanes. */
        for (j = 0; j < 4; j++) sum[j] = vpaddq_s32(sum[2 * j], sum[2 * j + 1]);
        for (j = 0; j < 2; j++) {
            const float32x4_t scaled = sb3s_scale(layer, base, &grid, row + 4 * j, vpaddq_s32(sum[2 * j], sum[2 * j + 1]));
            vst1q_f32(y + row + 4 * j, sb3s_finish(&range, relu, scaled));
        }
    }
    if (row % 16) vst1q_f32(y + row, vdupq_n_f32(0.0f)), vst1q_f32(y + row + 4, vdupq_n_f32(0.0f));
    *found = range;
    return sb3s_is_finished(layer);
}

/* Sparse, of floats, in slices of four rows: per step a column in 16 bits and a weight of each row. No instruction picks floats;
   they are loaded one by one. */
static void sb3s_picks(const sb3s_layer *layer, const char *base, const float *restrict x, float *restrict y) {
    const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
    const uint16_t *c = (const uint16_t *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    int slice, step;
#define SB3S_STEP(total, k)                                                                                               \
    do {                                                                                                                  \
        const float32x4_t picked = {x[c[4 * (k)]], x[c[4 * (k) + 1]], x[c[4 * (k) + 2]], x[c[4 * (k) + 3]]};              \
        total = vfmaq_f32(total, picked, vld1q_f32(w + 4 * (k)));                                                         \
    } while (0)
    for (slice = 0; slice < layer->runs; slice++) {
        float32x4_t sum = vld1q_f32(b + 4 * slice), other = vdupq_n_f32(0.0f);
        for (step = steps[slice]; step >= 2; step -= 2, w += 8, c += 8) {
            SB3S_STEP(sum, 0);
            SB3S_STEP(other, 1);
        }
        if (step) {
            SB3S_STEP(sum, 0);
            w += 4, c += 4;
        }
        vst1q_f32(y + 4 * slice, vaddq_f32(sum, other));
    }
#undef SB3S_STEP
}

#include "neon_convolution.h"
