"""Settings of torch and numpy that decide how they compute."""

import operator
from typing import Any, ClassVar

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.backends import opt_einsum
from torch.utils import _python_dispatch as dispatch

from fxeval.hooks.process_modes import Mode

_C: Any = torch._C
_HOOKS: Any = _C._autograd
_MORE_THAN_ANY = 1000  # entries of a stack


def _pair(name: str, getter: str, setter: str, of: Any = _C) -> list[Mode]:  # noqa: ANN401
    """Return a setting that two functions of torch read and write; none where torch lacks them."""
    if not hasattr(of, getter) or not hasattr(of, setter):
        return []
    return [Mode(name, getattr(of, getter), getattr(of, setter))]


def _precision(backend: str, operation: str) -> list[Mode]:
    if not hasattr(_C, "_get_fp32_precision_getter"):
        return []
    return [
        Mode(
            f"float32 precision of {backend} {operation}",
            lambda: _C._get_fp32_precision_getter(backend, operation),
            lambda kept: _C._set_fp32_precision_setter(backend, operation, kept),
        )
    ]


def _autocast(device: str) -> Mode:
    def get() -> tuple[bool, torch.dtype]:
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def put(kept: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, kept[0])
        torch.set_autocast_dtype(device, kept[1])
        torch.clear_autocast_cache()

    return Mode(f"autocast on {device}", get, put)


def _autocast_depth() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _put_autocast_depth(kept: int) -> None:
    torch.clear_autocast_cache()
    while _autocast_depth() > kept:
        torch.autocast_decrement_nesting()
    while _autocast_depth() < kept:
        torch.autocast_increment_nesting()


def _function_modes() -> tuple[Any, ...]:
    return tuple(_C._get_function_stack_at(i) for i in range(_C._len_torch_function_stack()))


def _put_function_modes(kept: tuple[Any, ...]) -> None:
    while _C._len_torch_function_stack():
        _C._pop_torch_function_stack()
    for mode in kept:
        _C._push_on_torch_function_stack(mode)


_DISPATCH_FLAGS = [name for name in vars(dispatch) if name.startswith("_is_in_")]


def _dispatch_modes() -> tuple[Any, ...]:
    flags = tuple(getattr(dispatch, name) for name in _DISPATCH_FLAGS)
    return (flags, *dispatch._get_current_dispatch_mode_stack())


def _put_dispatch_modes(kept: tuple[Any, ...]) -> None:
    while _C._len_torch_dispatch_stack():
        dispatch._pop_mode()
    for mode in kept[1:]:
        dispatch._push_mode(mode)
    for name, value in zip(_DISPATCH_FLAGS, kept[0], strict=True):
        setattr(dispatch, name, value)
    told = getattr(dispatch, "set_is_in_mode_without_ignore_compile_internals", None)
    if told is not None:
        told(dispatch._is_in_any_mode_without_ignore_compile_internals)


def _default_device() -> Any:  # noqa: ANN401  (torch's own context)
    return getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)


def _put_default_device(kept: Any) -> None:  # noqa: ANN401
    torch._GLOBAL_DEVICE_CONTEXT.device_context = kept


def _saved_tensors_hooks() -> tuple[Any, Any]:
    top = _HOOKS._top_saved_tensors_default_hooks(True)
    return top, _HOOKS._saved_tensors_hooks_get_disabled_error_message()


def _put_saved_tensors_hooks(kept: tuple[Any, Any]) -> None:
    # Without tracing, the stack can be popped even while hooks are disabled.
    _HOOKS._saved_tensors_hooks_enable()
    for _ in range(_MORE_THAN_ANY):
        top = _HOOKS._top_saved_tensors_default_hooks(True)
        if top is None or top == kept[0]:
            break
        _HOOKS._pop_saved_tensors_default_hooks()
    if kept[0] is not None and _HOOKS._top_saved_tensors_default_hooks(True) is None:
        _HOOKS._push_saved_tensors_default_hooks(*kept[0])
    if kept[1] is not None:
        _HOOKS._saved_tensors_hooks_disable(kept[1])


