/* Runs a program. A run of instructions that are not on the whole batch is walked block by block, and within a block panel by
   panel, so that what one instruction writes is still in the cache when the next one reads it. */
#include "across.h"
#include "batch.h"
#include "check.h"
#include "dense.h"
#include "dense_gradient.h"
#include "elementwise.h"
#include "gather.h"
#include "interface.h"
#include "ranking.h"
#include "sparse.h"

static void run_on_panel(const Instruction &i, int64_t p) {
    const Rows dst = at_panel(i.dst, p), a = at_panel(i.a, p), b = at_panel(i.b, p), c = at_panel(i.c, p);
    switch ((Op)i.op) {
    case Op::LINEAR:
        if (i.layer->kind == SPARSE)
            sparse_linear(*i.layer, a.base, dst.base, i.flags & RELU_OUTPUT);
        else
            dense_linear(*i.layer, a.base, dst.base, i.flags);
        break;
    case Op::LINEAR_INPUT_GRADIENT:
        (i.layer->kind == SPARSE ? sparse_input_gradient : dense_input_gradient)(*i.layer, a.base, dst.base, c.base, i.flags);
        break;
    case Op::LOAD: load_panel(i.n, *(const Source *)i.data, p, dst.base); break;
    case Op::SUM: sum_features(i.n, i.k, dst, a); break;
    case Op::REDUCE_MAX: maximum_feature(i.n, dst, a); break;
    case Op::ARGMAX: argmax_feature(i.n, dst, a); break;
    case Op::TAKE: take(i.n, i.k, dst, a, b); break;
    case Op::PUT: put(i.n, i.k, dst, a, b); break;
    case Op::SORT: sort_features(i.n, dst, a); break;
    case Op::QUANTILE_HUBER: quantile_huber(i.n, i.k, dst, a, b, c); break;
    case Op::ROWS: rows_of(i.n, dst, (const float *)i.data); break;
    case Op::ZERO: zero(i.n, dst); break;
    default: elementwise(i, p);
    }
}

static void run_on_block(const Instruction &i, int64_t first, int64_t panels) {
    const Operand dy = from_panel(i.a, first), x = from_panel(i.b, first);
    const bool add = (i.flags & ADD) || first > 0;
    float *scratch = (float *)i.data;
    switch (i.layer->kind) {
    case SPARSE: sparse_weight_gradient(*i.layer, dy, x, panels, add); break;
    case HALF: dense_weight_gradient<uint32_t>(*i.layer, dy, x, panels, add, scratch); break;
    default: dense_weight_gradient<float>(*i.layer, dy, x, panels, add, scratch);
    }
}

static void refresh(const Layer &layer) {
    switch (layer.kind) {
    case SPARSE: return sparse_refresh(layer);
    case HALF: return half_refresh(layer);
    default: dense_refresh(layer);
    }
}

/* The instructions of a run, on the panels of a block. Each panel has memory of its own, so it may run ahead of the others as
   far as the next instruction that needs them all. */
static void run_block(const Instruction *run, int64_t count, int64_t first, int64_t panels) {
    for (int64_t i = 0; i < count;) {
        if (is_block(run[i])) {
            run_on_block(run[i++], first, panels);
            continue;
        }
        int64_t end = i;
        while (end < count && !is_block(run[end])) end++;
        for (int64_t p = first; p < first + panels; p++)
            for (int64_t j = i; j < end; j++) run_on_panel(run[j], p);
        i = end;
    }
}

static void run_on_batch(const Instruction &i, int64_t panels) {
    const bool add = i.flags & ADD;
    switch ((Op)i.op) {
    case Op::SUM_BATCH: sum_batch(i.n, i.a, panels, (float *)i.data, add); break;
    case Op::ADAM: adam(i.n, i.dst.base, i.a.base, i.b.base, i.c.base, (double *)i.data); break;
    case Op::RMSPROP: rmsprop(i.n, i.dst.base, i.a.base, i.b.base, (double *)i.data); break;
    case Op::POLYAK: polyak(i.n, i.dst.base, i.a.base, i.x[0]); break;
    case Op::POLYAK_INDEXED: polyak_indexed(i.n, i.dst.base, i.a.base, (const int32_t *)i.data, i.x[0]); break;
    case Op::KEEP_LARGEST: keep_largest(i.n, i.dst.base, i.k, i.a.base, (const int32_t *)i.data, i.b.base); break;
    case Op::FAKE_QUANTIZE: fake_quantize(i.n, i.dst.base, i.a.base, i.k); break;
    case Op::OUTSIDE: count_outside(i.n, i.dst.base, i.a.base, i.k, (const int32_t *)i.data); break;
    case Op::REFRESH: refresh(*i.layer); break;
    case Op::SQUARE_SUM: square_sum(i.n, i.a.base, (double *)i.data, add); break;
    case Op::CLIP: clip(i.n, i.dst.base, *(const double *)i.data, i.x[0]); break;
    case Op::MASK: mask_gradient(i.n, i.dst.base, i.a.base); break;
    case Op::GATHER: gather(i.n, i.dst.base, i.a.base, (const int32_t *)i.data); break;
    case Op::SCATTER: scatter(i.n, i.dst.base, i.a.base, (const int32_t *)i.data); break;
    case Op::DIFFER: count_differences(i.n, i.dst.base, i.a.base, i.b.base, (const int32_t *)i.data); break;
    default: break;
    }
}

extern "C" {

/* 0, or the place of the first malformed instruction, counted from 1. */
int engine_run(const Instruction *program, int64_t count, int64_t panels) {
    if (panels < 1) return 1;
    for (int64_t i = 0; i < count; i++)
        if (!is_valid(program[i])) return (int)(i + 1);
    for (int64_t i = 0; i < count;) {
        if (is_batch(program[i])) {
            run_on_batch(program[i++], panels);
            continue;
        }
        int64_t end = i;
        while (end < count && !is_batch(program[end])) end++;
        for (int64_t p = 0; p < panels; p += BLOCK) run_block(program + i, end - i, p, panels - p < BLOCK ? panels - p : BLOCK);
        i = end;
    }
    return 0;
}

/* The interface's version, the sizes of its structs, the lanes of a panel, the panels of a block and the lanes of a vector. */
int64_t engine_abi(int which) {
    const int64_t values[] = {INTERFACE, sizeof(Operand), sizeof(Source), sizeof(Layer), sizeof(Instruction), LANES, BLOCK, VL};
    return which >= 0 && which < 8 ? values[which] : -1;
}

const char *engine_isa(void) { return ENGINE_ISA; }
}
