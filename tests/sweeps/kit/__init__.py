"""What the sweeps are made of.

ptrace      system calls of another process: to be told of them, to change them (Linux on x86-64)
calls       a system call that changes something, as plain data
orders      what is to happen at which call: a kill, half a write, an error
tracer      the process that runs commands under its eyes, one order after the other
traced      its client: runs a command and gives what it told and did
memory      a disk that forgets what was not synced
jobs        a small job on a peer, and what has to be true of it after a kill
slices      which points of which sweep a test takes, and the table at the end
"""
