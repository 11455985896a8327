"""One job, one process: paths go in, an exit status comes out, and progress arrives on the way.

    server    a process that imports libraries once and forks itself for each job
    fork      the server's side of that: runs in the other interpreter
    isolate   run one job, or two that take turns, to the end, within a time limit
    progress  the lines in which a job says how far it is
    ends      why a process failed, read from its exit status and its log
    turns     two processes that work alternately
    warden    ends everything that a command has started, however it ends

What is in a job's file is the business of whoever writes it and of the process that reads it.
"""
