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

/* log(1 + x) for x in [0, 1]: the rounding of 1 + x is taken out again. */
INLINE Vector logarithm_of_one_plus(Vector x) {
    const Vector sum = 1.0f + x, rounded = sum - 1.0f;
    return select(rounded == 0.0f, x, logarithm(sum) * (x / rounded));
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

INLINE Vector softplus(Vector x) { return maximum(Vector{}, x) + logarithm_of_one_plus(exponential(-absolute(x))); }

/* By halves of the circle: accurate to 1e-6 up to 10,000 and worse beyond. */
INLINE Vector sine(Vector x) {
    const Vector shifted = x * 0.318309886183790672f + ROUNDER;
    const Vector n = shifted - ROUNDER;
    const Vector r = ((x - n * 3.140625f) - n * 9.67502593994140625e-4f) - n * 1.509957990978376432e-7f;
    const Vector z = r * r;
    Vector p = splat(2.6083159809786593541e-6f);
    p = p * z + -1.981069071916863322e-4f;
    p = p * z + 8.33307858556509018e-3f;
    p = p * z + -1.66666597127914429e-1f;
    return (Vector)((Bits)(p * z * r + r) ^ ((Bits)shifted << 31));
}

/* -1, 0 or 1; 0 for NaN, as in torch. */
INLINE Vector sign(Vector x) {
    const Vector one = splat(1.0f);
    return (Vector)((Bits)(Mask)(x > 0.0f) & (Bits)one) - (Vector)((Bits)(Mask)(x < 0.0f) & (Bits)one);
}
