/* Functions across the features of each lane: sums, maxima, choices, sorting, and the loss of quantile regression. */
#pragma once
#include "elementwise.h"

/* dst[j] = sum over i < n of a[i * k + j]. dst may be a. */
KERNEL void sum_features(int n, int k, Rows dst, Rows a) {
    for (int j = 0; j < k; j++)
        for (int lane = 0; lane < LANES; lane += VL) {
            Vector sum = {};
            for (int i = 0; i < n; i++) sum += a.at((int64_t)i * k + j, lane);
            dst.put(j, lane, sum);
        }
}

KERNEL void maximum_feature(int n, Rows dst, Rows a) {
    for (int lane = 0; lane < LANES; lane += VL) {
        Vector best = a.at(0, lane);
        for (int i = 1; i < n; i++) best = larger(best, a.at(i, lane));
        dst.put(0, lane, best);
    }
}

/* The first of equal ones. */
KERNEL void argmax_feature(int n, Rows dst, Rows a) {
    for (int lane = 0; lane < LANES; lane += VL) {
        Vector best = a.at(0, lane), index = {};
        for (int i = 1; i < n; i++) {
            const Vector x = a.at(i, lane);
            const Mask better = x > best;
            best = select(better, x, best);
            index = select(better, splat((float)i), index);
        }
        dst.put(0, lane, index);
    }
}

/* An index as a whole float in [0, k); NaN is 0. */
INLINE Vector clamped_index(Vector x, int k) {
    x = minimum(splat((float)(k - 1)), maximum(x, Vector{}));
    return __builtin_convertvector(__builtin_convertvector(x, Mask), Vector);
}

/* dst[i] = a[i * k + index]. dst may be a. */
KERNEL void take(int n, int k, Rows dst, Rows a, Rows b) {
    for (int lane = 0; lane < LANES; lane += VL) {
        const Vector index = clamped_index(b.at(0, lane), k);
        for (int i = 0; i < n; i++) {
            Vector taken = {};
            for (int j = 0; j < k; j++) taken = select(index == (float)j, a.at((int64_t)i * k + j, lane), taken);
            dst.put(i, lane, taken);
        }
    }
}

/* The transpose of take: dst[i * k + j] = a[i] where j is the index, and 0 elsewhere. */
KERNEL void put(int n, int k, Rows dst, Rows a, Rows b) {
    for (int lane = 0; lane < LANES; lane += VL) {
        const Vector index = clamped_index(b.at(0, lane), k);
        for (int i = 0; i < n; i++) {
            const Vector x = a.at(i, lane);
            for (int j = 0; j < k; j++) dst.put((int64_t)i * k + j, lane, select(index == (float)j, x, Vector{}));
        }
    }
}

/* Batcher's merge exchange sort (Knuth, volume 3, 5.2.2 M): the comparisons do not depend on the values, so all lanes share
   them. */
KERNEL void sort_features(int n, Rows dst, Rows a) {
    if (dst.base != a.base)
        for (int i = 0; i < n; i++)
            for (int lane = 0; lane < LANES; lane += VL) dst.put(i, lane, a.at(i, lane));
    int top = 1;
    while (2 * top < n) top *= 2;
    for (int p = top; p > 0; p /= 2)
        for (int q = top, r = 0, d = p;; d = q - p, q /= 2, r = p) {
            for (int i = 0; i + d < n; i++) {
                if ((i & p) != r) continue;
                for (int lane = 0; lane < LANES; lane += VL) {
                    const Vector low = dst.at(i, lane), high = dst.at(i + d, lane);
                    dst.put(i, lane, minimum(low, high));
                    dst.put(i + d, lane, maximum(high, low));
                }
            }
            if (q == p) break;
        }
}

/* The Huber loss of quantile regression (Dabney et al., 2018) between n quantiles a and k samples b of the target, summed over
   the pairs into c[0], and its gradient for a. Neither is divided by anything. */
KERNEL void quantile_huber(int n, int k, Rows dst, Rows a, Rows b, Rows c) {
    for (int lane = 0; lane < LANES; lane += VL) {
        Vector loss = {};
        for (int i = 0; i < n; i++) {
            const float tau = ((float)i + 0.5f) / (float)n;
            const Vector quantile = a.at(i, lane), above = splat(tau), below = splat(1.0f - tau);
            /* Two sums do not wait for each other, and many short ones keep more digits than one over all pairs. */
            Vector gradient[2] = {}, sum[2] = {};
            const auto pair = [&](int j, Vector &gradient, Vector &sum) {
                const Vector delta = b.at(j, lane) - quantile;
                /* huber = slope * (delta - slope / 2), with the slope clamped to [-1, 1]. */
                const Vector slope = minimum(splat(1.0f), maximum(splat(-1.0f), delta));
                const Vector weighted = select(delta < 0.0f, below, above) * slope;
                sum += weighted * (delta - 0.5f * slope);
                gradient -= weighted;
            };
            int j = 0;
            for (; j + 2 <= k; j += 2) {
                pair(j, gradient[0], sum[0]);
                pair(j + 1, gradient[1], sum[1]);
            }
            if (j < k) pair(j, gradient[0], sum[0]);
            dst.put(i, lane, gradient[0] + gradient[1]);
            loss += sum[0] + sum[1];
        }
        c.put(0, lane, loss);
    }
}

/* The same value in all lanes of a feature. */
KERNEL void rows_of(int n, Rows dst, const float *data) {
    for (int f = 0; f < n; f++)
        for (int lane = 0; lane < LANES; lane += VL) dst.put(f, lane, splat(data[f]));
}

KERNEL void zero(int n, Rows dst) {
    for (int f = 0; f < n; f++)
        for (int lane = 0; lane < LANES; lane += VL) dst.put(f, lane, Vector{});
}
