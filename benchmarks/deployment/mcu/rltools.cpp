/* The dense actor by RLtools, as its examples do it: a constant model in flash, evaluated by its operations for ARM. */
#include <rl_tools/operations/arm.h>
#include <rl_tools/nn/layers/dense/operations_arm/opt.h>
#include <rl_tools/nn_models/mlp/operations_generic.h>

#include "tables.h"

namespace rlt = rl_tools;

using Device = rlt::devices::DefaultARM;
using Index = Device::index_t;
using Types = rlt::numeric_types::Policy<float>;

static_assert(UNITS0 == UNITS1, "RLtools' MLP has one width");
using Config = rlt::nn_models::mlp::Configuration<Types, Index, ACTIONS, 3, UNITS0, rlt::nn::activation_functions::RELU,
                                                  rlt::nn::activation_functions::TANH>;
using Model = rlt::nn_models::mlp::NeuralNetwork<Config, rlt::nn::capability::Forward<true, true>,
                                                 rlt::tensor::Shape<Index, 1, INPUTS>>;

template <Index LENGTH, bool CONST>
using Row = rlt::Matrix<rlt::matrix::Specification<float, Index, 1, LENGTH, true, rlt::matrix::layouts::DEFAULT<Index>, CONST>>;

static constexpr Model model = {{{weight0}, {bias0}}, {{{weight1}, {bias1}}}, {{weight2}, {bias2}}};
static Model::Buffer<false> buffer;

extern "C" void rltools_act(const float *observation, float *action) {
    Device device;
    Device::SPEC::RANDOM::ENGINE<> random;
    const Row<INPUTS, true> input{observation};
    Row<ACTIONS, false> output{action};
    rlt::evaluate(device, model, input, output, buffer, random);
}
