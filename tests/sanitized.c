/* Runs plans from a file under sanitizers, each in memory of exactly its size:

     int32 plan bytes, scratch bytes, observations, bytes of an action, bytes of a number; plan; observations

   over and over until the file ends, and writes the actions to a second file; of a plan with panels, those of its panel too. */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

static char *allocate(int32_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, (size_t)size)) abort();
    memset(memory, 0, (size_t)size);
    return memory;
}

static void require(int condition) {
    if (!condition) abort();
}

int main(int argc, char **argv) {
    int32_t sizes[5], row;
    FILE *in, *out;
    require(argc == 3);
    in = fopen(argv[1], "rb");
    out = fopen(argv[2], "wb");
    require(in != NULL && out != NULL);
    while (fread(sizes, sizeof(int32_t), 5, in) == 5) {
        char *plan = allocate(sizes[0]), *scratch = allocate(sizes[1]), *action = allocate(sizes[3]);
        const size_t inputs = (require(fread(plan, 1, (size_t)sizes[0], in) == (size_t)sizes[0]), (size_t)((sb3s_plan *)plan)->inputs);
        float *state = (float *)allocate(8 * ((sb3s_plan *)plan)->memory);
        const size_t width = sizeof(float) * inputs;
        const int panel = ((sb3s_plan *)plan)->panel != 0;
        char *rows = allocate((int32_t)width * sizes[2]), *actions = allocate(sizes[3] * sizes[2]);
        uint8_t *pixels = sizes[4] == 1 ? (uint8_t *)allocate((int32_t)inputs) : NULL;
        for (row = 0; row < sizes[2]; row++) {
            require(fread(pixels ? (char *)pixels : scratch, (size_t)sizes[4], inputs, in) == inputs);
            if (panel) memcpy(rows + (size_t)row * width, scratch, width);
            memset(state, 0, 8 * (size_t)((sb3s_plan *)plan)->memory);
            sb3s_act((const sb3s_plan *)plan, pixels, (float *)scratch, action, state);
            require(fwrite(action, 1, (size_t)sizes[3], out) == (size_t)sizes[3]);
        }
        if (panel) {
            sb3s_act_panel((const sb3s_plan *)plan, (const float *)rows, sizes[2], (float *)scratch, actions, sizes[3]);
            require(fwrite(actions, (size_t)sizes[3], (size_t)sizes[2], out) == (size_t)sizes[2]);
        }
        free(rows);
        free(actions);
        free(plan);
        free(pixels);
        free(state);
        free(scratch);
        free(action);
    }
    fclose(in);
    return fclose(out);
}
