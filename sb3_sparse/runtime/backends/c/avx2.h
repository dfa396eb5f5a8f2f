/* Kernels for AVX2 + FMA, with the arithmetic of vbmi.h to the bit. There is no picking from 64 bytes: one shuffle picks from
   16 of them, for eight rows at a time. There are no sums of 8-bit products without saturation either: inputs and weights are
   multiplied in 16 bits. */
#include <immintrin.h>
#define SB3S_FAMILY "avx2"
#define SB3S_AVX2

/* Smallest and largest outputs of a layer by lanes, 0 among them. */
typedef struct {
    __m256 smallest, largest;
    int known;
} sb3s_range;

static inline void sb3s_clear(sb3s_range *range) { range->smallest = range->largest = _mm256_setzero_ps(); }

/* Outputs as they will be stored. NaN stays NaN: it is the second operand. */
static inline __m256 sb3s_finish(sb3s_range *range, int relu, __m256 y) {
    if (relu)
        y = _mm256_max_ps(_mm256_setzero_ps(), y);
    else
        range->smallest = _mm256_min_ps(range->smallest, y);
    range->largest = _mm256_max_ps(range->largest, y);
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
        __m256 sum[4];
        for (j = 0; j < 4; j++) sum[j] = _mm256_load_ps(b + row + 8 * j);
        for (i = 0; i < layer->in; i++, column += rows) {
            const __m256 value = _mm256_broadcast_ss(x + i);
            for (j = 0; j < 4; j++) sum[j] = _mm256_fmadd_ps(value, _mm256_load_ps(column + 8 * j), sum[j]);
        }
        for (j = 0; j < 4; j++) _mm256_store_ps(y + row + 8 * j, sb3s_finish(&range, relu, sum[j]));
    }
    *found = range;
    return sb3s_is_finished(layer);
}

/* The steps of 8 bits between the smallest and the largest of some inputs, and how to round to them. */
typedef struct {
    __m256 unit, offset, inverse, shift;
} sb3s_grid;

static sb3s_grid sb3s_measure(const sb3s_layer *layer, const float *x, sb3s_range *range) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    float smallest[8], largest[8], lowest, highest, span;
    sb3s_grid grid;
    const int in = layer->in;
    int i;
    if (layer->highest) {
        /* Of training: x lies on it already. */
        grid.unit = _mm256_set1_ps(layer->unit);
        grid.inverse = _mm256_set1_ps(1.0f / layer->unit);
        grid.shift = _mm256_set1_ps((float)layer->lowest);
        grid.offset = _mm256_mul_ps(grid.shift, grid.unit);
        return grid;
    }
    if (!range->known) {
        sb3s_clear(range);
        for (i = 0; i < in; i += 8)
            sb3s_finish(range, 0, _mm256_maskload_ps(x + i, _mm256_cmpgt_epi32(_mm256_set1_epi32(in - i), lanes)));
    }
    _mm256_storeu_ps(smallest, range->smallest);
    _mm256_storeu_ps(largest, range->largest);
    lowest = smallest[0];
    highest = largest[0];
    for (i = 1; i < 8; i++) {
        lowest = smallest[i] < lowest ? smallest[i] : lowest;
        highest = largest[i] > highest ? largest[i] : highest;
    }
    span = highest - lowest;
    grid.unit = _mm256_set1_ps(span * (1.0f / 255.0f));
    grid.offset = _mm256_set1_ps(lowest);
    grid.inverse = _mm256_set1_ps(span > 0.0f ? 255.0f / span : 0.0f);
    grid.shift = _mm256_mul_ps(grid.offset, grid.inverse);
    return grid;
}

/* The inputs as bytes, in place: 32 bytes are written where 128 have been read. What is beyond the inputs is rounded too,
   whatever it is, and meets weights of 0. */
static sb3s_grid sb3s_round(const sb3s_layer *layer, float *x, sb3s_range *range) {
    /* Packing interleaves the quarters of its operands. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const sb3s_grid grid = sb3s_measure(layer, x, range);
    int i;
#define SB3S_INTEGERS(k) _mm256_cvtps_epi32(_mm256_fmsub_ps(_mm256_load_ps(x + i + 8 * (k)), grid.inverse, grid.shift))
    for (i = 0; i < layer->in; i += 32) {
        const __m256i front = _mm256_packus_epi32(SB3S_INTEGERS(0), SB3S_INTEGERS(1));
        const __m256i back = _mm256_packus_epi32(SB3S_INTEGERS(2), SB3S_INTEGERS(3));
        _mm256_store_si256((__m256i *)((uint8_t *)x + i),
                           _mm256_permutevar8x32_epi32(_mm256_packus_epi16(front, back), order));
    }
#undef SB3S_INTEGERS
    return grid;
}

/* scale * (unit * sum + lowest * (sum of the row's weights)) + bias of eight rows */
static inline __m256 sb3s_scale(const sb3s_layer *layer, const char *base, const sb3s_grid *grid, int row, __m256i sum) {
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *sums = (const float *)(base + layer->sums);
    const __m256 shift = _mm256_mul_ps(grid->offset, _mm256_load_ps(sums + row));
    return _mm256_fmadd_ps(_mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), grid->unit, shift), _mm256_load_ps(scales + row),
                           _mm256_load_ps(b + row));
}