def _put_determinism(kept: tuple[bool, bool]) -> None:
    # Only if needed: the call imports torch's compiler, which takes seconds.
    torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])


def _put_forward_level(kept: int) -> None:
    while forward_ad._current_level > kept:
        forward_ad.exit_dual_level(level=forward_ad._current_level)  # type: ignore[no-untyped-call]


_DENORMAL = 5e-324


def _flushes_denormals() -> bool:
    """Say whether the processor replaces the smallest numbers by 0: torch cannot be asked."""
    return _DENORMAL * 1.0 == 0.0


def _current_cuda_device() -> int | None:
    is_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.current_device() if is_in_use else None


def _einsum() -> tuple[Any, Any]:
    return opt_einsum.enabled, opt_einsum.strategy


def _put_einsum(kept: tuple[Any, Any]) -> None:
    if opt_einsum.is_available():  # otherwise neither can be set
        opt_einsum.enabled = True  # the strategy can't be set without
        opt_einsum.strategy = kept[1]
        opt_einsum.enabled = kept[0]


_PRECISIONS = [
    (backend, operation)
    for backend, operations in {
        "generic": ("all",),
        "cuda": ("all", "matmul", "conv", "rnn"),
        "mkldnn": ("all", "matmul", "conv", "rnn"),
    }.items()
    for operation in operations
]

