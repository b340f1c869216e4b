#pragma once

#include "clients/cli/console.h"

namespace qaas::cli {

/// The whole program but its process: parses arguments, runs one command, prints its result or its
/// error, and returns the exit code. `console.json` is set by the arguments.
int run(int argc, const char* const* argv, Console& console);

}  // namespace qaas::cli
