"""Settings of Python and of the operating system that user code can change."""

import decimal
import faulthandler
import gc
import locale
import logging
import multiprocessing
import operator
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch.multiprocessing

from fxeval.hooks.process_modes import Mode

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_GRANTED_CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_TIMERS = ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")


def _attributes(owner: Any, names: str, called: str) -> list[Mode]:  # noqa: ANN401
    """Return attributes of a module that hold one object each, such as ``sys.stdout``."""

    def mode(name: str) -> Mode:
        return Mode(
            f"{called}.{name}",
            lambda: getattr(owner, name),
            lambda kept: setattr(owner, name, kept),
            operator.is_,
        )

    return [mode(name) for name in names.split() if hasattr(owner, name)]


def _list(name: str, of: Callable[[], list[Any]]) -> Mode:
    """Return a list that is filled again, so that whoever holds it sees what it was."""

    def same(kept: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
        return len(kept) == len(now) and all(map(operator.is_, kept, now))

    def put(kept: tuple[Any, ...]) -> None:
        of()[:] = kept

    return Mode(name, lambda: tuple(of()), put, same)


def _put_filters(kept: tuple[Any, ...]) -> None:
    warnings.filters[:] = kept  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _decimal() -> tuple[Any, ...]:
    context = decimal.getcontext()
    values = tuple(getattr(context, name) for name in _GRANTED_CONTEXT)
    return (*values, tuple(signal_ for signal_, is_set in context.traps.items() if is_set))


def _put_decimal(kept: tuple[Any, ...]) -> None:
    settings = dict(zip(_GRANTED_CONTEXT, kept[:-1], strict=True))
    decimal.setcontext(decimal.Context(**settings, traps=list(kept[-1])))


def _put_environment(kept: dict[str, str]) -> None:
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    os.environ.update(kept)
    if hasattr(time, "tzset"):
        time.tzset()


def _umask() -> int:
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def _handlers() -> dict[int, Any]:
    return {int(one): signal.getsignal(one) for one in signal.valid_signals()}


def _put_handlers(kept: dict[int, Any]) -> None:
    for one, handler in kept.items():
        if handler is not None and signal.getsignal(one) != handler:
            signal.signal(one, handler)


def _timers() -> tuple[tuple[float, float], ...]:
    return tuple(signal.getitimer(getattr(signal, name)) for name in _TIMERS)


def _put_timers(kept: tuple[tuple[float, float], ...]) -> None:
    for name, timer in zip(_TIMERS, kept, strict=True):
        signal.setitimer(getattr(signal, name), *timer)


def _same_timers(kept: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    """Compare whether each timer is set: how much is left of it shrinks by itself."""
    return [bool(one[0]) for one in kept] == [bool(one[0]) for one in now]


def _limits() -> dict[int, tuple[int, int]]:
    known = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {limit: resource.getrlimit(limit) for limit in sorted(known)}


def _put_limits(kept: dict[int, tuple[int, int]]) -> None:
    for limit, values in kept.items():
        if resource.getrlimit(limit) != values:
            resource.setrlimit(limit, values)


def _put_faulthandler(kept: bool) -> None:
    if not kept:
        faulthandler.disable()
    elif sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def _of_the_system() -> list[Mode]:
    """Return what only some operating systems have."""
    found = []
    if hasattr(signal, "pthread_sigmask"):
        found.append(
            Mode(
                "blocked signals",
                lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
                lambda kept: signal.pthread_sigmask(signal.SIG_SETMASK, kept),
            )
        )
    if hasattr(signal, "getitimer"):
        found.append(Mode("timers", _timers, _put_timers, _same_timers))
    if resource is not None:
        found.append(Mode("resource limits", _limits, _put_limits))
    if hasattr(os, "sched_getaffinity"):
        found.append(
            Mode(
                "processors of the process",
                lambda: os.sched_getaffinity(0),
                lambda kept: os.sched_setaffinity(0, kept),
            )
        )
    return found


SURROUNDINGS: tuple[Mode, ...] = (
    # First those that would meet every call below.
    Mode("trace function", sys.gettrace, sys.settrace, operator.is_),
    Mode("profile function", sys.getprofile, sys.setprofile, operator.is_),
    Mode("trace function of threads", threading.gettrace, threading.settrace, operator.is_),
    Mode("profile function of threads", threading.getprofile, threading.setprofile, operator.is_),
    Mode("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Mode("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    Mode("digits of whole numbers", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    *_attributes(
        sys, "stdout stderr stdin excepthook displayhook unraisablehook breakpointhook argv "
        "dont_write_bytecode", "sys",
    ),
    *_attributes(threading, "excepthook", "threading"),
    *_attributes(warnings, "showwarning _showwarnmsg_impl", "warnings"),
    _list("sys.path", lambda: sys.path),
    _list("sys.meta_path", lambda: sys.meta_path),
    _list("sys.path_hooks", lambda: sys.path_hooks),
    Mode(
        "filters of warnings", lambda: tuple(warnings.filters), _put_filters,
    ),
    Mode("environment variables", os.environ.copy, _put_environment),
    Mode("working folder", os.getcwd, os.chdir),
    Mode("rights of new files", _umask, os.umask),
    Mode(
        "locale", lambda: locale.setlocale(locale.LC_ALL),
        lambda kept: locale.setlocale(locale.LC_ALL, kept),
    ),
    Mode("decimal context", _decimal, _put_decimal),
    Mode(
        "garbage collection", gc.isenabled, lambda kept: gc.enable() if kept else gc.disable(),
    ),
    Mode(
        "thresholds of garbage collection", gc.get_threshold, lambda kept: gc.set_threshold(*kept),
    ),
    Mode("debugging of garbage collection", gc.get_debug, gc.set_debug),
    _list("callbacks of garbage collection", lambda: gc.callbacks),
    Mode("signal handlers", _handlers, _put_handlers),
    Mode("fault handler", faulthandler.is_enabled, _put_faulthandler),
    Mode("warnings of torch", torch.is_warn_always_enabled, torch.set_warn_always),
    Mode("time limit of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Mode("level of logging", lambda: logging.root.level, logging.root.setLevel),
    Mode("least level of logging", lambda: logging.root.manager.disable, logging.disable),
    _list("handlers of logging", lambda: logging.root.handlers),
    Mode(
        "start of processes", lambda: multiprocessing.get_start_method(allow_none=True),
        lambda kept: multiprocessing.set_start_method(kept, force=True),
    ),
    Mode(
        "sharing of tensors between processes", torch.multiprocessing.get_sharing_strategy,
        torch.multiprocessing.set_sharing_strategy,
    ),
    *_of_the_system(),
)  # fmt: skip
"""Settings that no number depends on, and that other code in the process relies on."""
