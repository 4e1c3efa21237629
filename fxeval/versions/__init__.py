"""Two versions of the code under test, side by side: commits, worktrees, a run of each."""
