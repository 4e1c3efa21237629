"""A program that answers with what it was asked, or does the bad thing that it was asked for."""

from fxeval.isolation.running import serve
from fxeval.tests.isolation.ways import WAYS


def answer(message):
    WAYS.get(message[:40].decode("latin-1"), lambda: None)()
    return message


if __name__ == "__main__":
    serve(answer)
