"""The files of a run: their formats, reading and writing. No torch."""
