// Precompiled once for every target that links torch (see CMakeLists.txt).
#pragma once

#include <torch/torch.h>
