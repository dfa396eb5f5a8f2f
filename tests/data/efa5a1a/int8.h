/* int8.h: a policy, written by sb3_sparse 0.1.0. 3 layers, 85 weights.

   void int8_act(const int8_observation *observation, int8_action *action);

   observation: 3 numbers as the environment gives them. action: 1.
   One C99 file; several, of different names, may be included together. No malloc, no libm, no state between calls (the
   buffers are static; define INT8_STORAGE as nothing to have them on the stack). Its arithmetic, chosen by a macro
   before it is included:

   (default)           8-bit weights, float activations
   INT8_INTEGER      the hidden layers in integers: 8-bit weights, 16-bit activations
   INT8_VBMI         AVX-512 VBMI (-march=native): 8-bit hidden activations

   Self test:  cc -std=c99 -O2 -x c -DINT8_MAIN int8.h -o test && ./test */
#if defined(INT8_H) && INT8_H != 0x7b440982u
#error "two policies have the name int8: write one of them with another name"
#elif !defined(INT8_H)
#define INT8_H 0x7b440982u

#include <stdint.h>

#ifndef INT8_STORAGE
#define INT8_STORAGE static
#endif

typedef float int8_observation;
typedef float int8_action;

#ifndef SB3S_ACTIVATIONS
#define SB3S_ACTIVATIONS
/* Activation functions in plain C99 without libm. Largest error against the exact functions: 1.9e-6 of tanh, 2e-7 of the
   others. None leaves the range of the exact one: an action at its bound must not lie beyond. */

/* A rational function of odd degree 7 over 6, fitted on [-7, 7] by least squares reweighted towards the largest error. It passes 1
   at 6.958, so it ends before. */
static inline float sb3s_tanh(float x) {
    float z;
    if (x > 6.9f) x = 6.9f;
    if (x < -6.9f) x = -6.9f;
    z = x * x;
    return x * (0.99999571f + z * (0.12302186f + z * (2.2769906e-3f + z * 3.9300162e-6f))) /
           (1.0f + z * (0.45634034f + z * (0.021072188f + z * 1.4235010e-4f)));
}

/* e^x of a number that is not positive: 2^n times a polynomial on [-ln2 / 2, ln2 / 2], fitted in the same way. */
static inline float sb3s_exp(float x) {
    union {
        int32_t i;
        float f;
    } power;
    float r;
    int32_t n;
    x = x < -87.0f ? -87.0f : x;
    /* What is no number has no integer, but stays what it is in r. */
    n = (int32_t)((x == x ? x : 0.0f) * 1.44269504f - 0.5f);
    r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    power.i = (n + 127) * 8388608;
    return power.f *
           (1.0f + r * (1.0f + r * (0.49999992f + r * (0.16666420f + r * (0.041668226f + r * (0.0083748158f + r * 0.0013836846f))))));
}

/* By the exponential: silu multiplies the error by x. */
static inline float sb3s_sigmoid(float x) {
    float e = sb3s_exp(x < 0.0f ? x : -x);
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
#endif

#if defined(INT8_VBMI)

#ifndef SB3S_KERNELS
#define SB3S_KERNELS
/* A policy from its plan, one observation at a time: what the compiled backends run. Plain C99 without malloc and libm; the
   AVX-512 VBMI kernels are in vbmi.h. sb3_sparse/runtime/plan.py writes the plan and describes it; nothing in it is trusted
   less than this code, for it is made in memory from a file that has been checked. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>


enum { SB3S_IDENTITY, SB3S_RELU, SB3S_TANH, SB3S_CLIP, SB3S_LEAKY_RELU, SB3S_ELU, SB3S_SIGMOID, SB3S_SILU };
enum { SB3S_COLUMNS, SB3S_ROWS, SB3S_SPARSE, SB3S_CONVOLUTION, SB3S_LANES, SB3S_BYTES, SB3S_DOTS, SB3S_PATCHES };
enum { SB3S_UNSCALE, SB3S_CLIP_ACTION, SB3S_ARGMAX, SB3S_POSITIVE };

typedef struct {
    int32_t kind, activation, in, out;
    float low, high;
    /* Convolutions: max(x, 0) first, the input of the layer before added; a max pool unless its height is 0. */
    int32_t rectify, residual, pool_height, pool_width, pool_down, pool_right, pool_top, pool_side;
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
} sb3s_layer;

typedef struct {
    int32_t layers, inputs, outputs, head, actions, normalize;
    float limit;
    /* Offsets of mean and scale, of low and high or the groups; floats in one buffer of the scratch memory, and buffers. */
    int32_t mean, scale, low, high, groups, half, buffers;
    /* Offset of a layer that takes the place of the first one where the observation is bytes, or 0. */
    int32_t pixels;
} sb3s_plan;

static void sb3s_activate(const sb3s_layer *layer, float *restrict y, int n) {
    int i;
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
    default:
        break;
    }
}

