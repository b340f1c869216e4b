#pragma once

#include <string>
#include <vector>

namespace qaas {

/// One file of storage/database/migrations.
struct Migration {
  int number = 0;    ///< from 1, without gaps
  std::string name;  ///< file name without extension
  std::string sql;
};

/// All migrations in order, compiled into the program. Forward only: a file that has shipped is
/// never edited.
const std::vector<Migration>& migrations();

}  // namespace qaas
