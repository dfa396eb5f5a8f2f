/* The policy alone, for its size. */
#include "policy.h"

void act(const policy_observation *observation, policy_action *action) {
    policy_act(observation, action);
}
