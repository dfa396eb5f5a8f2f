/* The vector type by instruction set. GCC's and clang's vector extensions do the arithmetic on all of them; only what they
   have no operator for is written for each set. The compiler contracts multiplications and additions where there is FMA. */
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "interface.h"

#if !defined(ENGINE_PORTABLE) && defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && \
    defined(__AVX512VL__) && !defined(ENGINE_AVX2)
#define ENGINE_VL 16
#define ENGINE_ISA "avx512"
#elif !defined(ENGINE_PORTABLE) && defined(__AVX2__) && defined(__FMA__)
#define ENGINE_VL 8
#define ENGINE_ISA "avx2"
#else
#define ENGINE_VL 4
#define ENGINE_ISA "portable"
#endif

#if ENGINE_VL > 4 || defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
#define KERNEL static __attribute__((noinline))

constexpr int VL = ENGINE_VL;
/* Vectors of a feature's lanes. */
constexpr int VECTORS = LANES / VL;

typedef float Vector __attribute__((vector_size(VL * 4)));
typedef float Loose __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(VL * 4)));
typedef uint32_t Bits __attribute__((vector_size(VL * 4)));

INLINE Vector load(const float *p) { return *(const Vector *)p; }
INLINE Vector load_loose(const float *p) { return *(const Loose *)p; }
INLINE void store(float *p, Vector x) { *(Vector *)p = x; }
/* Subtraction, because x + 0 is not x where x is -0. */
INLINE Vector splat(float x) { return x - Vector{}; }
/* Keeps the compiler from loading x again for each of its uses: a processor loads two vectors in a cycle, or fewer. */
INLINE Vector in_register(Vector x) {
#if ENGINE_VL > 4
    asm("" : "+v"(x));
#endif
    return x;
}
INLINE Bits load(const uint32_t *p) { return *(const Bits *)p; }
INLINE Bits splat(uint32_t x) { return x + Bits{}; }
INLINE Bits in_register(Bits x) {
#if ENGINE_VL > 4
    asm("" : "+v"(x));
#endif
    return x;
}
INLINE Vector select(Mask mask, Vector a, Vector b) { return mask ? a : b; }

/* The second argument where either of them is NaN, or NaN: put the one that may be NaN there. */
INLINE Vector maximum(Vector a, Vector b) {
#if ENGINE_VL == 16
    return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif ENGINE_VL == 8
    return (Vector)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (Vector)_mm_max_ps((__m128)a, (__m128)b);
#else
    return a > b ? a : b;
#endif
}

INLINE Vector minimum(Vector a, Vector b) {
#if ENGINE_VL == 16
    return (Vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif ENGINE_VL == 8
    return (Vector)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (Vector)_mm_min_ps((__m128)a, (__m128)b);
#else
    return a < b ? a : b;
#endif
}

INLINE Vector square_root(Vector a) {
#if ENGINE_VL == 16
    return (Vector)_mm512_sqrt_ps((__m512)a);
#elif ENGINE_VL == 8
    return (Vector)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
    return (Vector)_mm_sqrt_ps((__m128)a);
#else
    for (int i = 0; i < VL; i++) a[i] = sqrtf(a[i]);
    return a;
#endif
}

/* a * b + c in one rounding where there is FMA. Written out where the compiler might choose another product to contract, or
   none: for some processors it avoids chains of FMA. */
INLINE Vector fused(Vector a, Vector b, Vector c) {
#if ENGINE_VL == 16
    return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif ENGINE_VL == 8
    return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

INLINE Vector absolute(Vector a) { return (Vector)((Bits)a & 0x7fffffffu); }
/* The magnitude of a with the sign of b. */
INLINE Vector copy_sign(Vector a, Vector b) { return (Vector)(((Bits)a & 0x7fffffffu) | ((Bits)b & 0x80000000u)); }

/* x where h is above zero, and zero elsewhere: the gradient of ReLU. */
INLINE Vector where_positive(Vector h, Vector x) {
#if ENGINE_VL == 16
    return (Vector)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)h, _mm512_setzero_ps(), _CMP_GT_OQ), (__m512)x);
#else
    return (Vector)((Mask)x & (Mask)(h > 0.0f));
#endif
}

INLINE float sum_of(Vector a) {
#if ENGINE_VL == 16
    return _mm512_reduce_add_ps((__m512)a);
#else
    float pairs[VL];
    memcpy(pairs, &a, sizeof pairs);
    for (int n = VL / 2; n; n /= 2)
        for (int i = 0; i < n; i++) pairs[i] += pairs[i + n];
    return pairs[0];
#endif
}

/* The sums of eight vectors. */
INLINE void sums_of(const Vector (&a)[8], float *sums) {
#if ENGINE_VL >= 8
    __m256 b[8];
    for (int i = 0; i < 8; i++)
#if ENGINE_VL == 16
        b[i] = _mm256_add_ps(_mm512_castps512_ps256((__m512)a[i]), _mm512_extractf32x8_ps((__m512)a[i], 1));
#else
        b[i] = (__m256)a[i];
#endif
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(b[0], b[1]), _mm256_hadd_ps(b[2], b[3]));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(b[4], b[5]), _mm256_hadd_ps(b[6], b[7]));
    _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
#else
    for (int i = 0; i < 8; i++) sums[i] = sum_of(a[i]);
#endif
}

#if ENGINE_VL >= 8
/* Transposes 8 x 8 floats in registers. */
INLINE void transpose(__m256 (&r)[8]) {
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
            u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}
#endif

/* Transposes 8 x 8 floats between rows of those strides. */
INLINE void transpose(const float *from, int64_t from_row, float *to, int64_t to_row) {
#if ENGINE_VL >= 8
    __m256 block[8];
    for (int i = 0; i < 8; i++) block[i] = _mm256_loadu_ps(from + i * from_row);
    transpose(block);
    for (int i = 0; i < 8; i++) _mm256_storeu_ps(to + i * to_row, block[i]);
#else
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) to[j * to_row + i] = from[i * from_row + j];
#endif
}
