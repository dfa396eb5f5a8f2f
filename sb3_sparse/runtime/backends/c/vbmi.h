/* Kernels for AVX-512 VBMI + VNNI: the inputs stay in registers or in a few lines of the cache, and are picked by permutation,
   never gathered. */
#include <immintrin.h>
#define SB3S_FAMILY "vbmi"
#define SB3S_VBMI

/* Smallest and largest outputs of a layer by lanes, 0 among them. */
typedef struct {
    __m512 smallest, largest;
    int known;
} sb3s_range;

static inline void sb3s_clear(sb3s_range *range) { range->smallest = range->largest = _mm512_setzero_ps(); }

/* Outputs as they will be stored. NaN stays NaN: it is the second operand. */
static inline __m512 sb3s_finish(sb3s_range *range, int relu, __m512 y) {
    if (relu)
        y = _mm512_max_ps(_mm512_setzero_ps(), y);
    else
        range->smallest = _mm512_min_ps(range->smallest, y);
    range->largest = _mm512_max_ps(range->largest, y);
    return y;
}

static inline int sb3s_is_finished(const sb3s_layer *layer) {
    return layer->activation == SB3S_RELU || layer->activation == SB3S_IDENTITY;
}

/* Float weights, at most 32 inputs in two registers. Slices of 16 rows, one lane each (SELL-16): per step 16 weights, and per
   four steps 16 indices of 32 bits with a byte for each step. A row is summed up from its bias in the order of the inputs, as by
   the other families. */
static int sb3s_lanes(const sb3s_layer *layer, const char *base, const float *restrict x, float *restrict y,
                      sb3s_range *found) {
    const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
    const __m512i *c = (const __m512i *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    const int in = layer->in, relu = layer->activation == SB3S_RELU;
    const __m512 low = _mm512_maskz_loadu_ps(in >= 16 ? 0xffff : (__mmask16)((1u << in) - 1), x);
    const __m512 high = _mm512_maskz_loadu_ps(in <= 16 ? 0 : in >= 32 ? 0xffff : (__mmask16)((1u << (in - 16)) - 1), x + 16);
    sb3s_range range;
    int slice, step;
    sb3s_clear(&range);
#define SB3S_STEP(k)                                                                                                      \
    sum = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, _mm512_srli_epi32(index, 8 * (k)), high), _mm512_load_ps(w + 16 * (k)), sum)
    for (slice = 0; slice < layer->runs; slice++) {
        __m512 sum = _mm512_load_ps(b + 16 * slice);
        for (step = steps[slice]; step >= 4; step -= 4, w += 64) {
            const __m512i index = _mm512_load_si512(c++);
            SB3S_STEP(0);
            SB3S_STEP(1);
            SB3S_STEP(2);
            SB3S_STEP(3);
        }
        if (step) {
            const __m512i index = _mm512_load_si512(c++);
            SB3S_STEP(0);
            if (step > 1) SB3S_STEP(1);
            if (step > 2) SB3S_STEP(2);
            w += 16 * step;
        }
        _mm512_store_ps(y + 16 * slice, sb3s_finish(&range, relu, sum));
    }
#undef SB3S_STEP
    *found = range;
    return sb3s_is_finished(layer);
}

/* The steps of 8 bits between the smallest and the largest of some inputs, and how to round to them. */
typedef struct {
    __m512 unit, offset, inverse, shift;
} sb3s_grid;

