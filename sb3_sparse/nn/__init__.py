"""Masked and quantized layers, the networks that hold them and the optimizers that train them. Imports torch alone."""

from sb3_sparse.nn.compiled import named_children, named_modules, original, plain_name
from sb3_sparse.nn.fake_quantize import BITS, check_bits, fake_quantize, quantize, quantized_bits
from sb3_sparse.nn.followers import Follower, find_follower
from sb3_sparse.nn.gradients import DenseGradients
from sb3_sparse.nn.input_grid import InputGrid, hidden_grid, input_grids, observation_grid, unrounded_inputs
from sb3_sparse.nn.layers import (
    Layer,
    MaskedConv1d,
    MaskedConv2d,
    MaskedLayer,
    MaskedLinear,
)
from sb3_sparse.nn.lstm import LSTMWeight, MaskedLSTM, layer_name
from sb3_sparse.nn.masking import mask_layers, prunable_layers, unmask_layers
from sb3_sparse.nn.networks import check_names, find_networks, find_parts, find_twins, overlooked_layers, select_networks
from sb3_sparse.nn.optim import apply_mask, find_optimizers, flush_moments, fuse_adam, hold_masks, second_moments
from sb3_sparse.nn.path import ActionPath, is_sequential
from sb3_sparse.nn.weight_grid import WeightGrid

__all__ = [
    "BITS",
    "ActionPath",
    "DenseGradients",
    "Follower",
    "InputGrid",
    "LSTMWeight",
    "Layer",
    "MaskedConv1d",
    "MaskedConv2d",
    "MaskedLSTM",
    "MaskedLayer",
    "MaskedLinear",
    "WeightGrid",
    "apply_mask",
    "check_bits",
    "check_names",
    "fake_quantize",
    "find_follower",
    "find_networks",
    "find_optimizers",
    "find_parts",
    "find_twins",
    "flush_moments",
    "fuse_adam",
    "hidden_grid",
    "hold_masks",
    "input_grids",
    "is_sequential",
    "layer_name",
    "mask_layers",
    "named_children",
    "named_modules",
    "observation_grid",
    "original",
    "overlooked_layers",
    "plain_name",
    "prunable_layers",
    "quantize",
    "quantized_bits",
    "second_moments",
    "select_networks",
    "unmask_layers",
    "unrounded_inputs",
]
