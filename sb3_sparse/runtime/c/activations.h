/* Activation functions in plain C99 without libm. Largest error against the exact functions: 5e-7. */

/* A rational function of odd degree 7 over 8 on [-8, 8], by least squares reweighted towards the largest error. */
static inline float sb3s_tanh(float x) {
    float z;
    x = x < -8.0f ? -8.0f : x > 8.0f ? 8.0f : x;
    z = x * x;
    return x * (0.99999934f + z * (0.12913643f + z * (2.9388294e-3f + z * 1.1310240e-5f))) /
           (1.0f + z * (0.46246742f + z * (0.023763834f + z * (2.3702870e-4f + z * 2.4238466e-7f))));
}

static inline float sb3s_sigmoid(float x) {
    return 0.5f * sb3s_tanh(0.5f * x) + 0.5f;
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