/* Sparse, in slices of eight rows: per step 16 indices and 16 weights, two of each row, and the place of the 16 input bytes that
   all of them are picked from. */
static int sb3s_bytes(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y, sb3s_range *found) {
    const uint8_t *bytes = (const uint8_t *)x;
    const __m128i *w = (const __m128i *)(base + layer->weights);
    const uint16_t *places = (const uint16_t *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    const int relu = layer->activation == SB3S_RELU;
    const sb3s_grid grid = sb3s_round(layer, x, found);
    sb3s_range range;
    int slice, step;
    sb3s_clear(&range);
#define SB3S_STEP(total, k)                                                                                               \
    total = _mm256_add_epi32(                                                                                             \
        total, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_shuffle_epi8(                                                   \
                                     _mm_load_si128((const __m128i *)(bytes + places[k])), _mm_load_si128(w + 2 * (k)))), \
                                 _mm256_cvtepi8_epi16(_mm_load_si128(w + 2 * (k) + 1))))
    for (slice = 0; slice < layer->runs; slice++) {
        __m256i sum = _mm256_setzero_si256(), other = sum;
        for (step = steps[slice]; step >= 2; step -= 2, w += 4, places += 2) {
            SB3S_STEP(sum, 0);
            SB3S_STEP(other, 1);
        }
        if (step) {
            SB3S_STEP(sum, 0);
            w += 2;
            places++;
        }
        sum = _mm256_add_epi32(sum, other);
        _mm256_store_ps(y + 8 * slice, sb3s_finish(&range, relu, sb3s_scale(layer, base, &grid, 8 * slice, sum)));
    }
#undef SB3S_STEP
    *found = range;
    return sb3s_is_finished(layer);
}

/* Dense: eight rows at a time, 16 inputs of each per step. The last slice of 16 rows is filled up: what lies there may not be a
   float. */
static int sb3s_dots(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y, sb3s_range *found) {
    const __m128i *w = (const __m128i *)(base + layer->weights);
    const int relu = layer->activation == SB3S_RELU;
    const sb3s_grid grid = sb3s_round(layer, x, found);
    sb3s_range range;
    int row, i, j;
    sb3s_clear(&range);
    for (row = 0; row < layer->out; row += 8) {
        __m256i sum[8], total;
        for (j = 0; j < 8; j++) sum[j] = _mm256_setzero_si256();
        for (i = 0; i < layer->in; i += 16, w += 8) {
            const __m256i bytes = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)((const uint8_t *)x + i)));
            for (j = 0; j < 8; j++)
                sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(bytes, _mm256_cvtepi8_epi16(_mm_load_si128(w + j))));
        }
        /* The sums of eight registers into eight lanes. */
        for (j = 0; j < 4; j++) sum[j] = _mm256_hadd_epi32(sum[2 * j], sum[2 * j + 1]);
        for (j = 0; j < 2; j++) sum[j] = _mm256_hadd_epi32(sum[2 * j], sum[2 * j + 1]);
        total = _mm256_add_epi32(_mm256_permute2x128_si256(sum[0], sum[1], 0x20), _mm256_permute2x128_si256(sum[0], sum[1], 0x31));
        _mm256_store_ps(y + row, sb3s_finish(&range, relu, sb3s_scale(layer, base, &grid, row, total)));
    }
    if (row % 16) _mm256_store_ps(y + row, _mm256_setzero_ps());
    *found = range;
    return sb3s_is_finished(layer);
}

/* Sparse, of floats, in slices of eight rows: per step an index in a byte and a weight of each row, and the place of the eight inputs
   that all of them are picked from. */
static void sb3s_picks(const sb3s_layer *layer, const char *base, const float *restrict x, float *restrict y) {
    const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
    const uint8_t *indices = (const uint8_t *)(base + layer->indices);
    const uint16_t *places = (const uint16_t *)(base + layer->places);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    int slice, step;
#define SB3S_STEP(total, k)                                                                                               \
    total = _mm256_fmadd_ps(                                                                                              \
        _mm256_permutevar8x32_ps(_mm256_load_ps(x + places[k]),                                                           \
                                 _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(indices + 8 * (k))))),            \
        _mm256_load_ps(w + 8 * (k)), total)
    for (slice = 0; slice < layer->runs; slice++) {
        __m256 sum = _mm256_load_ps(b + 8 * slice), other = _mm256_setzero_ps();
        for (step = steps[slice]; step >= 2; step -= 2, w += 16, indices += 16, places += 2) {
            SB3S_STEP(sum, 0);
            SB3S_STEP(other, 1);
        }
        if (step) {
            SB3S_STEP(sum, 0);
            w += 8, indices += 8, places++;
        }
        _mm256_store_ps(y + 8 * slice, _mm256_add_ps(sum, other));
    }
#undef SB3S_STEP
}

#include "avx2_convolution.h"
