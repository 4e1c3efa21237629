"""A program with bounds that takes more of one thing: of what its command line names."""

import sys

from fxeval.strict.sandbox import bound

if __name__ == "__main__":
    bound(memory=64 << 20, output=1 << 20, seconds=1)
    what = sys.argv[1]
    if what == "echo":
        sys.stdout.buffer.write(sys.stdin.buffer.read())
    elif what == "memory":
        bytearray(256 << 20)
    elif what == "output":
        while True:
            sys.stdout.buffer.write(b"x" * 10_000)
    elif what == "errors":
        while True:
            sys.stderr.buffer.write(b"x" * 10_000)
            sys.stderr.flush()
    elif what == "time":
        while True:
            pass
    elif what == "exit":
        sys.exit("first\n\x1b[31mlast ")
