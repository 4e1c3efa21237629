"""Bad things that need nothing but Python, each by its name. Importing this is quick."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time


def endless():
    while True:
        pass


def flood(where):
    while True:
        os.write(where, b"x" * 65536)


def pipes():
    """Return the numbers of the pipes that answers go through."""
    return [int(number) for number in sys.argv[1:3]]


def hold(lock):
    lock.acquire()
    lock.acquire()


def bombs(n=20):
    for _ in range(n):
        if os.fork() == 0:
            while True:
                time.sleep(1)
    endless()


def background():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def gone():
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    shutil.rmtree(folder)


def raised(error):
    raise error


def descend():
    return descend()


def leave_a_thread():
    threading.Thread(target=time.sleep, args=(600,)).start()


def forked_and_hanging():
    if os.fork() == 0:
        endless()
    endless()


WAYS = {
    "exit": lambda: sys.exit(0),
    "hard_exit": lambda: os._exit(3),
    "c_exit": lambda: ctypes.CDLL(None)._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "abort": lambda: os.abort(),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "loop": lambda: endless(),
    "sleep": lambda: time.sleep(1000),
    "deaf_sleep": lambda: [signal.signal(signal.SIGTERM, signal.SIG_IGN), time.sleep(1000)],
    "deadlock": lambda: hold(threading.Lock()),
    "fork": lambda: os.fork(),
    "fork_and_hang": lambda: forked_and_hanging(),
    "bombs": lambda: bombs(),
    "background": lambda: background(),
    "thread": lambda: leave_a_thread(),
    "print": lambda: flood(1),
    "garbage": lambda: os.write(pipes()[1], b"nonsense of more than twelve bytes"),
    "forged": lambda: os.write(pipes()[1], b"fxev" + (4).to_bytes(8, "big") + b"{}{}"),
    "flooded_pipe": lambda: flood(pipes()[1]),
    "close": lambda: os.closerange(3, 1000),
    "close_and_hang": lambda: [os.closerange(0, 1000), endless()],
    "kill_the_parent": lambda: [os.kill(os.getppid(), signal.SIGKILL), endless()],
    "kill_the_group": lambda: os.killpg(0, signal.SIGKILL),
    "folder": lambda: gone(),
    "interrupt": lambda: raised(KeyboardInterrupt()),
    "generator_exit": lambda: raised(GeneratorExit()),
    "memory_error": lambda: raised(MemoryError()),
    "recursion": lambda: descend(),
}
