"""From photographs to aligned faces: detection, alignment, and a journal to resume from."""
