/* The kernels as a shared library for ctypes. */
#include "kernels.h"

int sb3s_vbmi(void) { return sb3s_has_vbmi(); }

void sb3s_predict(const sb3s_plan *plan, float *x, void *action) { sb3s_act(plan, x, action); }
