/* The dense actor in float32 by RLtools: rltools.cpp. */
#include "tables.h"

typedef float policy_observation;
typedef float policy_action;

void rltools_act(const float *observation, float *action);

static void policy_act(const policy_observation *observation, policy_action *action) {
    rltools_act(observation, action);
}

#define TOLERANCE 1e-6f
#include "self_test.h"
