/* The dense actor in float32, as one writes it by hand: the first thing to compare with. tables.h has its weights by rows. */
#include "tables.h"

typedef float policy_observation;
typedef float policy_action;

static void layer(const float *weight, const float *bias, int inputs, int outputs, const float *x, float *y) {
    const float *const end = x + inputs;
    int j;
    for (j = 0; j < outputs; j++) {
        const float *v = x;
        float sum = *bias++;
        while (v != end) sum += *weight++ * *v++;
        *y++ = sum;
    }
}

static void relu(int count, float *x) {
    int i;
    for (i = 0; i < count; i++)
        if (x[i] < 0.0f) x[i] = 0.0f;
}

static void policy_act(const policy_observation *observation, policy_action *action) {
    static float a[UNITS0], b[UNITS1];
    int i;
    layer(weight0, bias0, INPUTS, UNITS0, observation, a);
    relu(UNITS0, a);
    layer(weight1, bias1, UNITS0, UNITS1, a, b);
    relu(UNITS1, b);
    layer(weight2, bias2, UNITS1, ACTIONS, b, action);
    for (i = 0; i < ACTIONS; i++) action[i] = sb3s_tanh(action[i]);
}

#include "self_test.h"
