/* Counts the instructions of policy_act on QEMU's MPS2 boards, and runs the test vectors of the header.

   With -icount shift=0 an instruction takes 1 ns of virtual time, and SysTick counts at 25 MHz: one tick is 40 instructions.
   Prints three numbers: test vectors that fail, instructions of CALLS calls, and those of a function of 10,000. */
#define POLICY_SELF_TEST
#include "policy.h"

#define CALLS 40

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

static uint32_t ticks(void) {
    return *(volatile uint32_t *)0xE000E018;
}

int main(void) {
    policy_action action[sizeof policy_expected[0] / sizeof policy_expected[0][0]];
    uint32_t start;
    int i;
    print((uint32_t)policy_self_test());

    *(volatile uint32_t *)0xE000E014 = 0xffffff; /* 24 bits, counting down */
    *(volatile uint32_t *)0xE000E018 = 0;
    *(volatile uint32_t *)0xE000E010 = 5;
    start = ticks();
    for (i = 0; i < CALLS; i++) {
        act(policy_observations[i % 8], action);
        __asm__ volatile("" : : "r"(action) : "memory");
    }
    print(((start - ticks()) & 0xffffff) * 40);

    start = ticks();
    nops();
    print(((start - ticks()) & 0xffffff) * 40);
    semihosting(0x18, 0x20026); /* exit */
    return 0;
}
