/* QEMU's board virt with -icount shift=0: the processor counts its instructions itself. What is printed goes to the serial port. */
#include "text.h"

#ifndef CLOCK
#define CLOCK 0xffffffff
#endif
#define RANGE (uint32_t)CLOCK

/* 10,000 instructions, with the return. */
void nops(void);
__asm__(".section .text.nops\n .global nops\n nops:\n .rept 9999\n nop\n .endr\n ret\n .text");

void reset(void);
__asm__(".section .vectors, \"ax\"\n .global reset\n reset:\n la sp, stack\n j main\n .text");

static void print(uint32_t number) {
    const char *text = decimal(number);
    while (*text) *(volatile uint8_t *)0x10000000 = (uint8_t)*text++;
}

static void finish(void) {
    *(volatile uint32_t *)0x100000 = 0x5555;
}

static uint64_t begun;

static uint64_t count(void) {
    uint32_t low, high, again;
    do __asm__ volatile(".option push\n .option arch, +zicsr\n rdinstreth %0\n rdinstret %1\n rdinstreth %2\n .option pop"
                        : "=r"(high), "=r"(low), "=r"(again));
    while (high != again);
    return (uint64_t)high << 32 | low;
}

static uint32_t start(void) {
    begun = count();
    return (uint32_t)begun;
}

static uint32_t since(uint32_t start) {
    return (uint32_t)count() - start;
}

static uint32_t has_run_over(void) {
    return count() - begun > RANGE;
}