static sb3s_grid sb3s_measure(const sb3s_layer *layer, const float *x, sb3s_range *range) {
    sb3s_grid grid;
    float lowest, span;
    const int in = layer->in;
    int i;
    if (layer->highest) {
        /* Of training: x lies on it already. */
        grid.unit = _mm512_set1_ps(layer->unit);
        grid.inverse = _mm512_set1_ps(1.0f / layer->unit);
        grid.shift = _mm512_set1_ps((float)layer->lowest);
        grid.offset = _mm512_mul_ps(grid.shift, grid.unit);
        return grid;
    }
    if (!range->known) {
        sb3s_clear(range);
        for (i = 0; i < in; i += 16)
            sb3s_finish(range, 0, _mm512_maskz_loadu_ps(in - i >= 16 ? 0xffff : (__mmask16)((1u << (in - i)) - 1), x + i));
    }
    lowest = _mm512_reduce_min_ps(range->smallest);
    span = _mm512_reduce_max_ps(range->largest) - lowest;
    grid.unit = _mm512_set1_ps(span * (1.0f / 255.0f));
    grid.offset = _mm512_set1_ps(lowest);
    grid.inverse = _mm512_set1_ps(span > 0.0f ? 255.0f / span : 0.0f);
    grid.shift = _mm512_mul_ps(grid.offset, grid.inverse);
    return grid;
}

/* The inputs as bytes, in place: 64 bytes are written where 256 have been read. What is beyond the inputs is rounded too,
   whatever it is, and meets weights of 0. */
static sb3s_grid sb3s_round(const sb3s_layer *layer, float *x, sb3s_range *range) {
    /* Packing interleaves the quarters of its operands. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const sb3s_grid grid = sb3s_measure(layer, x, range);
    int i;
#define SB3S_INTEGERS(k) _mm512_cvtps_epi32(_mm512_fmsub_ps(_mm512_load_ps(x + i + 16 * (k)), grid.inverse, grid.shift))
    for (i = 0; i < layer->in; i += 64) {
        const __m512i front = _mm512_packus_epi32(SB3S_INTEGERS(0), SB3S_INTEGERS(1));
        const __m512i back = _mm512_packus_epi32(SB3S_INTEGERS(2), SB3S_INTEGERS(3));
        _mm512_store_si512((uint8_t *)x + i, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(front, back)));
    }
#undef SB3S_INTEGERS
    return grid;
}

/* int8 weights, SELL-16: per step 64 indices and 64 weights, four of each row, for one vpdpbusd, and the place of the 64 input
   bytes that all of them are picked from: picking from four registers at once takes three times as long. */
static int sb3s_bytes(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y, sb3s_range *found) {
    const uint8_t *w = (const uint8_t *)(base + layer->weights), *bytes = (const uint8_t *)x;
    const uint16_t *places = (const uint16_t *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *sums = (const float *)(base + layer->sums);
    const int relu = layer->activation == SB3S_RELU;
    const sb3s_grid grid = sb3s_round(layer, x, found);
    sb3s_range range;
    int slice, step;
    sb3s_clear(&range);
#define SB3S_STEP(total, k)                                                                                               \
    total = _mm512_dpbusd_epi32(                                                                                          \
        total, _mm512_permutexvar_epi8(_mm512_load_si512(w + 128 * (k)), _mm512_load_si512(bytes + places[k])),           \
        _mm512_load_si512(w + 128 * (k) + 64))
    for (slice = 0; slice < layer->runs; slice++) {
        __m512i sum = _mm512_setzero_si512(), other = sum;
        __m512 value, scaled;
        for (step = steps[slice]; step >= 2; step -= 2, w += 256, places += 2) {
            SB3S_STEP(sum, 0);
            SB3S_STEP(other, 1);
        }
        if (step) {
            SB3S_STEP(sum, 0);
            w += 128;
            places++;
        }
        /* scale * (unit * sum + lowest * (sum of the row's weights)) + bias */
        value = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, other));
        value = _mm512_fmadd_ps(value, grid.unit, _mm512_mul_ps(grid.offset, _mm512_load_ps(sums + 16 * slice)));
        scaled = _mm512_fmadd_ps(value, _mm512_load_ps(scales + 16 * slice), _mm512_load_ps(b + 16 * slice));
        _mm512_store_ps(y + 16 * slice, sb3s_finish(&range, relu, scaled));
    }
#undef SB3S_STEP
    *found = range;
    return sb3s_is_finished(layer);
}

