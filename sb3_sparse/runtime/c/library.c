/* The kernels as a shared library for ctypes. */
#include "kernels.h"

void sb3s_predict(const sb3s_plan *plan, float *x, void *action) { sb3s_act(plan, x, action); }
