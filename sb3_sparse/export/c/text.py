"""The C code that is the same for every policy. @NAME@ is the prefix of its functions, @UPPER@ that of its macros."""

HEADER = """\
/* @NAME@.h: a policy, written by sb3_sparse @VERSION@. @SUMMARY@

   void @NAME@_act(@REMEMBER@@ARGUMENTS@, @NAME@_action *action);
@NOTE@
   @INPUTS@ action: @ACTIONS@.
   One C99 file; several, of different names, may be included together. No malloc, no libm, no state between calls@KEPT@ (the
   buffers are static; define @UPPER@_STORAGE as nothing to have them on the stack). Its arithmetic, chosen by a macro
   before it is included:

   (default)           @DEFAULT@
   @UPPER@_INTEGER@INTEGER@
   @UPPER@_SIMD@SIMD@

   All functions are static. For several files that call the same one, define @UPPER@_LINKAGE as nothing where it is compiled,
   and @UPPER@_EXTERN where it is only declared. On AVR, C code (not C++) has and reads the tables in flash.

   Self test:  cc -std=c99 -O2 -x c -D@UPPER@_MAIN @NAME@.h -o test && ./test */
#if defined(@UPPER@_H) && @UPPER@_H != @CHECKSUM@
#error "two policies have the name @NAME@: write one of them with another name"
#elif !defined(@UPPER@_H)
#define @UPPER@_H @CHECKSUM@

#include <stdint.h>

/* The macro's former name. */
#if defined(@UPPER@_VBMI) && !defined(@UPPER@_SIMD)
#define @UPPER@_SIMD
#endif
#ifndef @UPPER@_STORAGE
#define @UPPER@_STORAGE static
#endif
#ifndef @UPPER@_LINKAGE
#define @UPPER@_LINKAGE static
#endif
#ifndef SB3S_FLASH
#ifdef __FLASH
#define SB3S_FLASH __flash
#else
#define SB3S_FLASH
#endif
#endif

@OBSERVATION@typedef @ACTION@ @NAME@_action;
@STATE@
#ifdef @UPPER@_EXTERN
#ifdef __cplusplus
extern "C" {
#endif
void @NAME@_act(@REMEMBER@@ARGUMENTS@, @NAME@_action *action);
int @NAME@_self_test(void);
#ifdef __cplusplus
}
#endif
#else
"""

#: Where tables are longer than a pointer of 16 bits reaches, a compiler may say nothing and read others.
LIMIT = """#if UINTPTR_MAX <= 0xffff
#error "@BYTES@ bytes of tables are more than this processor addresses beside other constants: 49152"
#endif
"""

#: A byte as a number: four bits of exponent, four of mantissa.
MINIFLOAT = """
static inline int32_t @NAME@_minifloat(uint8_t code) {
    return (int32_t)(16 + (code & 15)) << (code >> 4);
}
"""

#: The next of several codes of @WIDTH@ bits in a group of three bytes; what is left of the group has a 1 in front.
CODE = """
static inline int32_t @FUNCTION@(const uint8_t SB3S_FLASH **codes, uint32_t *group) {
    int32_t code;
    if (*group == 1) {
        *group = 0x1000000u | (uint32_t)(*codes)[2] << 16 | (uint32_t)(*codes)[1] << 8 | (*codes)[0];
        *codes += 3;
    }
    code = (int32_t)(*group << @SHIFT@) >> @SHIFT@;
    *group >>= @WIDTH@;
    return code;
}
"""

#: A convolution: offsets from the corner of a window, counts of each channel.
CONVOLUTION = """
static void @FUNCTION@(const @COLUMN@ SB3S_FLASH *columns, const @WEIGHT@ SB3S_FLASH *weights,
                       const @RUN@ SB3S_FLASH *counts, unsigned channels, unsigned height, unsigned width, unsigned down,
                       unsigned right, @PARAMETERS@, const float *x, float *y) {
    unsigned i, j, k;
    for (; channels != 0; channels--) {
        const float @CONSTANTS@;
        for (i = 0; i < height; i++)
            for (j = 0; j < width; j++) {
                const float *corner = x + i * down + j * right;
                float sum = 0.0f;
                for (k = 0; k < *counts; k++) sum += (float)weights[k] * corner[columns[k]];
                *y++ = @VALUE@;
            }
        columns += *counts;
        weights += *counts++;
    }
}
"""

