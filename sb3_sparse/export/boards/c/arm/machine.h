/* QEMU's MPS2 boards with -icount shift=0, where an instruction takes 1 ns of virtual time. SysTick counts at 25 MHz: one tick is
   40 instructions. What is printed goes through semihosting. */
#include "text.h"

#ifndef CLOCK
#define CLOCK 0xffffff /* 24 bits, counting down */
#endif
#define RANGE (40u * CLOCK)

/* 10,000 instructions, with the return. */
void nops(void);
__asm__(".section .text.nops\n .thumb_func\n .global nops\n nops:\n .rept 9999\n nop\n .endr\n bx lr\n .text");

int main(void);

void reset(void);
void reset(void) {
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88 |= 0xf << 20; /* The floating-point unit is off after a reset. */
    __asm__ volatile("dsb\n isb");
#endif
    main();
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {0x20300000, (uintptr_t)reset};

static void semihosting(uintptr_t operation, uintptr_t argument) {
    register uintptr_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(uint32_t number) {
    semihosting(4, (uintptr_t)decimal(number));
}

static void finish(void) {
    semihosting(0x18, 0x20026);
}

#define SYSTICK ((volatile uint32_t *)0xE000E010)

static uint32_t start(void) {
    SYSTICK[1] = CLOCK;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    return SYSTICK[2];
}

static uint32_t since(uint32_t start) {
    return ((start - SYSTICK[2]) & CLOCK) * 40;
}

/* Since it was asked last. */
static uint32_t has_run_over(void) {
    return SYSTICK[0] >> 16 & 1;
}
