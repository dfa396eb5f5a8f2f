/* Networks of sparse linear layers, 16 observations at a time: a weight is read once for all of them. What goes into a layer and
   comes out of it lies neuron by neuron, the 16 numbers of a neuron together. */
enum { SB3S_PANEL = 16 };

/* A vector of GCC and Clang, which they split where the processor has shorter ones. */
typedef float sb3s_sixteen __attribute__((vector_size(4 * SB3S_PANEL), may_alias));

/* In the order of sb3s_sparse. */
static void sb3s_panel_layer(const sb3s_layer *layer, const float *restrict w, const uint16_t *restrict c,
                             const int32_t *restrict runs, const float *restrict b, const sb3s_sixteen *restrict x,
                             sb3s_sixteen *restrict y) {
    const sb3s_sixteen zero = {0.0f};
    int run, row, j;
    for (run = 0; run < layer->runs; run++) {
        const int count = runs[2 * run];
        for (row = 0; row < runs[2 * run + 1]; row++) {
            sb3s_sixteen s0 = zero + *b++, s1 = zero, s2 = zero, s3 = zero;
            for (j = 0; j + 4 <= count; j += 4) {
                s0 += w[j] * x[c[j]];
                s1 += w[j + 1] * x[c[j + 1]];
                s2 += w[j + 2] * x[c[j + 2]];
                s3 += w[j + 3] * x[c[j + 3]];
            }
            for (; j < count; j++) s0 += w[j] * x[c[j]];
            *y++ = (s0 + s1) + (s2 + s3);
            w += count;
            c += count;
        }
    }
}

/* Actions of 1 to 16 observations, given as rows. x has two buffers of SB3S_PANEL * plan->half floats. */
__attribute__((unused)) static void sb3s_act_panel(const sb3s_plan *plan, const float *restrict observations, int count,
                                                   float *restrict x, char *actions, long width) {
    const char *base = (const char *)plan;
    const float *mean = (const float *)(base + plan->mean), *scale = (const float *)(base + plan->scale);
    const float *limit = (const float *)(base + plan->limit);
    const sb3s_layer *layer = (const sb3s_layer *)(base + plan->panel);
    float *y = x + SB3S_PANEL * (long)plan->half;
    int i, k, n, invalid[SB3S_PANEL] = {0};
    for (k = 0; k < count; k++, observations += plan->inputs)
        for (i = 0; i < plan->inputs; i++) {
            float v = observations[i];
            invalid[k] |= v != v;
            if (plan->normalize) {
                v = (v - mean[i]) * scale[i];
                v = v < -limit[i] ? -limit[i] : v > limit[i] ? limit[i] : v;
            }
            x[SB3S_PANEL * i + k] = v;
        }
    for (; k < SB3S_PANEL; k++)
        for (i = 0; i < plan->inputs; i++) x[SB3S_PANEL * i + k] = 0.0f;
    for (n = 0; n < plan->layers; n++, layer++) {
        float *swap = x;
        if (layer->highest) sb3s_to_grid(layer, x, SB3S_PANEL * layer->in);
        sb3s_panel_layer(layer, (const float *)(base + layer->weights), (const uint16_t *)(base + layer->indices),
                         (const int32_t *)(base + layer->counts), (const float *)(base + layer->biases), (const sb3s_sixteen *)x,
                         (sb3s_sixteen *)y);
        sb3s_activate(layer, (const float *)(base + layer->slopes), y, SB3S_PANEL * layer->out);
        x = y;
        y = swap;
    }
    for (k = 0; k < count; k++) {
        for (i = 0; i < plan->outputs; i++) y[i] = invalid[k] ? 0.0f / 0.0f : x[SB3S_PANEL * i + k];
        sb3s_head(plan, y, actions + k * width);
    }
}
