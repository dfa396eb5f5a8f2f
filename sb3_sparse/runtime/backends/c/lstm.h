/* The cell of an LSTM layer, in C and C++. y holds the gates, n each: input, forget, cell, output; in front of them come the
   outputs, which are remembered in h, as c is. */
#ifndef SB3S_LSTM
#define SB3S_LSTM

/* By the exponential: a cell adds up the errors of many steps, and those of sb3s_tanh are ten times larger. */
static inline float sb3s_cell_tanh(float x) { return 2.0f * sb3s_sigmoid(2.0f * x) - 1.0f; }

static void sb3s_lstm(int n, float *h, float *c, float *y) {
    int i;
    for (i = 0; i < n; i++) {
        c[i] = sb3s_sigmoid(y[n + i]) * c[i] + sb3s_sigmoid(y[i]) * sb3s_cell_tanh(y[2 * n + i]);
        h[i] = sb3s_sigmoid(y[3 * n + i]) * sb3s_cell_tanh(c[i]);
    }
    for (i = 0; i < n; i++) y[i] = h[i];
}

#endif