/* Dense, by columns: inputs that are zero, as most are after a ReLU, cost nothing. */
static void sb3s_columns(const sb3s_layer *layer, const float *restrict w, const float *restrict b, const float *restrict x,
                         float *restrict y) {
    int i, j;
    const int n = layer->out;
    for (j = 0; j < n; j++) y[j] = b[j];
    for (i = 0; i < layer->in; i++) {
        const float v = x[i];
        const float *restrict column = w + (long)i * n;
        if (v == 0.0f) continue;
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

/* Sparse convolution. The padded input is split by the phases of the stride, so that every weight multiplies one contiguous
   stretch of a plane; columns at the right border compute what nobody reads. */
static void sb3s_convolution(const sb3s_layer *layer, const float *restrict w, const int32_t *restrict offsets,
                             const int32_t *restrict counts, const float *restrict b, const float *restrict x,
                             float *restrict y, float *restrict phases) {
    int c, i, j, o;
    const int sh = layer->stride_height, sw = layer->stride_width, pitch = layer->pitch, phase = layer->phase;
    const int stretch = (layer->out_height - 1) * pitch + layer->out_width;
    const long planes = (long)layer->channels * sh * sw * phase;
    float *restrict sums = phases + planes;
    memset(phases, 0, sizeof(float) * (size_t)planes);
    for (c = 0; c < layer->channels; c++)
        for (i = 0; i < layer->height; i++, x += layer->width) {
            const int row = i + layer->pad_height;
            const long first = (long)(c * sh + row % sh) * sw * phase + (row / sh) * pitch;
            for (j = 0; j < sw && j < layer->width; j++) {
                const int column = j + layer->pad_width;
                float *restrict plane = phases + first + (long)(column % sw) * phase + column / sw;
                for (o = j; o < layer->width; o += sw) *plane++ = x[o];
            }
        }
    for (o = 0; o < layer->out; o++) {
        for (i = 0; i < stretch; i++) sums[i] = b[o];
        /* Four weights at a time, so that the sums are read and written a fourth as often. */
        for (j = counts[o]; j >= 4; j -= 4, w += 4, offsets += 4) {
            const float *restrict p = phases + offsets[0], *restrict q = phases + offsets[1];
            const float *restrict r = phases + offsets[2], *restrict s = phases + offsets[3];
            for (i = 0; i < stretch; i++) sums[i] += (w[0] * p[i] + w[1] * q[i]) + (w[2] * r[i] + w[3] * s[i]);
        }
        for (; j > 0; j--, w++, offsets++) {
            const float *restrict p = phases + *offsets;
            for (i = 0; i < stretch; i++) sums[i] += *w * p[i];
        }
        for (i = 0; i < layer->out_height; i++, y += layer->out_width)
            memcpy(y, sums + i * pitch, sizeof(float) * (size_t)layer->out_width);
    }
}


/* Max pool. The padding is at most half of the window, so every window has an element of x. */
static void sb3s_pool(const sb3s_layer *layer, const float *restrict x, float *restrict y) {
    const int height = layer->out_height, width = layer->out_width;
    const int rows = (height + 2 * layer->pool_top - layer->pool_height) / layer->pool_down + 1;
    const int columns = (width + 2 * layer->pool_side - layer->pool_width) / layer->pool_right + 1;
    int c, i, j, k, l;
    for (c = 0; c < layer->out; c++, x += (long)height * width)
        for (i = 0; i < rows; i++)
            for (j = 0; j < columns; j++) {
                const int top = i * layer->pool_down - layer->pool_top, side = j * layer->pool_right - layer->pool_side;
                const int bottom = top + layer->pool_height < height ? top + layer->pool_height : height;
                const int end = side + layer->pool_width < width ? side + layer->pool_width : width;
                const int first = side < 0 ? 0 : side;
                float largest = x[(long)(top < 0 ? 0 : top) * width + first];
                for (k = top < 0 ? 0 : top; k < bottom; k++)
                    for (l = first; l < end; l++) {
                        const float v = x[(long)k * width + l];
                        largest = v > largest ? v : largest;
                    }
                *y++ = largest;
            }
}

#ifdef __AVX512VBMI__
/* Kernels for AVX-512 VBMI + VNNI: the inputs stay in registers or in a few lines of the cache, and are picked by permutation,
   never gathered. A kernel returns whether it has applied the activation; then it has found the range of its outputs too,
   which the next layer needs to round them to bytes. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VBMI__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define SB3S_VBMI

/* Smallest and largest outputs of a layer by lanes, 0 among them. */
typedef struct {
    __m512 smallest, largest;
    int known;
} sb3s_range;

static inline void sb3s_clear(sb3s_range *range) { range->smallest = range->largest = _mm512_setzero_ps(); }

/* Outputs as they will be stored. What is no number stays so: it is the second operand. */
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
   four steps 16 indices of 32 bits with a byte for each step. */
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
#define SB3S_STEP(total, k)                                                                                               \
    total = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, _mm512_srli_epi32(index, 8 * (k)), high),                         \
                            _mm512_load_ps(w + 16 * (k)), total)
    for (slice = 0; slice < layer->runs; slice++) {
        __m512 sum = _mm512_load_ps(b + 16 * slice), other = _mm512_setzero_ps();
        for (step = steps[slice]; step >= 4; step -= 4, w += 64) {
            const __m512i index = _mm512_load_si512(c++);
            SB3S_STEP(sum, 0);
            SB3S_STEP(other, 1);
            SB3S_STEP(sum, 2);
            SB3S_STEP(other, 3);
        }
        if (step) {
            const __m512i index = _mm512_load_si512(c++);
            SB3S_STEP(sum, 0);
            if (step > 1) SB3S_STEP(other, 1);
            if (step > 2) SB3S_STEP(sum, 2);
            w += 16 * step;
        }
        _mm512_store_ps(y + 16 * slice, sb3s_finish(&range, relu, _mm512_add_ps(sum, other)));
    }
