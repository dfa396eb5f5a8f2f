/* What Python and the kernels agree on: structs.py repeats it, and engine_abi() lets it check that.

   A program is an array of instructions over panels. A batch is cut into panels of LANES samples; a buffer holds
   [panel][feature][LANES] floats, so the lanes of a feature are contiguous and aligned to 64 bytes. BLOCK panels are worked on
   in their turn, so a buffer that no other block needs has room for one block. The kernels allocate nothing and keep nothing but
   the second thread of a team: every array belongs to the caller. A change here needs another INTERFACE. */
#pragma once
#include <cstdint>

constexpr int LANES = 32, BLOCK = 4;
constexpr int INTERFACE = 7;

extern "C" {

/* Feature f of panel p begins at base + (p & mask) * panel + f * feature, in floats. mask is -1, or BLOCK - 1 for a buffer of
   one block, or 2 * BLOCK - 1 for one of a block for each of two threads. feature is LANES, or 0 for one row that stands for all features; panel is 0 for numbers that all panels share. */
struct Operand {
    float *base;
    int64_t panel, feature, mask;
};

/* Samples in rows, as a replay buffer stores them. Sample s is row rows[s], or row s without rows; a row begins at
   data + row * stride bytes. */
struct Source {
    const void *data;
    const int64_t *rows;
    int64_t count, stride, type;
};

/* A linear layer. Dense weights are packed by eight outputs, [ceil(outputs / 8)][inputs][8], and zero where there is no
   output. Sparse weights are rows in the order of their counts: storage row r is output row[r] and has the values start[r] to
   start[r + 1], each with the offset in bytes of its input's lanes. The transposed view, t_, has the input features from first
   on as rows, and the positions of its elements in values. REFRESH writes the values of the transposed view to transposed,
   dense ones as [ceil((inputs - first) / 8)][outputs][8]. The products of a HALF layer are of bfloat16: it is dense, REFRESH
   writes its values to pairs too, two inputs in a number, [ceil(outputs / 8)][ceil(inputs / 2)][8], and what it writes to
   transposed is pairs of outputs, [ceil((inputs - first) / 8)][ceil(outputs / 2)][8]. The gradients that a second thread sums
   lie `second` floats behind the others; without one it is 0. */
struct Layer {
    int32_t kind, outputs, inputs, first;
    const int32_t *start, *row, *offset;
    const int32_t *t_start, *t_row, *t_offset, *t_index;
    float *values, *bias, *gradient, *bias_gradient;
    float *transposed;
    uint32_t *pairs;
    int64_t second;
};

struct Instruction {
    int32_t op, flags, n, k;
    Operand dst, a, b, c;
    const Layer *layer;
    void *data;
    double x[4];
};

/* 0, or the place of the first malformed instruction, counted from 1. */
int engine_run(const Instruction *program, int64_t count, int64_t panels);
/* A second thread, or null where there can be none; its end; and a program on two threads. A team runs one program at a time.
   In the child of a fork it has no thread, and the same sums are computed by one. */
void *engine_team(void);
void engine_disband(void *team);
int engine_run_by_two(const Instruction *program, int64_t count, int64_t panels, void *team);
int64_t engine_abi(int which);
const char *engine_isa(void);
}

enum LayerKind : int32_t { DENSE = 0, SPARSE = 1, HALF = 2 };

enum ElementType : int64_t { FLOAT32 = 0, FLOAT64 = 1, UINT8 = 2, INT64 = 3, INT32 = 4, INT8 = 5 };

/* Bits of the flags; each instruction has its own. */
enum Flag : int32_t { RELU_OUTPUT = 1, SAME_LANES = 2, MASK_BY_INPUT = 1, ADD = 1 };

/* Those before LINEAR_WEIGHT_GRADIENT run for each panel, it runs for each block, and those behind it run once for the whole
   batch. 0 is none, so that memory that nobody filled is no program. */
enum class Op : int32_t {
    LOAD = 1,
    LINEAR,
    LINEAR_INPUT_GRADIENT,
    COPY,
    EXP,
    LOG,
    TANH,
    RELU,
    SQUARE,
    ABS,
    SIGN,
    SIGMOID,
    ADD,
    SUB,
    MUL,
    DIV,
    MIN,
    MAX,
    GREATER_EQUAL,
    LESS,
    SELECT,
    AFFINE,
    CLAMP,
    RELU_GRADIENT,
    TANH_GRADIENT,
    SUM,
    REDUCE_MAX,
    ARGMAX,
    TAKE,
    PUT,
    SORT,
    QUANTILE_HUBER,
    ROWS,
    ZERO,
    LINEAR_WEIGHT_GRADIENT,
    SUM_BATCH,
    ADAM,
    POLYAK,
    REFRESH,
    SQUARE_SUM,
    CLIP,
    MASK,
    GATHER,
    SCATTER,
    DIFFER,
    POLYAK_INDEXED,
    KEEP_LARGEST,
    FAKE_QUANTIZE,
    OUTSIDE,
    RMSPROP,
    TO_STEPS,
    END
};
