/* More activation functions without libm, to 1e-6 of the exact ones. All but the last two are by the exponential. */
#ifndef SB3S_SMOOTH
#define SB3S_SMOOTH

/* The exponential ends at e^-87, which is not 0 for factors as large as floats can be. NaN stays NaN. */
static inline float sb3s_near(float x) { return x < -100.0f ? -100.0f : x; }

/* x times the normal distribution function, by a fit of erfc(|x| / sqrt(2)): Press et al., Numerical Recipes in C, 1992, section
   6.2. */
static inline float sb3s_gelu(float x) {
    const float y = sb3s_near(x), z = (y < 0.0f ? -y : y) * 0.70710678f, t = 1.0f / (1.0f + 0.5f * z);
    float p = -1.13520398f + t * (1.48851587f + t * (-0.82215223f + t * 0.17087277f));
    p = 0.37409196f + t * (0.09678418f + t * (-0.18628806f + t * (0.27886807f + t * p)));
    p = -1.26551223f + t * (1.00002368f + t * p);
    p = 0.5f * t * sb3s_exp(p - z * z);
    return y * (y < 0.0f ? p : 1.0f - p);
}

static inline float sb3s_gelu_tanh(float x) {
    const float y = sb3s_near(x);
    return y * sb3s_sigmoid(y * (1.5957691f + 0.07135482f * y * y));
}

/* tanh(log(1 + e^x)) is n / (n + 2) with n = e^x * (e^x + 2), or the same with the fraction reduced by e^2x. */
static inline float sb3s_mish(float x) {
    const float e = sb3s_exp(x < 0.0f ? x : -x);
    const float n = x < 0.0f ? e * (e + 2.0f) : 1.0f + 2.0f * e;
    return sb3s_near(x) * (n / (n + 2.0f * (x < 0.0f ? 1.0f : e * e)));
}

/* log(1 + e) is 2 * artanh(e / (2 + e)), by its power series. */
static inline float sb3s_softplus(float x) {
    const float e = sb3s_exp(x < 0.0f ? x : -x), s = e / (2.0f + e), q = s * s;
    const float series = 1.0f + q * (0.33333333f + q * (0.2f + q * (0.14285714f + q * (0.11111111f + q * (0.09090909f + q * 0.07692308f)))));
    return (x < 0.0f ? 0.0f : x) + 2.0f * s * series;
}

static inline float sb3s_softsign(float x) { return x / (1.0f + (x < 0.0f ? -x : x)); }

static inline float sb3s_hardswish(float x) {
    const float v = x + 3.0f;
    return x * ((v < 0.0f ? 0.0f : v > 6.0f ? 6.0f : v) / 6.0f);
}

#endif