#undef SB3S_STEP
    *found = range;
    return sb3s_is_finished(layer);
}

/* The steps of 8 bits between the smallest and the largest of some inputs, and how to round to them. */
typedef struct {
    __m512 unit, offset, inverse, shift;
} sb3s_grid;

static sb3s_grid sb3s_measure(int in, const float *x, sb3s_range *range) {
    sb3s_grid grid;
    float lowest, span;
    int i;
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
static sb3s_grid sb3s_round(int in, float *x, sb3s_range *range) {
    /* Packing interleaves the quarters of its operands. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const sb3s_grid grid = sb3s_measure(in, x, range);
    int i;
#define SB3S_INTEGERS(k) _mm512_cvtps_epi32(_mm512_fmsub_ps(_mm512_load_ps(x + i + 16 * (k)), grid.inverse, grid.shift))
    for (i = 0; i < in; i += 64) {
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
    const sb3s_grid grid = sb3s_round(layer->in, x, found);
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
    const sb3s_grid grid = sb3s_round(layer->in, x, found);
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
        /* Whole slices of 16, as the others: what lies there may be no float. */
        _mm512_mask_storeu_ps(y + row, row % 16 ? 0xff : 0xffff, sb3s_finish(&range, relu, scaled));
    }
    *found = range;
    return sb3s_is_finished(layer);
}

/* Convolutions of bytes for AVX-512 VBMI + VNNI, included by vbmi.h. Four inputs and their four weights make one 32-bit lane of
   vpdpbusd, a quad: four channels at one place, or four pixels of a row where the stride is four, as images lie in memory. A lane
   is an output place, so every quad of weights that exists multiplies a few whole registers, and those that do not cost nothing.

   A tile of output rows is done at a time. Its inputs are copied first, quad by quad, such that no load crosses a cache line.
   plan_convolution.py chooses the tiles. */

static inline __mmask16 sb3s_first(int lanes) { return lanes >= 16 ? 0xffff : lanes <= 0 ? 0 : (__mmask16)((1u << lanes) - 1); }

/* Up to 16 inputs of one channel as integers from 0 to 255. */
static inline __m512i sb3s_integers(const float *x, const uint8_t *pixels, long at, __mmask16 mask, const sb3s_grid *grid) {
    if (pixels) return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, pixels + at));
    return _mm512_cvtps_epi32(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, x + at), grid->inverse, grid->shift));
}

/* Channels to quads of four, split by the phases of the stride: [channels / 4, phases down, phases right, rows, columns, 4]. Only
   inputs that are never negative are padded, so the byte 0 stands for 0. */
static void sb3s_pack(const sb3s_layer *layer, const float *x, const uint8_t *pixels, const sb3s_grid *grid, uint8_t *packed) {
    const int padded = layer->pad_height || layer->pad_width, sh = layer->stride_height, sw = layer->stride_width;
    /* Without padding and stride, a channel is one long row. */
    const int flat = !padded && sh == 1 && sw == 1;
    const int rows = flat ? 1 : layer->height, columns = flat ? layer->height * layer->width : layer->width;
    const long size = (long)layer->height * layer->width;
    const long phase = (long)layer->pitch * ((layer->height + 2 * layer->pad_height + sh - 1) / sh);
    /* No divisions in the loops: they would take most of the time. */
    const int whole = 16 / sw, remainder = 16 % sw, first = layer->pad_width / sw, shift = layer->pad_width % sw;
    unsigned comb = 0;
    int c, i, j, k;
    for (k = 0; k < 16; k += sw) comb |= 1u << k;
    if (padded) memset(packed, 0, 4 * (size_t)layer->phase);
    for (c = 0; c < layer->channels; c += 4, packed += phase * sh * sw) {
        const int missing = c + 4 - layer->channels;
        /* Rows and columns by phase, and their number in it. */
        int down = layer->pad_height % sh, row = layer->pad_height / sh;
        for (i = 0; i < rows; i++) {
            uint8_t *target = packed + phase * sw * down + (long)layer->pitch * row;
            int right = shift, column = first;
            for (j = 0; j < columns; j += 16) {
                const __mmask16 mask = sb3s_first(columns - j);
                const long at = c * size + (long)i * columns + j;
                __m512i quad = sb3s_integers(x, pixels, at, mask, grid);
#define SB3S_CHANNEL(k)                                                                                                   \
    if (missing < 4 - (k))                                                                                                \
    quad = _mm512_or_si512(quad, _mm512_slli_epi32(sb3s_integers(x, pixels, at + (k) * size, mask, grid), 8 * (k)))
                SB3S_CHANNEL(1);
                SB3S_CHANNEL(2);
                SB3S_CHANNEL(3);
#undef SB3S_CHANNEL
                for (k = 0; k < sw; k++) {
                    const __mmask16 chosen = (__mmask16)(mask & (comb << k));
                    uint8_t *to = target + phase * right + 4L * column;
                    _mm512_mask_storeu_epi32(to, sb3s_first(__builtin_popcount(chosen)), _mm512_maskz_compress_epi32(chosen, quad));
                    if (++right == sw) right = 0, column++;
                }
                right += remainder;
                column += whole - 1;
                if (right >= sw) right -= sw, column++;
            }
            if (++down == sh) down = 0, row++;
        }
    }
}

