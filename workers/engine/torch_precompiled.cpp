// Gives the precompiled header a target to be compiled in; no code of its own.
#include "torch_precompiled.h"
