/* The kernels of runtime/backends/c as WebAssembly, for every policy the same; `make kernel` compiles it to kernel.wasm, which
   imports nothing. The page writes a plan behind __heap_base, and behind it the memory that a call works in. */
#include "kernels.h"

__attribute__((export_name("predict"))) void predict(const sb3s_plan *plan, float *x, void *action, float *state) {
    sb3s_act(plan, NULL, x, action, state);
}
