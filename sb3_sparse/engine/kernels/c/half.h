/* Products of bfloat16, summed in float32. A lane holds a pair, the numbers of two neighbouring steps of a sum, of which the
   first one is in the lower half. Processors that have no such products compute the same in float32, and gain nothing. */
#pragma once
#include "vector.h"

#if ENGINE_VL == 16 && defined(__AVX512BF16__)
#define ENGINE_BFLOAT16
#endif

/* Rounded to the nearest, ties to even; the result is in the upper half. NaN stays NaN. */
INLINE uint32_t rounded(uint32_t x) {
    const uint32_t nearest = x + 0x7fffu + (x >> 16 & 1u);
    return (x & 0x7fffffffu) > 0x7f800000u ? x | 0x400000u : nearest;
}
INLINE uint32_t pair_of(float first, float second) {
    uint32_t a, b;
    memcpy(&a, &first, sizeof a);
    memcpy(&b, &second, sizeof b);
    return rounded(a) >> 16 | (rounded(b) & 0xffff0000u);
}
#ifdef ENGINE_BFLOAT16
/* Of two vectors as bfloat16, one behind the other: each number beside the one so many places behind it. */
template <int distance> INLINE __m512i interleave(const float *low, const float *high) {
    alignas(64) uint16_t order[2 * VL];
    for (int i = 0; i < VL; i++) order[2 * i] = i / distance * 2 * distance + i % distance, order[2 * i + 1] = order[2 * i] + distance;
    const __m512i numbers = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
    return _mm512_permutexvar_epi16(_mm512_load_si512(order), numbers);
}
#endif

/* pairs[i] = first[i] and second[i]. */
INLINE void pairs_of(int64_t count, const float *first, const float *second, uint32_t *pairs) {
    int64_t i = 0;
#ifdef ENGINE_BFLOAT16
    for (; i + VL <= count; i += VL) _mm512_storeu_si512(pairs + i, interleave<VL>(first + i, second + i));
#endif
    for (; i < count; i++) pairs[i] = pair_of(first[i], second[i]);
}
/* pairs[i] = x[2 * i] and x[2 * i + 1]. */
INLINE void pairs_in_row(int64_t count, const float *x, uint32_t *pairs) {
    int64_t i = 0;
#ifdef ENGINE_BFLOAT16
    for (; i + VL <= count; i += VL)
        _mm512_storeu_si512(pairs + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 2 * i + VL), _mm512_loadu_ps(x + 2 * i)));
#endif
    for (; i < count; i++) pairs[i] = pair_of(x[2 * i], x[2 * i + 1]);
}

/* Pairs of rows of eight, the first and the second one, the third and the fourth one, and so on. */
INLINE void pairs_of_packs(int64_t rows, const float *x, uint32_t *pairs) {
    alignas(64) static const float none[8] = {};
    int64_t i = 0;
#ifdef ENGINE_BFLOAT16
    for (; i + 4 <= rows; i += 4) _mm512_storeu_si512(pairs + 4 * i, interleave<8>(x + 8 * i, x + 8 * i + VL));
#endif
    for (; i < rows; i += 2) pairs_of(8, x + 8 * i, i + 1 < rows ? x + 8 * i + 8 : none, pairs + 4 * i);
}

/* c + the first numbers of both + the second ones. */
INLINE Vector fused(Bits a, Bits b, Vector c) {
#ifdef ENGINE_BFLOAT16
    return (Vector)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
    c = fused((Vector)(a << 16), (Vector)(b << 16), c);
    return fused((Vector)(a & 0xffff0000u), (Vector)(b & 0xffff0000u), c);
#endif
}
