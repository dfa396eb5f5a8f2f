/* Whether an instruction is one that the kernels know. All are checked before the first one runs. What the index arrays of
   layers hold is not checked: they have as many elements as the layer has weights. */
#pragma once
#include "interface.h"

/* What an instruction uses. */
enum Use : int { DST = 1, A = 2, B = 4, C = 8, LAYER = 16, DATA = 32, BATCH = 64, K = 128 };

INLINE int uses(Op op) {
    switch (op) {
    case Op::LOAD: case Op::ROWS: return DST | DATA;
    case Op::LINEAR: return DST | A | LAYER;
    case Op::LINEAR_INPUT_GRADIENT: return DST | A | LAYER;
    case Op::COPY: case Op::EXP: case Op::LOG: case Op::TANH: case Op::RELU: case Op::SQUARE: case Op::ABS: case Op::SIGN:
    case Op::SIGMOID: case Op::AFFINE: case Op::CLAMP: case Op::REDUCE_MAX: case Op::ARGMAX: case Op::SORT: return DST | A;
    case Op::ADD: case Op::SUB: case Op::MUL: case Op::DIV: case Op::MIN: case Op::MAX: case Op::GREATER_EQUAL:
    case Op::LESS: return DST | A | B;
    case Op::SELECT: return DST | A | B | C;
    case Op::RELU_GRADIENT: case Op::TANH_GRADIENT: return DST | A | C;
    case Op::SUM: return DST | A | K;
    case Op::TAKE: case Op::PUT: return DST | A | B | K;
    case Op::QUANTILE_HUBER: return DST | A | B | C | K;
    case Op::ZERO: return DST;
    case Op::LINEAR_WEIGHT_GRADIENT: return A | B | LAYER;
    case Op::SUM_BATCH: return BATCH | A | DATA;
    case Op::ADAM: return BATCH | DST | A | B | C | DATA;
    case Op::RMSPROP: return BATCH | DST | A | B | DATA;
    case Op::POLYAK: case Op::MASK: return BATCH | DST | A;
    case Op::GATHER: case Op::SCATTER: return BATCH | DST | A;
    case Op::DIFFER: return BATCH | DST | A | B;
    case Op::POLYAK_INDEXED: return BATCH | DST | A | DATA;
    case Op::KEEP_LARGEST: return BATCH | DST | A | B | DATA;
    case Op::FAKE_QUANTIZE: return BATCH | DST | A | K;
    case Op::TO_STEPS: return BATCH | DST | A | B | K;
    case Op::OUTSIDE: return BATCH | DST | A | DATA;
    case Op::REFRESH: return BATCH | LAYER;
    case Op::SQUARE_SUM: return BATCH | A | DATA;
    case Op::CLIP: return BATCH | DST | DATA;
    default: return 0;
    }
}

INLINE int known_flags(Op op) {
    switch (op) {
    case Op::LINEAR: return RELU_OUTPUT | SAME_LANES;
    case Op::LINEAR_INPUT_GRADIENT: return MASK_BY_INPUT;
    case Op::LINEAR_WEIGHT_GRADIENT: case Op::SUM_BATCH: case Op::SQUARE_SUM: return ADD;
    default: return 0;
    }
}

INLINE bool aligned(const void *p) { return p && (uintptr_t)p % 64 == 0; }

INLINE bool is_panels(const Operand &operand) {
    return aligned(operand.base) && operand.panel >= 0 && operand.panel % 16 == 0 &&
           (operand.mask == -1 || operand.mask == BLOCK - 1 || operand.mask == 2 * BLOCK - 1) && (operand.feature == 0 || operand.feature == LANES);
}

/* Whether features lie behind each other, where a broadcast row cannot stand for them. */
INLINE bool is_full(const Operand &operand, int64_t features) { return operand.feature == LANES || features <= 1; }

INLINE bool is_layer(const Layer *layer, Op op) {
    if (!layer || layer->outputs < 1 || layer->inputs < 1 || layer->first < 0 || layer->first > layer->inputs) return false;
    if (layer->kind != DENSE && layer->kind != SPARSE && layer->kind != HALF) return false;
    const bool sparse = layer->kind == SPARSE, half = layer->kind == HALF;
    const bool rows = !sparse || (layer->start && layer->row && layer->offset);
    const bool columns = !sparse || (layer->t_start && layer->t_row && layer->t_offset);
    switch (op) {
    case Op::LINEAR: return rows && layer->values && layer->bias && (!half || layer->pairs);
    case Op::LINEAR_INPUT_GRADIENT: return columns && layer->transposed;
    case Op::LINEAR_WEIGHT_GRADIENT: return rows && layer->gradient && layer->bias_gradient;
    default:
        if (half) return layer->values && layer->pairs;
        return columns && layer->values && layer->transposed && (!sparse || layer->t_index);
    }
}

