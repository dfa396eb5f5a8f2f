/* What runs once for a batch: sums over it, and the optimizer's passes over the flat vectors of a network. */
#pragma once
#include "vector.h"

/* data[f] = sum of feature f over the batch. */
KERNEL void sum_batch(int n, const Operand &a, int64_t panels, float *data, bool add) {
    for (int f = 0; f < n; f++) {
        double sum[8] = {};
        for (int64_t p = 0; p < panels; p++) {
            const float *lanes = a.base + p * a.panel + f * a.feature;
            for (int s = 0; s < LANES; s += 8)
                for (int i = 0; i < 8; i++) sum[i] += lanes[s + i];
        }
        const double total = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
        data[f] = (float)(add ? data[f] + total : total);
    }
}

/* Moments below this are zero: arithmetic on subnormal numbers takes many times as long, and the moments of a unit that no
   longer fires would all arrive there. */
INLINE Vector flushed(Vector moment) {
    return (Vector)((Bits)moment & ~(Bits)(Mask)(absolute(moment) < 1e-38f));
}

/* torch.optim.Adam, or AdamW where decoupled, without amsgrad, in the order of operations of torch's loop over tensors. */
KERNEL void adam(int n, float *__restrict p, float *__restrict m, float *__restrict v, const float *__restrict g,
                 double *state) {
    const double step = state[0] += 1.0, lr = state[1], beta1 = state[2], beta2 = state[3], decay = state[5];
    const bool decoupled = state[6] != 0.0;
    const float keep = (float)(1.0 - lr * (decoupled ? decay : 0.0)), pull = (float)(decoupled ? 0.0 : decay);
    const float size = (float)(-lr / (1.0 - pow(beta1, step))), correction = (float)sqrt(1.0 - pow(beta2, step));
    const float epsilon = (float)state[4], b2 = (float)beta2, c1 = (float)(1.0 - beta1), c2 = (float)(1.0 - beta2);
    /* torch.lerp goes from the nearer end. */
    const bool near = c1 < 0.5f;
    const float way = near ? c1 : c1 - 1.0f;
    for (int i = 0; i < n; i += VL) {
        Vector parameter = load(p + i), gradient = load(g + i);
        if (decay != 0.0) {
            parameter *= keep;
            gradient = fused(splat(pull), parameter, gradient);
        }
        Vector first = load(m + i), second = load(v + i) * b2;
        first = fused(splat(way), gradient - first, near ? first : gradient);
        second = fused(c2 * gradient, gradient, second);
        /* Neither 0 / 0 where there is no epsilon. */
        const Vector divisor = maximum(splat(1e-38f), square_root(second) / correction + epsilon);
        store(p + i, parameter + size * first / divisor);
        store(m + i, flushed(first));
        store(v + i, flushed(second));
    }
}

/* torch.optim.RMSprop, neither centered nor with momentum. */
KERNEL void rmsprop(int n, float *__restrict p, float *__restrict v, const float *__restrict g, double *state) {
    state[0] += 1.0;
    const float size = (float)-state[1], alpha = (float)state[2], rest = (float)(1.0 - state[2]);
    const float epsilon = (float)state[4], pull = (float)state[5];
    for (int i = 0; i < n; i += VL) {
        const Vector parameter = load(p + i), gradient = fused(splat(pull), parameter, load(g + i));
        const Vector second = fused(rest * gradient, gradient, load(v + i) * alpha);
        /* Neither 0 / 0 where there is no epsilon. */
        const Vector divisor = maximum(splat(1e-38f), square_root(second) + epsilon);
        store(p + i, parameter + size * gradient / divisor);
        store(v + i, flushed(second));
    }
}

INLINE float flushed(float x) { return fabsf(x) < 1e-38f ? 0.0f : x; }

/* target = target * (1 - tau) + source * tau. Weights of the target that the source no longer has decay, and end at zero. */
KERNEL void polyak(int n, float *target, const float *source, double tau) {
    if (tau == 1.0) {
        memmove(target, source, (size_t)n * sizeof(float));
        return;
    }
    const float step = (float)tau, keep = (float)(1.0 - tau);
    int i = 0;
    for (; i + VL <= n; i += VL) store(target + i, flushed(load(target + i) * keep + load(source + i) * step));
    for (; i < n; i++) target[i] = flushed(target[i] * keep + source[i] * step);
}

