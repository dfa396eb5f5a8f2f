/* The kernels against loops in double precision, without Python: for processors that only an emulator has here. Prints the
   number of comparisons, or the first one that fails. */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "engine.cpp"

static std::mt19937 rng(1);
static int comparisons = 0;

static int below(int n) { return (int)(rng() % (unsigned)n); }
static float normal() { return std::normal_distribution<float>()(rng); }

/* Floats that begin at a multiple of 64 bytes. */
struct Floats {
    explicit Floats(size_t n) : size(n), at((float *)aligned_alloc(64, (n * 4 + 127) / 64 * 64)) {
        for (size_t i = 0; i < n; i++) at[i] = normal();
    }
    size_t size;
    float *at;
};

static void expect(const char *what, double actual, double expected, double scale, double bound = 2e-6) {
    comparisons++;
    if (std::fabs(actual - expected) <= bound * scale + 1e-30) return;
    printf("%s: %.9g instead of %.9g\n", what, actual, expected);
    exit(1);
}

static int32_t *integers(const std::vector<int> &values) {
    int32_t *copy = (int32_t *)calloc(values.size() + 16, 4);
    std::copy(values.begin(), values.end(), copy);
    return copy;
}

/* A layer of random weights, each of which exists with a probability; all exist if it is dense. */
struct RandomLayer {
    int outputs, inputs, first;
    std::vector<double> weight;
    std::vector<int> place;
    Layer layer{};

    RandomLayer(int outputs, int inputs, double density)
        : outputs(outputs), inputs(inputs), first(below(inputs)), weight(outputs * inputs), place(outputs * inputs, -1) {
        const bool sparse = density < 1.0;
        layer.kind = sparse ? SPARSE : DENSE;
        layer.outputs = outputs, layer.inputs = inputs, layer.first = first;
        int count = 0;
        if (sparse) {
            std::vector<int> start{0}, row, offset, t_start{0}, t_row, t_offset, t_index;
            for (int o = 0; o < outputs; o++) {
                for (int i = 0; i < inputs; i++)
                    if (below(1000) < density * 1000) place[o * inputs + i] = count++, offset.push_back(i * LANES * 4);
                row.push_back(o), start.push_back(count);
            }
            for (int i = first; i < inputs; i++) {
                for (int o = 0; o < outputs; o++)
                    if (place[o * inputs + i] >= 0) t_index.push_back(place[o * inputs + i]), t_offset.push_back(o * LANES * 4);
                t_row.push_back(i - first), t_start.push_back((int)t_index.size());
            }
            layer.start = integers(start), layer.row = integers(row), layer.offset = integers(offset);
            layer.t_start = integers(t_start), layer.t_row = integers(t_row), layer.t_offset = integers(t_offset);
            layer.t_index = integers(t_index);
        } else {
            count = (outputs + 7) / 8 * 8 * inputs;
            for (int o = 0; o < outputs; o++)
                for (int i = 0; i < inputs; i++) place[o * inputs + i] = o / 8 * 8 * inputs + i * 8 + o % 8;
        }
        layer.values = Floats(count + 64).at, layer.gradient = Floats(count + 64).at;
        layer.transposed = Floats((size_t)(inputs + 8) * (outputs + 8) + 64).at;
        layer.bias = Floats(outputs + 16).at, layer.bias_gradient = Floats(outputs + 16).at;
        for (int k = 0; !sparse && k < count; k++) layer.values[k] = 0.0f;
        for (size_t k = 0; k < place.size(); k++)
            if (place[k] >= 0) weight[k] = layer.values[place[k]] = normal();
    }
};

