/* The kernels as a shared library for ctypes. */
#include "kernels.h"

void sb3s_predict(const sb3s_plan *plan, const uint8_t *pixels, float *x, void *action, float *state) {
    sb3s_act(plan, pixels, x, action, state);
}
