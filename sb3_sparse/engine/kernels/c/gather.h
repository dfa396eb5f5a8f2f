/* Rows of samples gathered into a panel, converted to float and transposed. */
#pragma once
#include "vector.h"

INLINE const char *sample(const Source &source, int64_t s) {
    if (s >= source.count) s = source.count - 1;
    return (const char *)source.data + (source.rows ? source.rows[s] : s) * source.stride;
}

/* Bytes of a row that are asked for before they are read. More would ask for more lines than a processor waits for. */
constexpr int AHEAD = 256;

#if ENGINE_VL >= 8
INLINE __m256 eight_floats(const float *p) { return _mm256_loadu_ps(p); }
INLINE __m256 eight_floats(const double *p) {
    return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(p + 4)), _mm256_cvtpd_ps(_mm256_loadu_pd(p)));
}
INLINE __m256 eight_floats(const int32_t *p) { return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE __m256 eight_floats(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE __m256 eight_floats(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE __m256 eight_floats(const int64_t *p) {
    float converted[8];
    for (int i = 0; i < 8; i++) converted[i] = (float)p[i];
    return _mm256_loadu_ps(converted);
}
#endif

template <class Element> KERNEL void gather(int n, const Source &source, int64_t first, float *dst) {
    const Element *row[LANES];
    for (int s = 0; s < LANES; s++) row[s] = (const Element *)sample(source, first + s);
    int f = 0;
#if ENGINE_VL >= 8
    for (; f + 8 <= n; f += 8)
        for (int s = 0; s < LANES; s += 8) {
            __m256 block[8];
            for (int i = 0; i < 8; i++) {
                block[i] = eight_floats(row[s + i] + f);
                if (f + AHEAD / (int)sizeof(Element) < n) __builtin_prefetch(row[s + i] + f + AHEAD / sizeof(Element));
            }
            transpose(block);
            for (int i = 0; i < 8; i++) _mm256_store_ps(dst + (int64_t)(f + i) * LANES + s, block[i]);
        }
#endif
    /* What is left is read one by one: behind the last row there may be nothing to read. */
    for (; f < n; f++)
        for (int s = 0; s < LANES; s++) dst[(int64_t)f * LANES + s] = (float)row[s][f];
}

INLINE int64_t element_size(int64_t type) {
    const int64_t sizes[] = {4, 8, 1, 8, 4, 1};
    return sizes[type];
}

/* The rows of a replay buffer are far from each other and in no cache: ask for those of the next panel while this one is
   computed. */
KERNEL void prefetch_rows(int n, const Source &source, int64_t first) {
    int64_t bytes = n * element_size(source.type);
    if (bytes > AHEAD) bytes = AHEAD;
    for (int64_t s = first; s < first + LANES && s < source.count; s++) {
        const char *row = sample(source, s);
        for (int64_t at = 0; at < bytes + 63; at += 64) __builtin_prefetch(row + (at < bytes ? at : bytes - 1));
    }
}

KERNEL void load_panel(int n, const Source &source, int64_t p, float *dst) {
    const int64_t first = p * LANES;
    if (p == 0) prefetch_rows(n, source, first);
    prefetch_rows(n, source, first + LANES);
    switch (source.type) {
    case FLOAT32: gather<float>(n, source, first, dst); break;
    case FLOAT64: gather<double>(n, source, first, dst); break;
    case UINT8: gather<uint8_t>(n, source, first, dst); break;
    case INT64: gather<int64_t>(n, source, first, dst); break;
    case INT32: gather<int32_t>(n, source, first, dst); break;
    case INT8: gather<int8_t>(n, source, first, dst); break;
    }
}
