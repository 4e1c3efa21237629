"""Weight files (safetensors, checkpoints, TorchScript, ONNX), read without running their code."""