/* The inputs of some output rows: for each quad of a window that quad of all their places, one after the other. Of packed inputs
   it may be one stretch, with what lies between the rows; else it is row by row. */
static void sb3s_copy(const sb3s_layer *layer, const int32_t *places, const uint8_t *source, int rows, int32_t *tile) {
    const int width = layer->out_width;
    int quad, i, j;
    for (quad = 0; quad < layer->runs; quad++, tile += 16 * layer->vectors) {
        const uint8_t *row = source + places[quad];
        if (layer->across != width) {
            for (i = 0; i < layer->vectors; i++) _mm512_store_si512(tile + 16 * i, _mm512_loadu_si512(row + 64 * i));
            continue;
        }
        /* What is written beyond a row is overwritten by what comes next. */
        for (i = 0; i < rows; i++, row += layer->pitch) {
            int32_t *target = tile + i * width;
            for (j = 0; j + 16 <= width; j += 16) _mm512_storeu_si512(target + j, _mm512_loadu_si512(row + 4 * j));
            if (j + 4 == width)
                _mm_storeu_si128((__m128i *)(target + j), _mm_loadu_si128((const __m128i *)(row + 4 * j)));
            else if (j < width)
                _mm512_storeu_si512(target + j, _mm512_maskz_loadu_epi32(sb3s_first(width - j), row + 4 * j));
        }
    }
}

/* One output channel of a tile: its quads of weights, times so many registers each. Two sets of sums, for they wait for each other. */
#define SB3S_SUMS(n)                                                                                                      \
    static inline void sb3s_sums_##n(const char *tile, const int32_t *quads, const int32_t *w, int count, __m512i *sums) { \
        __m512i sum[n], other[n];                                                                                         \
        int k;                                                                                                            \
        for (k = 0; k < n; k++) sum[k] = other[k] = _mm512_setzero_si512();                                               \
        for (; count >= 2; count -= 2, quads += 2, w += 2) {                                                              \
            const __m512i weight = _mm512_set1_epi32(w[0]), next = _mm512_set1_epi32(w[1]);                               \
            const char *a = tile + quads[0], *b = tile + quads[1];                                                        \
            for (k = 0; k < n; k++) sum[k] = _mm512_dpbusd_epi32(sum[k], _mm512_load_si512(a + 64 * k), weight);          \
            for (k = 0; k < n; k++) other[k] = _mm512_dpbusd_epi32(other[k], _mm512_load_si512(b + 64 * k), next);        \
        }                                                                                                                 \
        if (count) {                                                                                                      \
            const __m512i weight = _mm512_set1_epi32(*w);                                                                 \
            for (k = 0; k < n; k++) sum[k] = _mm512_dpbusd_epi32(sum[k], _mm512_load_si512(tile + *quads + 64 * k), weight); \
        }                                                                                                                 \
        for (k = 0; k < n; k++) sums[k] = _mm512_add_epi32(sum[k], other[k]);                                             \
    }
SB3S_SUMS(1)
SB3S_SUMS(2)
SB3S_SUMS(3)
SB3S_SUMS(4)
SB3S_SUMS(5)
SB3S_SUMS(6)
SB3S_SUMS(7)
SB3S_SUMS(8)
#undef SB3S_SUMS

/* A whole layer, from floats, or from pixels if there are any. They are read where they are if the quads are pixels of a row. */
static int sb3s_patches(const sb3s_layer *layer, const char *base, const uint8_t *pixels, const float *restrict x,
                        float *restrict y, float *restrict scratch, sb3s_range *found) {
    const int32_t *places = (const int32_t *)(base + layer->places), *counts = (const int32_t *)(base + layer->counts);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *rows = (const float *)(base + layer->sums);
    const int size = layer->out_height * layer->out_width, relu = layer->activation == SB3S_RELU;
    const uint8_t *source = pixels;
    int32_t *tile = (int32_t *)scratch + layer->phase;
    __mmask16 valid[8];
    sb3s_range range;
    sb3s_grid grid;
    int start, o, i, k;
    if (pixels)
        grid.unit = _mm512_set1_ps(1.0f), grid.offset = grid.inverse = grid.shift = _mm512_setzero_ps();
    else
        grid = sb3s_measure(layer->in, x, found);
    if (layer->phase) {
        sb3s_pack(layer, x, pixels, &grid, (uint8_t *)scratch);
        source = (const uint8_t *)scratch;
    }
    sb3s_clear(&range);
    for (start = 0; start < layer->out_height; start += layer->tile) {
        const int height = layer->out_height - start < layer->tile ? layer->out_height - start : layer->tile;
        const int32_t *quads = (const int32_t *)(base + layer->indices), *w = (const int32_t *)(base + layer->weights);
        float *out = y + start * layer->out_width;
        sb3s_copy(layer, places, source + (long)start * layer->pitch, height, tile);
        /* Lanes that are places of the output. */
        memset(valid, 0, sizeof(valid));
        for (i = 0; i < height; i++)
            for (k = i * layer->across; k < i * layer->across + layer->out_width; k++)
                valid[k / 16] = (__mmask16)(valid[k / 16] | 1u << k % 16);
        for (o = 0; o < layer->out; o++, out = y + (long)o * size + start * layer->out_width) {
            /* scale * (unit * sum + lowest * (sum of the row's weights)) + bias */
            const __m512 scale = _mm512_set1_ps(scales[o]), bias = _mm512_set1_ps(b[o]);
            const __m512 shift = _mm512_mul_ps(grid.offset, _mm512_set1_ps(rows[o]));
            __m512i sums[8];
            switch (layer->vectors) {
#define SB3S_CASE(n)                                                                                                      \
    case n:                                                                                                               \
        sb3s_sums_##n((const char *)tile, quads, w, counts[o], sums);                                                     \
        break
                SB3S_CASE(1);
                SB3S_CASE(2);
                SB3S_CASE(3);
                SB3S_CASE(4);
                SB3S_CASE(5);
                SB3S_CASE(6);
                SB3S_CASE(7);
            default:
                sb3s_sums_8((const char *)tile, quads, w, counts[o], sums);
#undef SB3S_CASE
            }
            quads += counts[o];
            w += counts[o];
            for (k = 0; k < layer->vectors; k++) {
                const int count = __builtin_popcount(valid[k]);
                const __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[k]), grid.unit, shift);
                const __m512 done = sb3s_finish(&range, relu, _mm512_maskz_fmadd_ps(valid[k], value, scale, bias));
                _mm512_mask_storeu_ps(out, sb3s_first(count), _mm512_maskz_compress_ps(valid[k], done));
                out += count;
            }
        }
    }
    *found = range;
    return sb3s_is_finished(layer);
}

