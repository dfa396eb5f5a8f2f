/* Counts the instructions of policy_act on QEMU's MPS2 boards, and runs the test vectors of the header.

   With -icount shift=0 an instruction takes 1 ns of virtual time, and SysTick counts at 25 MHz: one tick is 40 instructions.
   Prints five numbers: test vectors that fail, calls that were counted (one alone if that takes long), the instructions of
   these, whether the clock has run over meanwhile, and the instructions of a function of 10,000. */
#define POLICY_SELF_TEST
#include "policy.h"

#define CALLS 40
#ifndef CLOCK
#define CLOCK 0xffffff /* 24 bits, counting down */
#endif

/* The object whose size is measured. */
void act(const policy_observation *observation, policy_action *action);

int main(void);

/* 10,000 instructions, with the return. */
void nops(void);
__asm__(".section .text.nops\n .thumb_func\n .global nops\n nops:\n .rept 9999\n nop\n .endr\n bx lr\n .text");

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
    char text[12] = "";
    int i = 10;
    text[i] = '\n';
    do text[--i] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    semihosting(4, (uintptr_t)(text + i));
}

#define SYSTICK ((volatile uint32_t *)0xE000E010)

static uint32_t start(void) {
    SYSTICK[1] = CLOCK;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    return SYSTICK[2];
}

static uint32_t since(uint32_t start) {
    return (start - SYSTICK[2]) & CLOCK;
}

/* Since it was asked last. */
static uint32_t has_run_over(void) {
    return SYSTICK[0] >> 16 & 1;
}

int main(void) {
    policy_action action[sizeof policy_expected[0] / sizeof policy_expected[0][0]];
    uint32_t begin = start();
    int i, calls = CALLS;
    print((uint32_t)policy_self_test()); /* 8 calls */
    if (since(begin) > CLOCK / 6 || has_run_over()) calls = 1;
    print((uint32_t)calls);

    begin = start();
    for (i = 0; i < calls; i++) {
        act(policy_observations[i % 8], action);
        __asm__ volatile("" : : "r"(action) : "memory");
    }
    print(since(begin) * 40);
    print(has_run_over());

    begin = start();
    nops();
    print(since(begin) * 40);
    semihosting(0x18, 0x20026); /* exit */
    return 0;
}