INLINE bool is_source(const Source *source) {
    return source->data && source->count >= 1 && source->type >= FLOAT32 && source->type <= INT8;
}

INLINE bool is_valid_layer_instruction(const Instruction &i, Op op) {
    const Layer &layer = *i.layer;
    switch (op) {
    case Op::LINEAR:
        return is_full(i.a, layer.inputs) && is_full(i.dst, layer.outputs) && i.dst.base != i.a.base;
    case Op::LINEAR_INPUT_GRADIENT:
        if ((i.flags & MASK_BY_INPUT) && !(is_panels(i.c) && is_full(i.c, layer.inputs - layer.first))) return false;
        return is_full(i.a, layer.outputs) && is_full(i.dst, layer.inputs - layer.first) && i.dst.base != i.a.base;
    case Op::LINEAR_WEIGHT_GRADIENT:
        return is_full(i.a, layer.outputs) && is_full(i.b, layer.inputs) && (layer.kind == SPARSE || aligned(i.data));
    default: return true;
    }
}

/* Whether two threads do not disturb each other. */
INLINE bool is_for_two(const Instruction &i) {
    const Operand *operands[] = {&i.dst, &i.a, &i.b, &i.c};
    const int use = uses((Op)i.op);
    for (int j = 0; j < 4; j++)
        if ((use & (DST << j)) && operands[j]->mask == BLOCK - 1) return false;
    return (Op)i.op != Op::LINEAR_WEIGHT_GRADIENT || i.layer->second > 0;
}

INLINE bool is_valid(const Instruction &i) {
    const Op op = (Op)i.op;
    const int use = uses(op);
    if (!use || (i.flags & ~known_flags(op)) || i.n < 0 || i.k < 0) return false;
    const bool flat = op == Op::ADAM || op == Op::POLYAK || op == Op::SQUARE_SUM || op == Op::CLIP || op == Op::MASK ||
                      op == Op::POLYAK_INDEXED || op == Op::KEEP_LARGEST || op == Op::FAKE_QUANTIZE || op == Op::TO_STEPS ||
                      op == Op::RMSPROP;
    /* Tensors of the model, which lie anywhere. */
    const bool anywhere =
        op == Op::GATHER || op == Op::SCATTER || op == Op::DIFFER || op == Op::OUTSIDE;
    const Operand *operands[] = {&i.dst, &i.a, &i.b, &i.c};
    for (int j = 0; j < 4; j++)
        if ((use & (DST << j)) &&
            !(anywhere ? operands[j]->base != nullptr : flat ? aligned(operands[j]->base) : is_panels(*operands[j])))
            return false;
    if ((use & DATA) && !i.data) return false;
    if ((use & K) && i.k < 1) return false;
    if (use & LAYER) return is_layer(i.layer, op) && is_valid_layer_instruction(i, op);
    switch (op) {
    case Op::LOAD: return is_source((const Source *)i.data) && is_full(i.dst, i.n);
    case Op::SUM_BATCH: return i.a.mask == -1;
    case Op::REDUCE_MAX: case Op::ARGMAX: return i.n >= 1;
    case Op::SORT: return i.n <= 1024 && is_full(i.dst, i.n);
    case Op::QUANTILE_HUBER: return i.n >= 1 && is_full(i.dst, i.n);
    case Op::SUM: return is_full(i.dst, i.k);
    case Op::PUT: return is_full(i.dst, (int64_t)i.n * i.k);
    case Op::ADAM: case Op::RMSPROP: case Op::MASK: case Op::FAKE_QUANTIZE: case Op::TO_STEPS:
        return i.n % 16 == 0;
    default: return !(use & DST) || anywhere || flat || is_full(i.dst, i.n);
    }
}

INLINE bool is_valid(const Instruction &i, const void *team) { return is_valid(i) && (!team || is_for_two(i)); }

INLINE bool is_batch(const Instruction &i) { return uses((Op)i.op) & BATCH; }
INLINE bool is_block(const Instruction &i) { return (Op)i.op == Op::LINEAR_WEIGHT_GRADIENT; }
