"""SAM 2 for video: the network, the tracker, proposals of objects, and the trainer."""

import os

# A thread of torch that waits for the others keeps its core busy, unless it is told to sleep. Where other processes
# want that core, every wait then costs a time slice, and a training step has thousands of waits: on two busy cores a
# step with two threads took 14 s instead of 1 s. GNU's OpenMP reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