#endif

#endif

/* Whether the kernels of vbmi.h are there. */
static inline int sb3s_has_vbmi(void) {
#ifdef SB3S_VBMI
    return 1;
#else
    return 0;
#endif
}

/* One action. The observation is in pixels, if it is bytes; else that is NULL, and x holds it in front. x is overwritten: it has
   plan->buffers buffers of plan->half floats, 64-byte aligned, and behind them what convolutions work in. Layers go from x to y;
   z, if there is one, holds the input of the layer before until it has been added, and else is free. */
static void sb3s_act(const sb3s_plan *plan, const uint8_t *pixels, float *restrict x, void *action) {
    const char *base = (const char *)plan;
    const sb3s_layer *next = (const sb3s_layer *)(plan + 1);
    float *y = x + plan->half, *z = y + plan->half, *const phases = x + plan->buffers * (long)plan->half;
    int i, j, n, invalid = 0;
#ifdef SB3S_VBMI
    sb3s_range range;
    range.known = 0;
#endif
    if (pixels && !plan->pixels) {
        for (i = 0; i < plan->inputs; i++) x[i] = (float)pixels[i];
        pixels = NULL;
    } else if (!pixels) {
        for (i = 0; i < plan->inputs; i++) invalid |= x[i] != x[i];
    }
    if (plan->normalize) {
        const float *mean = (const float *)(base + plan->mean), *scale = (const float *)(base + plan->scale);
        for (i = 0; i < plan->inputs; i++) {
            const float v = (x[i] - mean[i]) * scale[i];
            x[i] = v < -plan->limit ? -plan->limit : v > plan->limit ? plan->limit : v;
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
#ifdef SB3S_VBMI
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
        case SB3S_PATCHES:
            finished = sb3s_patches(layer, base, pixels, x, y, phases, &range);
            size *= layer->out_height * layer->out_width;
            break;
#endif
        default:
            break;
        }
        if (!finished) sb3s_activate(layer, y, size);
#ifdef SB3S_VBMI
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
    /* An input that is no number leaves none, as in a dense product, wherever it lies and whether its weights exist or not. */
    for (i = 0; invalid && i < plan->outputs; i++) x[i] = 0.0f / 0.0f;
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
#endif

#ifndef SB3S_VBMI
#error "no AVX-512 VBMI and VNNI: compile with -march=native on a processor that has them"
#endif
static const unsigned char int8_plan[] __attribute__((aligned(64))) = {
    3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 32, 65, 0, 2, 0, 0,
    64, 2, 0, 0, 128, 2, 0, 0, 192, 2, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0,
    1, 0, 0, 0, 3, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 192, 3, 0, 0, 64, 4, 0, 0,
    0, 4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 14, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 64, 5, 0, 0, 192, 6, 0, 0, 128, 4, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 192, 4, 0, 0, 0, 5, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0,
    2, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 64, 7, 0, 0,
    64, 9, 0, 0, 1, 0, 0, 0, 128, 7, 0, 0, 192, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    171, 242, 83, 61, 214, 204, 232, 59, 38, 158, 24, 61, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    164, 157, 219, 63, 228, 216, 157, 63, 111, 51, 108, 62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 192, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    61, 34, 168, 61, 23, 111, 26, 191, 30, 20, 77, 191, 169, 35, 47, 190, 171, 59, 81, 59, 235, 25, 211, 190, 93, 4, 217, 62, 225, 37, 130, 190,
    146, 210, 182, 62, 230, 73, 129, 191, 63, 243, 4, 63, 169, 35, 47, 189, 1, 164, 3, 191, 161, 77, 204, 63, 0, 0, 0, 0, 0, 0, 0, 0,
    75, 217, 238, 62, 217, 163, 114, 190, 47, 105, 37, 191, 37, 158, 86, 191, 12, 54, 211, 62, 237, 233, 24, 63, 90, 82, 162, 189, 67, 135, 63, 191,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    243, 247, 9, 63, 9, 145, 222, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 2, 0, 0, 1, 2, 0, 1, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0,
    1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    38, 155, 84, 62, 137, 211, 188, 190, 76, 180, 166, 190, 222, 248, 236, 60, 22, 127, 220, 62, 143, 135, 188, 190, 182, 160, 119, 190, 191, 228, 72, 61,
    57, 44, 155, 61, 81, 50, 237, 62, 225, 118, 81, 61, 148, 50, 243, 61, 22, 145, 24, 190, 83, 203, 0, 62, 0, 0, 0, 0, 0, 0, 0, 0,
    89, 202, 159, 62, 85, 151, 174, 60, 105, 19, 174, 62, 114, 31, 243, 61, 240, 110, 2, 190, 182, 165, 163, 189, 26, 244, 28, 190, 168, 104, 73, 62,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    140, 68, 98, 59, 81, 253, 131, 59, 120, 215, 194, 59, 93, 216, 22, 59, 112, 69, 182, 59, 85, 70, 10, 59, 116, 142, 60, 59, 120, 215, 66, 59,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 188, 195, 0, 0, 28, 67, 0, 0, 64, 65, 0, 0, 12, 66, 0, 0, 9, 67, 0, 0, 224, 66, 0, 0, 68, 195, 0, 0, 116, 194,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 1, 2, 4, 5, 0, 2, 4, 5, 1, 4, 7, 9, 5, 7, 11, 12, 3, 6, 9, 12, 2, 6, 8, 9, 0, 2, 6, 11,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    245, 245, 169, 234, 241, 193, 20, 82, 3, 197, 127, 2, 126, 54, 7, 203, 124, 22, 235, 1, 124, 219, 226, 38, 132, 48, 141, 239, 11, 193, 132, 115,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    4, 6, 7, 8, 7, 8, 10, 12, 7, 8, 12, 0, 10, 11, 13, 0, 13, 0, 0, 0, 13, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    172, 130, 198, 10, 219, 196, 13, 94, 193, 235, 23, 0, 203, 62, 148, 0, 11, 0, 0, 0, 17, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    9, 11, 13, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    70, 195, 4, 0, 122, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    83, 129, 119, 189, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    237, 135, 57, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 224, 66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    240, 11, 10, 248, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    127, 39, 215, 246, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
static void int8_act(const int8_observation *observation, int8_action *action) {
    INT8_STORAGE float x[144] __attribute__((aligned(64)));
    int i;
    for (i = 0; i < 3; i++) x[i] = observation[i];
    sb3s_act((const sb3s_plan *)int8_plan, NULL, x, action);
}

#elif defined(INT8_INTEGER)


static inline int16_t int8_round(float x) {
    /* Positive, so that the cast rounds down; what is no number becomes the smallest. */
    x += 32768.5f;
    x = x > 1.0e+00f ? x : 1.0e+00f;
    x = x < 6.5535e+04f ? x : 6.5535e+04f;
    return (int16_t)((int32_t)x - 32768);
}


static inline int32_t int8_minifloat(uint8_t code) {
    return (int32_t)(16 + (code & 15)) << (code >> 4);
}


static const uint8_t *int8_rows_small11(const uint8_t *p, const int16_t *x, void *output) {
    const int32_t factor = p[0] | (uint16_t)p[1] << 8;
    const int shift = p[2];
    int16_t *y = (int16_t *)output;
    int32_t *sums = (int32_t *)output;
    unsigned n;
    for (p += 3; (n = p[1]) != 0;) {
        const unsigned size = p[0] * 2;
        p += 1 + 1;
        for (; n != 0; n--) {
            const uint8_t *end = p + size;
            int32_t sum = 0;
            for (; p != end; p += 2) sum += (int32_t)(int8_t)p[1] * x[p[0]];
            if (factor == 0) {
                *sums++ = sum;
                continue;
            }
            sum = (int32_t)(((int64_t)sum * (factor * int8_minifloat(*p))) >> 32) >> shift;
            sum += (int16_t)(p[1] | (uint16_t)p[1 + 1] << 8);
            p += 1 + 2;
            sum = sum > 32767 ? 32767 : sum;
            *y++ = (int16_t)(sum < 0 ? 0 : sum);
        }
    }
    return p + 1 + 1;
}


static const float int8_mean[] = {
    5.1745098e-02f, 7.1044965e-03f, 3.7260197e-02f};
static const float int8_scale[] = {
    1.7157483e+00f, 1.2331815e+00f, 2.3066495e-01f};
static const uint8_t int8_gain[] = {
    209, 215, 255};
static const float int8_rows2[] = {
    1.362823e-06f, -6.0426068e-02f};
static const uint8_t int8_layers[] = {
    183, 5, 5, 3, 2, 0, 30, 1, 126, 2, 27, 219, 105, 3, 0, 132, 1, 220, 2, 49, 232, 240, 249, 2,
    6, 1, 129, 2, 237, 231, 166, 250, 0, 131, 2, 172, 203, 122, 0, 0, 7, 2, 124, 178, 20, 7, 0, 143,
    1, 121, 226, 243, 249, 0, 123, 1, 239, 225, 7, 252, 0, 199, 1, 132, 230, 206, 0, 1, 6, 1, 124, 213,
    63, 1, 1, 129, 237, 157, 7, 0, 122, 229, 215, 0, 0, 131, 171, 244, 1, 1, 131, 222, 141, 253, 0, 127,
    255, 17, 2, 0, 0, 53, 6, 5, 11, 1, 0, 245, 1, 245, 2, 169, 3, 234, 4, 172, 6, 130, 7, 198,
    8, 10, 9, 70, 11, 195, 13, 4, 242, 33, 10, 9, 1, 1, 241, 2, 193, 4, 20, 5, 82, 7, 219, 8,
    196, 10, 13, 12, 94, 13, 122, 245, 177, 0, 7, 2, 0, 3, 2, 197, 4, 127, 5, 2, 7, 193, 8, 235,
    12, 23, 255, 9, 11, 1, 126, 4, 54, 7, 7, 9, 203, 10, 203, 11, 62, 13, 148, 232, 218, 3, 5, 3,
    5, 124, 7, 22, 11, 235, 12, 1, 13, 11, 253, 222, 251, 3, 124, 6, 219, 9, 226, 12, 38, 13, 17, 230,
    104, 253, 2, 132, 6, 48, 8, 141, 9, 239, 13, 12, 238, 6, 251, 4, 1, 0, 11, 2, 193, 6, 132, 11,
    115, 239, 98, 6, 0, 0, 0, 0, 0, 8, 1, 0, 240, 1, 11, 2, 10, 3, 248, 4, 127, 5, 39, 6,
    215, 7, 246, 0, 0};

static void int8_act(const int8_observation *observation, int8_action *action) {
    INT8_STORAGE int16_t a[8], b[14];
    INT8_STORAGE int32_t sums[1];
    const uint8_t *p = int8_layers;
    int i;
    for (i = 0; i < 3; i++) {
        float v = (float)observation[i];
        v = (v - int8_mean[i]) * int8_scale[i];
        v = v < -1.0e+01f ? -1.0e+01f : v > 1.0e+01f ? 1.0e+01f : v;
        v *= (float)int8_minifloat(int8_gain[i]);
        a[i] = int8_round(v * 3.5110723e-02f);
    }
    p = int8_rows_small11(p, a, b);
    p = int8_rows_small11(p, b, a);
    int8_rows_small11(p, a, sums);
    for (i = 0; i < 1; i++) {
        float v = (float)sums[i] * int8_rows2[2 * (i)] + int8_rows2[2 * (i) + 1];
        v = sb3s_tanh(v);
        action[i] = -2.0e+00f + (v + 1.0f) * 2.0e+00f;
    }
}

#else


static inline int32_t int8_minifloat(uint8_t code) {
    return (int32_t)(16 + (code & 15)) << (code >> 4);
}


static void int8_rows_packed_8_8(const uint8_t *columns, const int8_t *weights, const uint8_t *runs, const uint8_t *scales, float unit, const int16_t *bias, float step,
                       const float *x, float *y) {
    unsigned n, k;
    for (; (n = runs[1]) != 0; runs += 2)
        for (; n != 0; n--) {
            float sum = 0.0f;
            for (k = runs[0]; k != 0; k--) sum += (float)*weights++ * x[*columns++];
            *y++ = sum * ((float)int8_minifloat(*scales++) * unit) + (float)*bias++ * step;
        }
}


static const float int8_mean[] = {
    5.1745098e-02f, 7.1044965e-03f, 3.7260197e-02f};
static const float int8_scale[] = {
    1.7157483e+00f, 1.2331815e+00f, 2.3066495e-01f};
static const uint8_t int8_gain[] = {
    209, 215, 255};
static const uint8_t int8_columns0[] = {
    0, 1, 2, 0, 1, 2, 1, 2, 0, 2, 0, 2, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0};
static const int8_t int8_weights0[] = {
    30, 126, 27, -124, -36, 49, -127, -19, -125, -84, 7, 124, -113, 121, 123, -17, -57, -124, 124, -127, 122, -125, -125, 127};
static const uint8_t int8_runs0[] = {
    3, 2, 2, 6, 1, 6, 0, 0};
static const uint8_t int8_scale0[] = {
    219, 232, 231, 203, 178, 226, 225, 230, 213, 237, 229, 171, 222, 255};
static const int16_t int8_bias0[] = {
    14685, -26085, -23029, 2046, 30460, -26044, -17104, 3469, 5359, 32767, 3617, 8399, -10538, 8896};
static const uint8_t int8_columns1[] = {
    0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 13, 1, 2, 4, 5, 7, 8, 10, 12, 13, 0, 2, 4, 5,
    7, 8, 12, 1, 4, 7, 9, 10, 11, 13, 5, 7, 11, 12, 13, 3, 6, 9, 12, 13, 2, 6, 8, 9,
    13, 0, 2, 6, 11};
static const int8_t int8_weights1[] = {
    -11, -11, -87, -22, -84, -126, -58, 10, 70, -61, 4, -15, -63, 20, 82, -37, -60, 13, 94, 122, 3, -59, 127, 2,
    -63, -21, 23, 126, 54, 7, -53, -53, 62, -108, 124, 22, -21, 1, 11, 124, -37, -30, 38, 17, -124, 48, -115, -17,
    12, 11, -63, -124, 115};
static const uint8_t int8_runs1[] = {
    11, 1, 9, 1, 7, 2, 5, 3, 4, 1, 0, 0};
static const uint8_t int8_scale1[] = {
    242, 245, 255, 232, 253, 230, 238, 239};
static const int16_t int8_bias1[] = {
    30078, 2054, 32767, 11441, -12276, -7701, -14772, 18956};
static const uint8_t int8_columns2[] = {
    0, 1, 2, 3, 4, 5, 6, 7};
static const int8_t int8_weights2[] = {
    -16, 11, 10, -8, 127, 39, -41, -10};
static const uint8_t int8_runs2[] = {
    8, 1, 0, 0};
static const uint8_t int8_scale2[] = {
    255};
static const int16_t int8_bias2[] = {
    -32767};

static void int8_act(const int8_observation *observation, int8_action *action) {
    INT8_STORAGE float a[8], b[14];
    int i;
    for (i = 0; i < 3; i++) {
        float v = (float)observation[i];
        v = (v - int8_mean[i]) * int8_scale[i];
        v = v < -1.0e+01f ? -1.0e+01f : v > 1.0e+01f ? 1.0e+01f : v;
        v *= (float)int8_minifloat(int8_gain[i]);
        a[i] = v * 4.4917665e-06f;
    }
    int8_rows_packed_8_8(int8_columns0, int8_weights0, int8_runs0, int8_scale0, 1.9778524e-08f, int8_bias0, 1.4138447e-05f, a, b);
    for (i = 0; i < 14; i++) {
        const float v = b[i];
        b[i] = v < 0.0f ? 0.0f : v;
    }
    int8_rows_packed_8_8(int8_columns1, int8_weights1, int8_runs1, int8_scale1, 5.853563e-09f, int8_bias1, 1.0376044e-05f, b, a);
    for (i = 0; i < 8; i++) {
        const float v = a[i];
        a[i] = v < 0.0f ? 0.0f : v;
    }
    int8_rows_packed_8_8(int8_columns2, int8_weights2, int8_runs2, int8_scale2, 1.1147688e-08f, int8_bias2, 1.8441135e-06f, a, b);
    for (i = 0; i < 1; i++) {
        const float v = b[i];
        b[i] = sb3s_tanh(v);
    }
    for (i = 0; i < 1; i++) {
        float v = b[i];
        action[i] = -2.0e+00f + (v + 1.0f) * 2.0e+00f;
    }
}

#endif

#ifdef INT8_MAIN
#define INT8_SELF_TEST
#endif
#ifdef INT8_SELF_TEST
static const float int8_observations[8][3] = {
    {1.688918e-01f, -1.194731e-01f, 6.4575416e-01f},
    {1.4948376e-01f, -5.061525e-01f, 3.808277e-01f},
    {1.266722e+00f, 9.145596e-01f, -6.3138986e-01f},
    {-1.1272869e+00f, -5.900922e-01f, 7.6525845e-02f},
    {-2.1145573e+00f, -2.0253293e-01f, -1.146535e+00f},
    {-6.3053083e-01f, -5.143827e-01f, -2.6327062e-01f},
    {4.352739e-01f, 1.0059991e+00f, -8.4866285e-02f},
    {1.324921e+00f, -6.3025844e-01f, 3.712455e-01f}};
#if defined(INT8_VBMI)
#define INT8_TOLERANCE 7.321661e-02f
static const float int8_expected[8][1] = {
    {-5.62557e-02f},
    {-1.07996345e-01f},
    {6.3409686e-01f},
    {-2.1152759e-01f},
    {1.4405537e+00f},
    {-1.9584024e-01f},
    {3.563881e-02f},
    {7.241962e-01f}};
#elif defined(INT8_INTEGER)
#define INT8_TOLERANCE 2.4442482e-03f
static const float int8_expected[8][1] = {
    {-5.6664348e-02f},
    {-1.0784423e-01f},
    {6.341028e-01f},
    {-2.0792389e-01f},
    {1.4442482e+00f},
    {-1.9529212e-01f},
    {3.6974907e-02f},
    {7.171328e-01f}};
#elif 1
#define INT8_TOLERANCE 2.4443942e-05f
static const float int8_expected[8][1] = {
    {-5.6636453e-02f},
    {-1.0784173e-01f},
    {6.343305e-01f},
    {-2.0775318e-01f},
    {1.4443941e+00f},
    {-1.9530606e-01f},
    {3.7434578e-02f},
    {7.173331e-01f}};
#endif
/* How many of 8 test vectors fail. The expected actions come from numpy, in the same arithmetic. */
static int int8_self_test(void) {
    int i, j, failures = 0;
    for (i = 0; i < 8; i++) {
        int8_action action[1];
        int wrong = 0;
        int8_act(int8_observations[i], action);
        for (j = 0; j < 1; j++) {
            const float error = (float)action[j] - int8_expected[i][j];
            wrong |= !(error <= INT8_TOLERANCE && error >= -INT8_TOLERANCE);
        }
        failures += wrong;
    }
    return failures;
}
#endif

#ifdef INT8_MAIN
#include <stdio.h>
int main(void) {
    const int failures = int8_self_test();
    printf("%d of 8 test vectors fail\n", failures);
    return failures != 0;
}
#endif

#endif
