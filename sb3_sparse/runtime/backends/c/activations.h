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
    /* NaN has no integer, but stays NaN in r. */
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
