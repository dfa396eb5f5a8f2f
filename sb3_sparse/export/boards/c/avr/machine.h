/* simavr, which counts the cycles of the hardware, 8 of them in a tick of timer 1. What is printed goes to the serial port. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include "text.h"

#ifndef CLOCK
#define CLOCK 0xffffffff
#endif
#define RANGE (uint32_t)CLOCK

/* 10,000 cycles: the return of this processor takes 5. */
void nops(void);
__asm__(".section .text.nops\n .global nops\n nops:\n .rept 9995\n nop\n .endr\n ret\n .text");

static void print(uint32_t number) {
    const char *text = decimal(number);
    UCSR0B = 1 << TXEN0;
    while (*text) {
        while (!(UCSR0A & 1 << UDRE0)) {}
        UDR0 = (uint8_t)*text++;
    }
}

static void finish(void) {
    cli();
    sleep_enable();
    sleep_cpu();
}

/* How often the timer has run over: each time takes some cycles, of half a million. */
static volatile uint16_t turns;

ISR(TIMER1_OVF_vect) {
    turns++;
}

static uint64_t count(void) {
    uint32_t high, low;
    do {
        high = turns;
        low = TCNT1;
    } while (high != turns);
    return (uint64_t)(high << 16 | low) * 8;
}

static uint64_t begun;

static uint32_t start(void) {
    TIMSK1 = 1 << TOIE1;
    TCCR1B = 1 << CS11;
    sei();
    begun = count();
    return (uint32_t)begun;
}

static uint32_t since(uint32_t start) {
    return (uint32_t)count() - start;
}

static uint32_t has_run_over(void) {
    return count() - begun > RANGE;
}