/* The same for a target of another layout: index[i] is the place in the source, negative where it has none. */
KERNEL void polyak_indexed(int n, float *target, const float *source, const int32_t *index, double tau) {
    const float step = (float)tau, keep = (float)(1.0 - tau);
    for (int i = 0; i < n; i++) {
        const float now = index[i] >= 0 ? source[index[i]] : 0.0f;
        target[i] = tau == 1.0 ? now : flushed(target[i] * keep + now * step);
    }
}

/* The weights of a layer on a symmetric grid with this largest integer, as sb3_sparse.nn.fake_quantize has it. */
KERNEL void fake_quantize(int n, float *dst, const float *weights, int integer) {
    Vector largest = {};
    for (int i = 0; i < n; i += VL) largest = maximum(absolute(load(weights + i)), largest);
    float lanes[VL], scale = 0.0f;
    memcpy(lanes, &largest, sizeof lanes);
    for (int i = 0; i < VL; i++) scale = lanes[i] > scale ? lanes[i] : scale;
    scale /= (float)integer;
    /* Neither 0 / 0 where all weights are zero. */
    scale = scale < 1.17549435e-38f ? 1.17549435e-38f : scale;
    /* A number of this size has no bits behind the point, so adding it rounds, halves to even. */
    const float round = 12582912.0f;
    for (int i = 0; i < n; i += VL) store(dst + i, ((load(weights + i) / scale + round) - round) * scale);
}

/* The weights on grids of their own, as sb3_sparse.nn.weight_grid has them. */
KERNEL void to_steps(int n, float *dst, const float *weights, const float *steps, int integer) {
    const Vector largest = splat((float)integer);
    const float round = 12582912.0f;
    for (int i = 0; i < n; i += VL) {
        const Vector step = load(steps + i);
        const Vector q = minimum(largest, maximum(-largest, load(weights + i) / step));
        store(dst + i, ((q + round) - round) * step);
    }
}

/* Gradients of weights that do not exist, in a pruned layer on the dense kernels. */
KERNEL void mask_gradient(int n, float *gradient, const float *mask) {
    for (int i = 0; i < n; i += VL) store(gradient + i, load(gradient + i) * load(mask + i));
}

/* dst[i] = src[index[i]], 0 where the index is negative; without an index dst[i] = src[i]. */
KERNEL void gather(int n, float *dst, const float *src, const int32_t *index) {
    if (!index)
        memcpy(dst, src, (size_t)n * sizeof(float));
    else
        for (int i = 0; i < n; i++) dst[i] = index[i] >= 0 ? src[index[i]] : 0.0f;
}

/* dst[index[i]] = src[i] where the index is not negative; without an index dst[i] = src[i]. */
KERNEL void scatter(int n, float *dst, const float *src, const int32_t *index) {
    if (!index)
        memcpy(dst, src, (size_t)n * sizeof(float));
    else
        for (int i = 0; i < n; i++)
            if (index[i] >= 0) dst[index[i]] = src[i];
}

/* Adds the number of values that scatter would change, up to NaN, which always counts. */
KERNEL void count_differences(int n, float *count, const float *there, const float *src, const int32_t *index) {
    int differ = 0;
    if (!index)
        for (int i = 0; i < n; i++) differ += there[i] != src[i];
    else
        for (int i = 0; i < n; i++) differ += index[i] >= 0 && there[index[i]] != src[i];
    *count += (float)differ;
}

KERNEL int count_nonzero(int n, const float *a) {
    int count = 0;
    for (int i = 0; i < n; i++) count += a[i] != 0.0f;
    return count;
}

/* Adds the number of values that are not zero and that no index names. */
KERNEL void count_outside(int n, float *count, const float *a, int k, const int32_t *index) {
    int inside = 0;
    for (int i = 0; i < k; i++) inside += index[i] >= 0 && a[index[i]] != 0.0f;
    *count += (float)(count_nonzero(n, a) - inside);
}

KERNEL void square_sum(int n, const float *a, double *data, bool add) {
    double sum[8] = {};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += (double)a[i + j] * (double)a[i + j];
    for (; i < n; i++) sum[0] += (double)a[i] * (double)a[i];
    const double total = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
    *data = add ? *data + total : total;
}

/* torch.nn.utils.clip_grad_norm_, from the sum of squares. */
KERNEL void clip(int n, float *gradient, double squares, double largest) {
    const double scale = largest / (sqrt(squares) + 1e-6);
    /* A norm that is no number makes all gradients NaN, as in torch. */
    const float factor = scale > 1.0 ? 1.0f : (float)scale;
    for (int i = 0; i < n; i++) gradient[i] *= factor;
}
