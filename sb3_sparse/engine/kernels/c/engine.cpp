/* Runs a program. A run of instructions that are not on the whole batch is walked block by block, and within a block panel by
   panel, so that what one instruction writes is still in the cache when the next one reads it. With a team, two threads take
   turns at the blocks. */
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
#include "team.h"

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

static void run_on_block(const Instruction &i, const Layer &layer, int64_t first, int64_t panels, bool add, float *scratch) {
    const Operand dy = from_panel(i.a, first), x = from_panel(i.b, first);
    switch (layer.kind) {
    case SPARSE: sparse_weight_gradient(layer, dy, x, panels, add); break;
    case HALF: dense_weight_gradient<uint32_t>(layer, dy, x, panels, add, scratch); break;
    default: dense_weight_gradient<float>(layer, dy, x, panels, add, scratch);
    }
}

static void refresh(const Layer &layer) {
    switch (layer.kind) {
    case SPARSE: return sparse_refresh(layer);
    case HALF: return half_refresh(layer);
    default: dense_refresh(layer);
    }
}

/* Consecutive instructions that are not on the whole batch. */
struct Run {
    const Instruction *begin, *end;
    int64_t panels;
    int threads;

    /* Whether an earlier instruction of the run computes the gradient of the same layer. */
    bool has_before(const Instruction *i) const {
        for (const Instruction *j = begin; j < i; j++)
            if (is_block(*j) && j->layer == i->layer) return true;
        return false;
    }
    int64_t first_panel(int thread) const { return (int64_t)thread * BLOCK; }
};

/* The gradient of a block's samples. The second thread sums in memory of its own, in which nothing is left from earlier runs. */
static void run_gradient(const Run &run, const Instruction &i, int thread, int64_t first, int64_t panels) {
    float *scratch = (float *)i.data;
    const bool begins = first == run.first_panel(thread);
    if (thread == 0) return run_on_block(i, *i.layer, first, panels, (i.flags & ADD) || !begins, scratch);
    Layer own = *i.layer;
    own.gradient += own.second;
    own.bias_gradient += own.second;
    if (scratch) scratch += BLOCK * LANES * LANES;
    run_on_block(i, own, first, panels, !begins || run.has_before(&i), scratch);
}

/* The instructions of a run on the panels of a block. Each panel has memory of its own, so it may run ahead of the others as
   far as the next instruction that needs them all. */
static void run_block(const Run &run, int thread, int64_t first, int64_t panels) {
    for (const Instruction *i = run.begin; i < run.end;) {
        if (is_block(*i)) {
            run_gradient(run, *i++, thread, first, panels);
            continue;
        }
        const Instruction *end = i;
        while (end < run.end && !is_block(*end)) end++;
        for (int64_t p = first; p < first + panels; p++)
            for (const Instruction *j = i; j < end; j++) run_on_panel(*j, p);
        i = end;
    }
}

/* Every other block, if there are two threads. */
static void run_share(int thread, void *data) {
    const Run &run = *(const Run *)data;
    for (int64_t p = run.first_panel(thread); p < run.panels; p += (int64_t)run.threads * BLOCK)
        run_block(run, thread, p, run.panels - p < BLOCK ? run.panels - p : BLOCK);
}

static void add_second_gradient(const Layer &layer) {
    const int64_t size = layer.kind == SPARSE ? layer.start[layer.outputs] : (layer.outputs + 7) / 8 * 8 * (int64_t)layer.inputs;
    for (int64_t k = 0; k < size; k++) layer.gradient[k] += layer.gradient[layer.second + k];
    for (int64_t o = 0; o < layer.outputs; o++) layer.bias_gradient[o] += layer.bias_gradient[layer.second + o];
}

static void run_on_panels(Run run, Team *team) {
    if (!team || run.panels <= BLOCK) return run_share(0, &run);
    run.threads = 2;
    team->run(run_share, &run);
    for (const Instruction *i = run.begin; i < run.end; i++)
        if (is_block(*i) && !run.has_before(i)) add_second_gradient(*i->layer);
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
    case Op::TO_STEPS: to_steps(i.n, i.dst.base, i.a.base, i.b.base, i.k); break;
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

void *engine_team(void) {
    try {
        return new Team();
    } catch (...) {
        return nullptr;
    }
}

void engine_disband(void *team) {
    if (team && ((Team *)team)->is_whole()) delete (Team *)team;
}

int engine_run_by_two(const Instruction *program, int64_t count, int64_t panels, void *team) {
    if (panels < 1) return 1;
    for (int64_t i = 0; i < count; i++)
        if (!is_valid(program[i], team)) return (int)(i + 1);
    for (int64_t i = 0; i < count;) {
        if (is_batch(program[i])) {
            run_on_batch(program[i++], panels);
            continue;
        }
        int64_t end = i;
        while (end < count && !is_batch(program[end])) end++;
        run_on_panels({program + i, program + end, panels, 1}, (Team *)team);
        i = end;
    }
    return 0;
}

int engine_run(const Instruction *program, int64_t count, int64_t panels) {
    return engine_run_by_two(program, count, panels, nullptr);
}

/* The interface's version, the sizes of its structs, the lanes of a panel, the panels of a block and the lanes of a vector. */
int64_t engine_abi(int which) {
    const int64_t values[] = {INTERFACE, sizeof(Operand), sizeof(Source), sizeof(Layer), sizeof(Instruction), LANES, BLOCK, VL};
    return which >= 0 && which < 8 ? values[which] : -1;
}

const char *engine_isa(void) { return ENGINE_ISA; }
}
