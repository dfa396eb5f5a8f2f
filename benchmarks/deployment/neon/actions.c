/* Actions of a plan: actions PLAN SCRATCH OBSERVATIONS COUNT, where the files are as the kernels read them, and SCRATCH is in bytes. */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

static void *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    void *memory = NULL;
    long size;
    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0 || posix_memalign(&memory, 64, (size_t)size + 64)) abort();
    rewind(file);
    if (fread(memory, 1, (size_t)size, file) != (size_t)size) abort();
    fclose(file);
    return memory;
}

int main(int argc, char **argv) {
    const sb3s_plan *plan;
    const float *observations;
    float action[64], sum = 0.0f;
    void *scratch = NULL;
    int i, count;
    if (argc != 5 || posix_memalign(&scratch, 64, (size_t)atoi(argv[2]) + 64)) abort();
    plan = read_file(argv[1]);
    observations = read_file(argv[3]);
    if (plan->actions > 64) abort();
    for (count = atoi(argv[4]); count > 0; count--, observations += plan->inputs) {
        memcpy(scratch, observations, sizeof(float) * (size_t)plan->inputs);
        sb3s_act(plan, NULL, scratch, action, NULL);
        for (i = 0; i < plan->actions; i++) sum += action[i];
    }
    return sum != sum;
}
