/* exp, log, tanh and what follows from them, on vectors. The polynomials are those of Cephes (S. Moshier), accurate to one or
   two units in the last place; the tests state the bounds. Infinities and NaN give what they give in torch. */
#pragma once
#include "vector.h"

constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
/* Adding and subtracting it rounds to an integer, which the lowest bits of the sum hold. */
constexpr float ROUNDER = 12582912.0f;

INLINE Vector power_of_two(Bits exponent) { return (Vector)((exponent + 127u) << 23); }

INLINE Vector exponential(Vector x) {
    /* Beyond these it is 0 and infinity. */
    x = minimum(splat(89.0f), maximum(splat(-104.0f), x));
    const Vector shifted = x * 1.44269504088896341f + ROUNDER;
    const Vector n = shifted - ROUNDER;
    const Vector r = (x - n * LN2_HIGH) - n * LN2_LOW;
    Vector y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    /* In two factors, because 2^128 is no float, nor a normal one is 2^-150. */
    const Mask whole = (Mask)shifted - (Mask)splat(ROUNDER);
    const Mask half = whole >> 1;
    return y * power_of_two((Bits)half) * power_of_two((Bits)(whole - half));
}

/* Subnormal numbers count as the smallest normal one, 0 gives -infinity, what is below NaN. */
INLINE Vector logarithm(Vector x) {
    const Vector normal = maximum(splat(1.17549435e-38f), x);
    Mask exponent = (Mask)((Bits)normal >> 23) - 126;
    Vector m = (Vector)(((Bits)normal & 0x007fffffu) | 0x3f000000u);
    const Mask small = m < 0.707106781186547524f;
    exponent += small;
    m = (m + (Vector)((Mask)m & small)) - 1.0f;
    const Vector e = __builtin_convertvector(exponent, Vector), z = m * m;
    Vector y = splat(7.0376836292e-2f);
    y = y * m + -1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m + -1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m + -1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m + -2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z + e * LN2_LOW - 0.5f * z;
    y = m + y + e * LN2_HIGH;
    y = select(x < INFINITY, y, x);
    y = select(x == 0.0f, splat(-INFINITY), y);
    return select(x < 0.0f, splat(NAN), y);
}

INLINE Vector hyperbolic_tangent(Vector x) {
    const Vector magnitude = absolute(x), z = x * x;
    /* From 9.02 on it is 1 in float. */
    const Vector e = exponential(2.0f * minimum(splat(10.0f), magnitude));
    const Vector far = copy_sign(1.0f - 2.0f / (e + 1.0f), x);
    Vector p = splat(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z + -5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z + -3.33332819422e-1f;
    return select(magnitude < 0.625f, p * z * x + x, far);
}

INLINE Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

/* -1, 0 or 1; 0 for NaN, as in torch. */
INLINE Vector sign(Vector x) {
    const Vector one = splat(1.0f);
    return (Vector)((Bits)(Mask)(x > 0.0f) & (Bits)one) - (Vector)((Bits)(Mask)(x < 0.0f) & (Bits)one);
}
