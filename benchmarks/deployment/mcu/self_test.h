/* As in a header of ours: how many of eight test vectors fail. */
#ifdef POLICY_SELF_TEST
#ifndef TOLERANCE
#define TOLERANCE 1e-4f
#endif
static int policy_self_test(void) {
    int i, j, failures = 0;
    for (i = 0; i < 8; i++) {
        policy_action action[ACTIONS];
        int wrong = 0;
        policy_act(policy_observations[i], action);
        for (j = 0; j < ACTIONS; j++) {
            const float error = action[j] - policy_expected[i][j];
            wrong |= !(error <= TOLERANCE && error >= -TOLERANCE);
        }
        failures += wrong;
    }
    return failures;
}
#endif