static void check_layer(int outputs, int inputs, int panels, double density) {
    RandomLayer made(outputs, inputs, density);
    const int first = made.first, samples = panels * LANES;
    const auto at = [](int f, int n, int s) { return (s / LANES * n + f) * LANES + s % LANES; };
    Floats x((size_t)samples * inputs), dy((size_t)samples * outputs), y(dy.size), dx((size_t)samples * (inputs - first));
    Floats scratch(LANES * BLOCK * LANES);
    const auto operand = [](Floats &floats, int n) { return Operand{floats.at, (int64_t)n * LANES, LANES, -1}; };
    Instruction program[4] = {};
    for (Instruction &each : program) each.layer = &made.layer, each.data = scratch.at;
    program[0].op = (int)Op::REFRESH;
    program[1].op = (int)Op::LINEAR, program[1].a = operand(x, inputs), program[1].dst = operand(y, outputs);
    program[2].op = (int)Op::LINEAR_INPUT_GRADIENT, program[2].a = operand(dy, outputs);
    program[2].dst = operand(dx, inputs - first);
    program[3].op = (int)Op::LINEAR_WEIGHT_GRADIENT, program[3].a = operand(dy, outputs), program[3].b = operand(x, inputs);
    if (engine_run(program, 4, panels)) puts("refused"), exit(1);
    for (int s = 0; s < samples; s++) {
        for (int o = 0; o < outputs; o++) {
            double sum = made.layer.bias[o], scale = std::fabs(sum);
            for (int i = 0; i < inputs; i++) {
                const double part = made.weight[o * inputs + i] * x.at[at(i, inputs, s)];
                sum += part, scale += std::fabs(part);
            }
            expect("linear", y.at[at(o, outputs, s)], sum, scale);
        }
        for (int i = first; i < inputs; i++) {
            double sum = 0.0, scale = 0.0;
            for (int o = 0; o < outputs; o++) {
                const double part = made.weight[o * inputs + i] * dy.at[at(o, outputs, s)];
                sum += part, scale += std::fabs(part);
            }
            expect("input gradient", dx.at[at(i - first, inputs - first, s)], sum, scale);
        }
    }
    for (int o = 0; o < outputs; o++)
        for (int i = -1; i < inputs; i++) {
            double sum = 0.0, scale = 0.0;
            for (int s = 0; s < samples; s++) {
                const double part = (double)dy.at[at(o, outputs, s)] * (i < 0 ? 1.0 : x.at[at(i, inputs, s)]);
                sum += part, scale += std::fabs(part);
            }
            if (i < 0)
                expect("bias gradient", made.layer.bias_gradient[o], sum, scale);
            else if (made.place[o * inputs + i] >= 0)
                expect("weight gradient", made.layer.gradient[made.place[o * inputs + i]], sum, scale);
        }
}

template <class Exact> static void check_function(const char *what, Op op, Exact exact) {
    Floats x(LANES), y(LANES);
    for (int round = 0; round < 50; round++) {
        for (int s = 0; s < LANES; s++) x.at[s] = op == Op::LOG ? expf(5.0f * normal()) : 4.0f * normal();
        Instruction one{};
        one.op = (int)op, one.n = 1, one.a = {x.at, LANES, LANES, -1}, one.dst = {y.at, LANES, LANES, -1};
        if (engine_run(&one, 1, 1)) puts("refused"), exit(1);
        for (int s = 0; s < LANES; s++) expect(what, y.at[s], exact((double)x.at[s]), std::fabs(exact((double)x.at[s])) + 1e-6);
    }
}

static void check_adam() {
    const int n = 64;
    Floats p(n), m(n), v(n), g(n);
    for (int i = 0; i < n; i++) v.at[i] *= v.at[i];
    const std::vector<float> before[] = {{p.at, p.at + n}, {m.at, m.at + n}, {v.at, v.at + n}};
    double state[8] = {4.0, 1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0};
    Instruction one{};
    one.op = (int)Op::ADAM, one.n = n, one.data = state, one.dst.base = p.at, one.a.base = m.at, one.b.base = v.at;
    one.c.base = g.at;
    if (engine_run(&one, 1, 1)) puts("refused"), exit(1);
    for (int i = 0; i < n; i++) {
        const double mean = 0.9 * before[1][i] + 0.1 * g.at[i], square = 0.999 * before[2][i] + 0.001 * g.at[i] * g.at[i];
        const double step = 1e-3 / (1 - pow(0.9, 5)) * mean / (sqrt(square) / sqrt(1 - pow(0.999, 5)) + 1e-8);
        expect("mean", m.at[i], mean, std::fabs(mean) + 1.0);
        expect("square", v.at[i], square, square);
        expect("parameter", p.at[i], before[0][i] - step, std::fabs(before[0][i]) + std::fabs(step));
    }
}

int main() {
    for (int round = 0; round < 40; round++)
        for (double density : {0.0, 0.1, 0.5, 1.0}) check_layer(1 + below(40), 1 + below(40), 1 + below(6), density);
    check_function("exp", Op::EXP, [](double x) { return exp(x); });
    check_function("log", Op::LOG, [](double x) { return log(x); });
    check_function("tanh", Op::TANH, [](double x) { return tanh(x); });
    check_function("sigmoid", Op::SIGMOID, [](double x) { return 1.0 / (1.0 + exp(-x)); });
    check_adam();
    printf("%s: %d comparisons\n", engine_isa(), comparisons);
}
