/* Activation functions in plain C99 without libm. Largest error against the exact functions: 2e-7. */

/* e^x of a number that is not positive: 2^n times a polynomial on [-ln2 / 2, ln2 / 2], its error 2e-9 by least squares
   reweighted towards the largest error. */
static inline float sb3s_exp(float x) {
    union {
        int32_t i;
        float f;
    } power;
    float r;
    int32_t n;
    x = x < -87.0f ? -87.0f : x;
    n = (int32_t)(x * 1.44269504f - 0.5f);
    r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    power.i = (n + 127) << 23;
    return power.f *
           (1.0f + r * (1.0f + r * (0.49999992f + r * (0.16666420f + r * (0.041668226f + r * (0.0083748158f + r * 0.0013836846f))))));
}

static inline float sb3s_tanh(float x) {
    float e = sb3s_exp(-2.0f * (x < 0.0f ? -x : x));
    float y = (1.0f - e) / (1.0f + e);
    return x < 0.0f ? -y : y;
}

static inline float sb3s_sigmoid(float x) {
    float e = sb3s_exp(x < 0.0f ? x : -x);
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
