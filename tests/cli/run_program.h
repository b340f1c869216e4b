#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "clients/cli/program.h"

namespace qaas::cli::testing {

/// What one run of the program did.
struct ProgramRun {
  int exit = -1;
  std::string out;
  std::string err;
};

/// Runs the program against `server` within this process, on no terminal.
inline ProgramRun run_program(const std::string& server, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"qaas", "--server", server});
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out;
  std::ostringstream err;
  Console console{.out = out, .err = err};
  ProgramRun result;
  result.exit = run(static_cast<int>(argv.size()), argv.data(), console);
  result.out = out.str();
  result.err = err.str();
  return result;
}

}  // namespace qaas::cli::testing
