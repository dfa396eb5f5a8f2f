/* The layer norm of n sums in place, in C and C++. */
#ifndef SB3S_NORM
#define SB3S_NORM

/* The address space of tables: a header says it. */
#ifndef SB3S_FLASH
#define SB3S_FLASH
#endif

/* One over the root of a positive number: a first guess from the bits of the float, and three of Newton's steps, each of which
   squares its error. */
static inline float sb3s_inverse_root(float x) {
    union {
        uint32_t i;
        float f;
    } guess;
    int step;
    guess.f = x;
    guess.i = 0x5f3759df - (guess.i >> 1);
    for (step = 0; step < 3; step++) guess.f *= 1.5f - 0.5f * x * guess.f * guess.f;
    return guess.f;
}

/* Sums by 16 places, for those of one place wait for each other. */
static inline float sb3s_total(const float *places) {
    float total = 0.0f;
    int i;
    for (i = 0; i < 16; i++) total += places[i];
    return total;
}

static void sb3s_norm(int n, const float SB3S_FLASH *scale, const float SB3S_FLASH *shift, float epsilon, float *y) {
    float sum[16] = {0.0f}, square[16] = {0.0f}, mean, root;
    int i;
    for (i = 0; i < n; i++) sum[i & 15] += y[i];
    mean = sb3s_total(sum) / (float)n;
    for (i = 0; i < n; i++) {
        y[i] -= mean;
        square[i & 15] += y[i] * y[i];
    }
    root = sb3s_inverse_root(sb3s_total(square) / (float)n + epsilon);
    for (i = 0; i < n; i++) y[i] = y[i] * root * scale[i] + shift[i];
}

#endif
