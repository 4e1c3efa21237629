"""Files of weights (safetensors, checkpoints, TorchScript, ONNX), read without running code."""
