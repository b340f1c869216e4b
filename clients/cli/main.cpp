#include <exception>
#include <iostream>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clients/cli/program.h"

namespace {

/// Columns of standard output's terminal, 0 where it is none.
int terminal_columns() {
  if (isatty(STDOUT_FILENO) == 0) return 0;
  winsize size{};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    qaas::cli::Console console{.out = std::cout, .err = std::cerr, .columns = terminal_columns()};
    return qaas::cli::run(argc, argv, console);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
