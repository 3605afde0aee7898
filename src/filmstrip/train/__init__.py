"""One loop, optimisers, schedules, run folders, logging."""
