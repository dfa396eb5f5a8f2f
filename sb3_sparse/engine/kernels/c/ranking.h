/* The rule of a target network whose layers keep their largest weights. */
#pragma once
#include <algorithm>

#include "batch.h"

/* The magnitude of this rank among those that are not zero, counted from 1, if it is above low and at most high; else -1. */
KERNEL float ranked(int n, const float *weights, int zeros, int rank, float low, float high, float *candidates) {
    int below = -zeros, count = 0;
    for (int i = 0; i < n; i++) below += fabsf(weights[i]) <= low;
    if (rank <= below) return -1.0f;
    for (int i = 0; i < n; i++) {
        const float magnitude = fabsf(weights[i]);
        candidates[count] = magnitude;
        count += (magnitude > low) & (magnitude <= high);
    }
    if (rank > below + count) return -1.0f;
    float *const place = candidates + (rank - below - 1);
    std::nth_element(candidates, place, candidates + count);
    return *place;
}

/* Zeroes those with the highest index of the weights of this magnitude. */
KERNEL void drop_ties(int n, float *weights, int drops, float magnitude, const int32_t *index, int32_t *places) {
    int ties = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(weights[i]) == magnitude) places[ties++] = i;
    drops = drops < ties ? drops : ties;
    std::nth_element(places, places + drops, places + ties, [=](int32_t i, int32_t j) { return index[i] > index[j]; });
    for (int i = 0; i < drops; i++) weights[places[i]] = 0.0f;
}

/* Zeroes the smallest weights until as many are left as there are nonzero ones among k others. Between two soft updates the
   bound moves little, so memory[0] has the last one, and only magnitudes near it are ranked. */
KERNEL void keep_largest(int n, float *weights, int k, const float *like, const int32_t *index, float *memory) {
    const int exist = count_nonzero(n, weights), excess = exist - count_nonzero(k, like), zeros = n - exist;
    if (excess <= 0) return;
    float *const candidates = memory + 16;
    float bound = ranked(n, weights, zeros, excess, 0.8f * memory[0], 1.25f * memory[0], candidates);
    if (bound < 0.0f) bound = ranked(n, weights, zeros, excess, 0.0f, INFINITY, candidates);
    /* Too many of the weights are no numbers. */
    if (bound < 0.0f) return;
    int dropped = -zeros;
    for (int i = 0; i < n; i++) {
        const bool smaller = fabsf(weights[i]) < bound;
        dropped += smaller;
        weights[i] = smaller ? 0.0f : weights[i];
    }
    drop_ties(n, weights, excess - dropped, bound, index, (int32_t *)(candidates + n));
    memory[0] = bound;
}
