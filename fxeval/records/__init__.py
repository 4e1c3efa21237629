"""What a run leaves behind: its formats, and how they are read and written. No torch."""
