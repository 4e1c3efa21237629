"""Functions of tensors: similarity, ranking, removal of pixels, controls, randomisation."""
