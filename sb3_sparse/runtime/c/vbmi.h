/* Kernels for AVX-512 VBMI + VNNI: the inputs stay in registers and are picked by byte permutation, never gathered from
   memory. Rows are cut into slices of 16 (SELL-16), one lane each. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define SB3S_VBMI

/* Float weights, at most 32 inputs in two registers; per step 16 indices of 32 bits and 16 weights. */
static void sb3s_lanes(const sb3s_layer *layer, const char *base, const float *restrict x, float *restrict y) {
    const float *w = (const float *)(base + layer->weights), *b = (const float *)(base + layer->biases);
    const uint8_t *c = (const uint8_t *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    const int in = layer->in;
    const __m512 low = _mm512_maskz_loadu_ps(in >= 16 ? 0xffff : (__mmask16)((1u << in) - 1), x);
    const __m512 high = _mm512_maskz_loadu_ps(in <= 16 ? 0 : in >= 32 ? 0xffff : (__mmask16)((1u << (in - 16)) - 1), x + 16);
    int slice, step;
    for (slice = 0; slice < layer->runs; slice++) {
        __m512 sum = _mm512_load_ps(b + 16 * slice), other = _mm512_setzero_ps();
        for (step = 0; step + 2 <= steps[slice]; step += 2, c += 32, w += 32) {
            const __m512i i0 = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)c));
            const __m512i i1 = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(c + 16)));
            sum = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, i0, high), _mm512_load_ps(w), sum);
            other = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, i1, high), _mm512_load_ps(w + 16), other);
        }
        if (step < steps[slice]) {
            const __m512i i0 = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)c));
            sum = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, i0, high), _mm512_load_ps(w), sum);
            c += 16;
            w += 16;
        }
        _mm512_store_ps(y + 16 * slice, _mm512_add_ps(sum, other));
    }
}

/* int8 weights; inputs in 8 bits between their smallest and largest, found anew for every observation. Blocks of 256 inputs
   in four registers; per step 64 indices and 64 weights, four of each row, for one vpdpbusd. */
static void sb3s_bytes(const sb3s_layer *layer, const char *base, float *restrict x, float *restrict y) {
    const int8_t *w = (const int8_t *)(base + layer->weights);
    const uint8_t *c = (const uint8_t *)(base + layer->indices);
    const int32_t *steps = (const int32_t *)(base + layer->counts);
    const float *b = (const float *)(base + layer->biases), *scales = (const float *)(base + layer->scales);
    const float *sums = (const float *)(base + layer->sums);
    const int n = (layer->in + 15) & ~15;
    uint8_t *bytes = (uint8_t *)x;
    int i, slice, block, step;
    float lowest, unit;
    __m512 smallest = _mm512_set1_ps(0.0f), largest = smallest, offset, inverse;
    for (i = layer->in; i < n; i++) x[i] = 0.0f;
    for (i = 0; i < n; i += 16) {
        const __m512 v = _mm512_load_ps(x + i);
        smallest = _mm512_min_ps(smallest, v);
        largest = _mm512_max_ps(largest, v);
    }
    lowest = _mm512_reduce_min_ps(smallest);
    unit = (_mm512_reduce_max_ps(largest) - lowest) * (1.0f / 255.0f);
    offset = _mm512_set1_ps(lowest);
    inverse = _mm512_set1_ps(unit > 0.0f ? 1.0f / unit : 0.0f);
    /* In place: 16 bytes are written where 64 have been read. */
    for (i = 0; i < n; i += 16) {
        const __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(x + i), offset), inverse);
        _mm_store_si128((__m128i *)(bytes + i), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v)));
    }
    for (slice = 0; slice < layer->runs; slice++) {
        __m512i sum = _mm512_setzero_si512(), other = sum;
        for (block = 0; block < layer->blocks; block++) {
            const int count = *steps++;
            const uint8_t *at = bytes + 256 * block;
            const __m512i x0 = _mm512_load_si512(at), x1 = _mm512_load_si512(at + 64);
            const __m512i x2 = _mm512_load_si512(at + 128), x3 = _mm512_load_si512(at + 192);
#define SB3S_STEP(total, k)                                                                                               \
    {                                                                                                                     \
        const __m512i index = _mm512_load_si512(c + 64 * (k));                                                            \
        const __m512i front = _mm512_permutex2var_epi8(x0, index, x1), back = _mm512_permutex2var_epi8(x2, index, x3);    \
        const __m512i picked = _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), front, back);                           \
        total = _mm512_dpbusd_epi32(total, picked, _mm512_load_si512(w + 64 * (k)));                                      \
    }
            for (step = 0; step + 2 <= count; step += 2, c += 128, w += 128) {
                SB3S_STEP(sum, 0)
                SB3S_STEP(other, 1)
            }
            if (step < count) {
                SB3S_STEP(sum, 0)
                c += 64;
                w += 64;
            }
#undef SB3S_STEP
        }
        {
            /* scale * (unit * sum + lowest * (sum of the row's weights)) + bias */
            const __m512 whole = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, other));
            const __m512 value = _mm512_fmadd_ps(whole, _mm512_set1_ps(unit), _mm512_mul_ps(offset, _mm512_load_ps(sums + 16 * slice)));
            _mm512_store_ps(y + 16 * slice,
                            _mm512_fmadd_ps(value, _mm512_load_ps(scales + 16 * slice), _mm512_load_ps(b + 16 * slice)));
        }
    }
}
#endif
