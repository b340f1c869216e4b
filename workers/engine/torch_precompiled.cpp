// Gives the precompiled header a target to be compiled in; it is included by command line.