#: Scale and bias of a row: parameters, scale, bias.
CONSTANTS = {
    "packed": (
        "const uint8_t SB3S_FLASH *scales, float unit, const int16_t SB3S_FLASH *bias, float step",
        "(float)@NAME@_minifloat(*scales++) * unit",
        "(float)*bias++ * step",
    ),
    "plain": ("const float SB3S_FLASH *scales, const float SB3S_FLASH *bias", "*scales++", "*bias++"),
    "unscaled": ("const float SB3S_FLASH *bias", "", "*bias++"),
}

#: A float as an integer of the grid that training has fixed: to the nearest, halves to even ones; NaN becomes the smallest.
TO_GRID = """
static inline int32_t @NAME@_to_grid(float x, float low, float top) {
    float size, beyond;
    int32_t q;
    x = x > low ? x : low;
    x = x < top ? x : top;
    size = x < 0.0f ? -x : x;
    q = (int32_t)(size + 0.5f);
    beyond = (float)q - size;
    q -= beyond > 0.5f || (beyond == 0.5f && (q & 1));
    return x < 0.0f ? -q : q;
}
"""

SELF_TEST = """
#ifdef @UPPER@_MAIN
#define @UPPER@_SELF_TEST
#endif
#ifdef @UPPER@_SELF_TEST
@VECTORS@
/* How many of @COUNT@ test vectors fail. The expected actions come from numpy, in the same arithmetic. */
@UPPER@_LINKAGE int @NAME@_self_test(void) {
@COPIES@    int i, j, failures = 0;@BEGIN@
    for (i = 0; i < @COUNT@; i++) {
        @NAME@_action action[@ACTIONS@];
        int wrong = 0;
@COPY@        @NAME@_act(@GIVE@@TESTED@, action);
        for (j = 0; j < @ACTIONS@; j++) {
            const float error = (float)action[j] - @NAME@_expected[i][j];
            wrong |= !(error <= @UPPER@_TOLERANCE && error >= -@UPPER@_TOLERANCE);
        }
        failures += wrong;
    }
    return failures;
}
#endif

#ifdef @UPPER@_MAIN
#include <stdio.h>
int main(void) {
    const int failures = @NAME@_self_test();
    printf("%d of @COUNT@ test vectors fail\\n", failures);
    return failures != 0;
}
#endif

#endif

#endif
"""

#: Activations of a float v, as expressions.
ACTIVATIONS = {
    "identity": "v",
    "relu": "v < 0.0f ? 0.0f : v",
    "tanh": "sb3s_tanh(v)",
    "clip": "v < @LOW@ ? @LOW@ : v > @HIGH@ ? @HIGH@ : v",
    "leaky_relu": "v < 0.0f ? @LOW@ * v : v",
    "elu": "v < 0.0f ? @LOW@ * (sb3s_exp(v) - 1.0f) : v",
    "sigmoid": "sb3s_sigmoid(v)",
    "silu": "v * sb3s_sigmoid(v)",
    "gelu": "sb3s_gelu(v)",
    "gelu_tanh": "sb3s_gelu_tanh(v)",
    "mish": "sb3s_mish(v)",
    "softplus": "sb3s_softplus(v)",
    "softsign": "sb3s_softsign(v)",
    "hardswish": "sb3s_hardswish(v)",
    "prelu": "v < 0.0f ? @SLOPE@ * v : v",
}

#: In front of what is not C++.
ONLY_C = """\
#ifdef __cplusplus
#error "the code for SIMD registers is C: compile it in a file of C, and declare its functions in C++ (LINKAGE and EXTERN)"
#endif
"""
