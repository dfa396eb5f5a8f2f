/* Functions of each lane of each feature. Every operand may be one row that stands for all features, and dst may be one of
   them. */
#pragma once
#include "elementary.h"
#include "vector.h"

/* An operand at one panel. */
struct Rows {
    float *base;
    int64_t feature;
    INLINE_MEMBER Vector at(int64_t f, int lane) const { return load(base + f * feature + lane); }
    INLINE_MEMBER void put(int64_t f, int lane, Vector x) const { store(base + f * feature + lane, x); }
};

INLINE Rows at_panel(const Operand &operand, int64_t p) {
    return {operand.base + (p & operand.mask) * operand.panel, operand.feature};
}

/* The panels from p on. */
INLINE Operand from_panel(const Operand &operand, int64_t p) {
    return {at_panel(operand, p).base, operand.panel, operand.feature, -1};
}

template <class Function> INLINE void map(int n, Rows dst, Rows a, Function function) {
    for (int f = 0; f < n; f++)
        for (int lane = 0; lane < LANES; lane += VL) dst.put(f, lane, function(a.at(f, lane)));
}

template <class Function> INLINE void map(int n, Rows dst, Rows a, Rows b, Function function) {
    for (int f = 0; f < n; f++)
        for (int lane = 0; lane < LANES; lane += VL) dst.put(f, lane, function(a.at(f, lane), b.at(f, lane)));
}

template <class Function> INLINE void map(int n, Rows dst, Rows a, Rows b, Rows c, Function function) {
    for (int f = 0; f < n; f++)
        for (int lane = 0; lane < LANES; lane += VL)
            dst.put(f, lane, function(a.at(f, lane), b.at(f, lane), c.at(f, lane)));
}

/* 1 where the mask is set and 0 elsewhere. */
INLINE Vector indicator(Mask mask) { return (Vector)(mask & (Mask)splat(1.0f)); }

/* The larger and the smaller one; NaN if either is, as in torch. */
INLINE Vector larger(Vector a, Vector b) { return select(a != a, a, maximum(a, b)); }
INLINE Vector smaller(Vector a, Vector b) { return select(a != a, a, minimum(a, b)); }

/* False if the instruction is none of these. */
KERNEL bool elementwise(const Instruction &instruction, int64_t p) {
    const int n = instruction.n;
    const Rows dst = at_panel(instruction.dst, p), a = at_panel(instruction.a, p), b = at_panel(instruction.b, p),
               c = at_panel(instruction.c, p);
    const float x0 = (float)instruction.x[0], x1 = (float)instruction.x[1];
    typedef Vector V;
    switch ((Op)instruction.op) {
    case Op::COPY: map(n, dst, a, [](V x) { return x; }); return true;
    case Op::EXP: map(n, dst, a, [](V x) { return exponential(x); }); return true;
    case Op::LOG: map(n, dst, a, [](V x) { return logarithm(x); }); return true;
    case Op::TANH: map(n, dst, a, [](V x) { return hyperbolic_tangent(x); }); return true;
    case Op::RELU: map(n, dst, a, [](V x) { return maximum(V{}, x); }); return true;
    case Op::SQUARE: map(n, dst, a, [](V x) { return x * x; }); return true;
    case Op::ABS: map(n, dst, a, [](V x) { return absolute(x); }); return true;
    case Op::SIGN: map(n, dst, a, [](V x) { return sign(x); }); return true;
    case Op::SIGMOID: map(n, dst, a, [](V x) { return sigmoid(x); }); return true;
    case Op::ADD: map(n, dst, a, b, [](V x, V y) { return x + y; }); return true;
    case Op::SUB: map(n, dst, a, b, [](V x, V y) { return x - y; }); return true;
    case Op::MUL: map(n, dst, a, b, [](V x, V y) { return x * y; }); return true;
    case Op::DIV: map(n, dst, a, b, [](V x, V y) { return x / y; }); return true;
    case Op::MIN: map(n, dst, a, b, [](V x, V y) { return smaller(x, y); }); return true;
    case Op::MAX: map(n, dst, a, b, [](V x, V y) { return larger(x, y); }); return true;
    case Op::GREATER_EQUAL: map(n, dst, a, b, [](V x, V y) { return indicator(x >= y); }); return true;
    case Op::LESS: map(n, dst, a, b, [](V x, V y) { return indicator(x < y); }); return true;
    case Op::SELECT: map(n, dst, a, b, c, [](V x, V y, V z) { return select(x != 0.0f, y, z); }); return true;
    case Op::AFFINE: map(n, dst, a, [=](V x) { return x * x0 + x1; }); return true;
    case Op::CLAMP: map(n, dst, a, [=](V x) { return minimum(splat(x1), maximum(splat(x0), x)); }); return true;
    case Op::RELU_GRADIENT: map(n, dst, a, c, [](V x, V h) { return where_positive(h, x); }); return true;
    case Op::TANH_GRADIENT: map(n, dst, a, c, [](V x, V t) { return x * (1.0f - t * t); }); return true;
    default: return false;
    }
}
