/* The two functions of the C library that the kernels call: clang turns them into instructions of WebAssembly. */
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
