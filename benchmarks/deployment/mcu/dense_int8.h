/* The dense actor in the same arithmetic as our integer code (8-bit weights, 16-bit activations), as one writes it by hand:
   what the zeros alone save. tables.h has its weights by rows. */
#include "tables.h"

typedef float policy_observation;
typedef float policy_action;

static int32_t product(int count, const int8_t *weight, const int16_t *x) {
    const int16_t *const end = x + count;
    int32_t sum = 0;
    while (x != end) sum += *weight++ * *x++;
    return sum;
}

static void layer(const int8_t *weight, const int32_t *multiplier, const int16_t *bias, int shift, int inputs, int outputs,
                  const int16_t *x, int16_t *y) {
    int j;
    for (j = 0; j < outputs; j++, weight += inputs) {
        const int64_t sum = (int64_t)product(inputs, weight, x) * *multiplier++;
        const int32_t value = ((int32_t)(sum >> 32) >> shift) + *bias++;
        *y++ = (int16_t)(value < 0 ? 0 : value > TOP ? TOP : value);
    }
}

static void policy_act(const policy_observation *observation, policy_action *action) {
    static int16_t x[INPUTS], a[UNITS0], b[UNITS1];
    int i;
    for (i = 0; i < INPUTS; i++) {
        float v = observation[i] * gain[i] + 32768.5f;
        v = v < 32768.0f - TOP ? 32768.0f - TOP : v > 32768.0f + TOP ? 32768.0f + TOP : v;
        x[i] = (int16_t)((int32_t)v - 32768);
    }
    layer(weight0, multiplier0, bias0, SHIFT0, INPUTS, UNITS0, x, a);
    layer(weight1, multiplier1, bias1, SHIFT1, UNITS0, UNITS1, a, b);
    for (i = 0; i < ACTIONS; i++)
        action[i] = sb3s_tanh((float)product(UNITS1, weight2 + i * UNITS1, b) * scale2[i] + bias2[i]);
}

#include "self_test.h"
