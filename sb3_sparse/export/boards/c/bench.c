/* Counts what policy_act takes on an emulated board, and runs the test vectors of the header.

   Prints five numbers: test vectors that fail, calls that were counted (one alone if that takes long), what these took, whether
   the clock has run over meanwhile, and what a function of 10,000 took.

   The folder of the processor has machine.h: print, start, since and has_run_over, nops, finish, and RANGE, which is how far the
   clock counts. */
#define POLICY_SELF_TEST
#include "policy.h"
#include "machine.h"

#define CALLS 40
#define LENGTH(row) (sizeof(row) / sizeof(row)[0])

/* As in the object whose size is measured; but its tables must not be here a second time. */
__attribute__((noinline)) static void act(const policy_observation *observation, policy_action *action) {
    policy_act(observation, action);
}

/* In memory, as an application has them: on some boards the test vectors are in flash. */
static policy_observation observations[8][LENGTH(policy_observations[0])];

int main(void) {
    policy_action action[LENGTH(policy_expected[0])];
    uint32_t begin = start();
    unsigned i, j, calls = CALLS;
    print((uint32_t)policy_self_test()); /* 8 calls */
    if (since(begin) > RANGE / 6 || has_run_over()) calls = 1;
    print(calls);

    for (i = 0; i < 8; i++)
        for (j = 0; j < LENGTH(observations[0]); j++) observations[i][j] = policy_observations[i][j];
    begin = start();
    for (i = 0; i < calls; i++) {
        act(observations[i % 8], action);
        __asm__ volatile("" : : "r"(action) : "memory");
    }
    begin = since(begin);
    i = has_run_over();
    print(begin);
    print(i);

    begin = start();
    nops();
    print(since(begin));
    finish();
    return 0;
}