/* int8 weights, dense: eight rows at a time, 64 inputs of each per vpdpbusd. */
static int sb3s_dots(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y, sb3s_range *found) {
    const int8_t *w = (const int8_t *)(base + layer->weights);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *sums = (const float *)(base + layer->sums);
    const int relu = layer->activation == SB3S_RELU;
    const sb3s_grid grid = sb3s_round(layer, x, found);
    sb3s_range range;
    int row, i, j;
    sb3s_clear(&range);
    for (row = 0; row < layer->out; row += 8) {
        __m512i sum[8];
        __m512 value, scaled;
        for (j = 0; j < 8; j++) sum[j] = _mm512_setzero_si512();
        for (i = 0; i < layer->in; i += 64, w += 512) {
            const __m512i bytes = _mm512_load_si512((const uint8_t *)x + i);
            for (j = 0; j < 8; j++) sum[j] = _mm512_dpbusd_epi32(sum[j], bytes, _mm512_load_si512(w + 64 * j));
        }
        /* The sums of eight registers into eight lanes. */
        for (j = 0; j < 4; j++)
            sum[j] = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2 * j], sum[2 * j + 1]),
                                      _mm512_unpackhi_epi32(sum[2 * j], sum[2 * j + 1]));
        for (j = 0; j < 2; j++)
            sum[j] = _mm512_add_epi32(_mm512_unpacklo_epi64(sum[2 * j], sum[2 * j + 1]),
                                      _mm512_unpackhi_epi64(sum[2 * j], sum[2 * j + 1]));
        /* Quarters 0 and 2, 1 and 3 of both; then the two that are left of each. */
        sum[0] = _mm512_add_epi32(_mm512_shuffle_i32x4(sum[0], sum[1], 0x88), _mm512_shuffle_i32x4(sum[0], sum[1], 0xdd));
        sum[0] = _mm512_add_epi32(_mm512_shuffle_i32x4(sum[0], sum[0], 0x08), _mm512_shuffle_i32x4(sum[0], sum[0], 0x0d));
        value = _mm512_cvtepi32_ps(sum[0]);
        value = _mm512_fmadd_ps(value, grid.unit, _mm512_mul_ps(grid.offset, _mm512_maskz_loadu_ps(0xff, sums + row)));
        scaled = _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(0xff, scales + row), _mm512_maskz_loadu_ps(0xff, b + row));
        /* Whole slices of 16, as the others: what lies there may not be a float. */
        _mm512_mask_storeu_ps(y + row, row % 16 ? 0xff : 0xffff, sb3s_finish(&range, relu, scaled));
    }
    *found = range;
    return sb3s_is_finished(layer);
}

/* Sparse, of floats, in slices of 16 rows: per step an index in a byte and a weight of each row, and the place of the 16 inputs that
   all of them are picked from. */
static void sb3s_picks(const sb3s_layer *layer, const char *base, const float *restrict x, float *restrict y) {
    const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
    const __m128i *indices = (const __m128i *)(base + layer->indices);
    const uint16_t *places = (const uint16_t *)(base + layer->places);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    int slice, step;
#define SB3S_STEP(total, k)                                                                                               \
    total = _mm512_fmadd_ps(                                                                                              \
        _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_load_si128(indices + (k))), _mm512_load_ps(x + places[k])),        \
        _mm512_load_ps(w + 16 * (k)), total)
    for (slice = 0; slice < layer->runs; slice++) {
        __m512 sum = _mm512_load_ps(b + 16 * slice), other = _mm512_setzero_ps();
        for (step = steps[slice]; step >= 2; step -= 2, w += 32, indices += 2, places += 2) {
            SB3S_STEP(sum, 0);
            SB3S_STEP(other, 1);
        }
        if (step) {
            SB3S_STEP(sum, 0);
            w += 16, indices++, places++;
        }
        _mm512_store_ps(y + 16 * slice, _mm512_add_ps(sum, other));
    }
#undef SB3S_STEP
}

#include "vbmi_convolution.h"
