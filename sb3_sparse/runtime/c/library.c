/* The kernels as a shared library for ctypes. */
#include "kernels.h"

#if defined(_WIN32)
#define SB3S_EXPORT __declspec(dllexport)
#else
#define SB3S_EXPORT
#endif

SB3S_EXPORT int sb3s_vbmi(void) { return sb3s_has_vbmi(); }

SB3S_EXPORT void sb3s_predict(const sb3s_plan *plan, float *x, void *action) { sb3s_act(plan, x, action); }
