# Writes OUTPUT, a source that defines qaas::migrations() from the files in FOLDER.
# cmake -DFOLDER=... -DOUTPUT=... -P embed_migrations.cmake
file(GLOB files "${FOLDER}/*.sql")
list(SORT files)
set(entries "")
set(expected 0)
foreach(file IN LISTS files)
  get_filename_component(name "${file}" NAME_WE)
  math(EXPR expected "${expected} + 1")
  if(NOT name MATCHES "^([0-9][0-9][0-9][0-9])_[a-z0-9_]+$")
    message(FATAL_ERROR "${file}: migrations are named NNNN_what_it_does.sql")
  endif()
  string(REGEX REPLACE "^0+" "" number "${CMAKE_MATCH_1}")
  if(NOT number EQUAL expected)
    message(FATAL_ERROR "${file}: expected number ${expected}; migrations are numbered from 1 without gaps")
  endif()
  file(READ "${file}" sql)
  string(APPEND entries "      {${number}, \"${name}\", R\"qaas_sql(${sql})qaas_sql\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "// Generated from storage/database/migrations.
#include \"storage/database/migrations.h\"

namespace qaas {

const std::vector<Migration>& migrations() {
  static const std::vector<Migration> all = {
${entries}  };
  return all;
}

}  // namespace qaas
")