COMPUTING: tuple[Mode, ...] = (
    # The stacks first: what stands on them would meet every call below.
    Mode("stack of TorchFunctionMode", _function_modes, _put_function_modes),
    Mode("stack of TorchDispatchMode", _dispatch_modes, _put_dispatch_modes),
    Mode("default device", _default_device, _put_default_device, operator.is_),
    *_pair("torch function overrides", "_get_torch_function_state", "_set_torch_function_state"),
    *_pair(
        "functorch levels",
        "get_dynamic_layer_stack_depth",
        "pop_dynamic_layer_stack_and_undo_to_depth",
        _C._functorch,
    ),
    Mode("forward-mode level", lambda: forward_ad._current_level, _put_forward_level),
    Mode("hooks of saved tensors", _saved_tensors_hooks, _put_saved_tensors_hooks),
    Mode("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Mode("number of threads", torch.get_num_threads, torch.set_num_threads),
    Mode(
        "deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _put_determinism,
    ),
    *_pair(
        "filling of uninitialised memory",
        "_get_deterministic_fill_uninitialized_memory",
        "_set_deterministic_fill_uninitialized_memory",
    ),
    Mode(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda kept: torch.set_anomaly_enabled(*kept),
    ),
    _autocast("cpu"),
    _autocast("cuda"),
    *_pair(
        "cache of autocast", "is_autocast_cache_enabled", "set_autocast_cache_enabled", of=torch
    ),
    Mode("depth of autocast", _autocast_depth, _put_autocast_depth),
    Mode("flushing of denormal numbers", _flushes_denormals, torch.set_flush_denormal),
    *[mode for names in _PRECISIONS for mode in _precision(*names)],
    Mode(
        "precision of float32 matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    *_pair("cudnn.enabled", "_get_cudnn_enabled", "_set_cudnn_enabled"),
    *_pair("cudnn.benchmark", "_get_cudnn_benchmark", "_set_cudnn_benchmark"),
    *_pair("cudnn.deterministic", "_get_cudnn_deterministic", "_set_cudnn_deterministic"),
    *_pair("cudnn.allow_tf32", "_get_cudnn_allow_tf32", "_set_cudnn_allow_tf32"),
    *_pair("cuda.matmul.allow_tf32", "_get_cublas_allow_tf32", "_set_cublas_allow_tf32"),
    *_pair(
        "cuda.matmul.allow_fp16_reduced_precision_reduction",
        "_get_cublas_allow_fp16_reduced_precision_reduction",
        "_set_cublas_allow_fp16_reduced_precision_reduction",
    ),
    *_pair(
        "cuda.matmul.allow_bf16_reduced_precision_reduction",
        "_get_cublas_allow_bf16_reduced_precision_reduction",
        "_set_cublas_allow_bf16_reduced_precision_reduction",
    ),
    *_pair(
        "cuda.matmul.allow_fp16_accumulation",
        "_get_cublas_allow_fp16_accumulation",
        "_set_cublas_allow_fp16_accumulation",
    ),
    *_pair(
        "fp16 reductions of the CPU",
        "_get_cpu_allow_fp16_reduced_precision_reduction",
        "_set_cpu_allow_fp16_reduced_precision_reduction",
    ),
    *_pair("mkldnn.enabled", "_get_mkldnn_enabled", "_set_mkldnn_enabled"),
    *_pair("mkldnn.deterministic", "_get_mkldnn_deterministic", "_set_mkldnn_deterministic"),
    *_pair("mkldnn.allow_tf32", "_get_onednn_allow_tf32", "_set_onednn_allow_tf32"),
    *_pair("nnpack", "_get_nnpack_enabled", "_set_nnpack_enabled"),
    *_pair("engine of quantised operations", "_get_qengine", "_set_qengine"),
    *_pair("flash attention", "_get_flash_sdp_enabled", "_set_sdp_use_flash"),
    *_pair(
        "memory-efficient attention", "_get_mem_efficient_sdp_enabled", "_set_sdp_use_mem_efficient"
    ),
    *_pair("plain attention", "_get_math_sdp_enabled", "_set_sdp_use_math"),
    *_pair("cudnn attention", "_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn"),
    *_pair(
        "reductions of plain attention",
        "_get_math_sdp_allow_fp16_bf16_reduction",
        "_set_math_sdp_allow_fp16_bf16_reduction",
    ),
    *_pair("order of attention kernels", "_get_sdp_priority_order", "_set_sdp_priority_order"),
    *_pair(
        "fast path of attention modules",
        "get_fastpath_enabled",
        "set_fastpath_enabled",
        torch.backends.mha,
    ),
    *_pair(
        "linear algebra library", "_get_linalg_preferred_backend", "_set_linalg_preferred_backend"
    ),
    *_pair("BLAS library", "_get_blas_preferred_backend", "_set_blas_preferred_backend"),
    *_pair(
        "optimisation of scripts", "_get_graph_executor_optimize", "_set_graph_executor_optimize"
    ),
    *_pair("fusion of scripts", "_jit_texpr_fuser_enabled", "_jit_set_texpr_fuser_enabled"),
    *_pair("fusion of scripts on the CPU", "_jit_can_fuse_on_cpu", "_jit_override_can_fuse_on_cpu"),
    *_pair(
        "checks of sparse tensors",
        "_check_sparse_tensor_invariants",
        "_set_check_sparse_tensor_invariants",
    ),
    Mode("contraction of products", _einsum, _put_einsum),
    Mode("current CUDA device", _current_cuda_device, torch.cuda.set_device),
    Mode("numpy's reactions to errors", np.geterr, lambda kept: np.seterr(**kept)),
    Mode("numpy's handler of errors", np.geterrcall, np.seterrcall, operator.is_),
    Mode("numpy's buffer size", np.getbufsize, np.setbufsize),
)
"""Settings that decide how torch and numpy compute. The number of inter-op threads is not among
them: torch refuses to change it once it is in use."""


class _Inference:
    """Inference mode, which is on or off as long as a guard lives."""

    guards: ClassVar[list[Any]] = []

    @classmethod
    def put(cls, kept: bool) -> None:
        """Switch it for the rest of the process."""
        guard = _C._InferenceMode(kept)
        guard.__enter__()
        cls.guards.append(guard)


GRADIENTS: tuple[Mode, ...] = (
    Mode("inference mode", torch.is_inference_mode_enabled, _Inference.put),
    Mode("gradients", torch.is_grad_enabled, _C._set_grad_enabled),
    *_pair("forward-mode gradients", "_is_fwd_grad_enabled", "_set_fwd_grad_enabled"),
    *_pair("threads of autograd", "_is_multithreading_enabled", "_set_multithreading_enabled"),
    *_pair("replay of views", "_is_view_replay_enabled", "_set_view_replay_enabled"),
)
"""Whether results can be differentiated, which does not change them."""
