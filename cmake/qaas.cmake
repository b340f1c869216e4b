# Build rules shared by every folder: warnings, linker, ccache, and the two helpers
# qaas_library() and qaas_test().

find_program(QAAS_CCACHE ccache)
if(QAAS_CCACHE)
  # The sloppiness lets ccache serve files that use a precompiled header; with a base folder, one
  # checkout is served what another compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
    CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${QAAS_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-fpch-preprocess)
  endif()
endif()
find_program(QAAS_MOLD mold)
find_program(QAAS_LLD ld.lld)
if(QAAS_MOLD)
  add_link_options(-fuse-ld=mold)
elseif(QAAS_LLD)
  add_link_options(-fuse-ld=lld)
endif()

add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -Wno-unused-parameter)
if(QAAS_WARNINGS_AS_ERRORS)
  add_compile_options(-Werror)
endif()
if(QAAS_SANITIZE)
  add_compile_options(-fsanitize=${QAAS_SANITIZE} -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${QAAS_SANITIZE})
endif()

# qaas_library(NAME SOURCES a.cpp ... LIBS x y): a static library whose headers are included by
# their path from the repository root.
function(qaas_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_LIBS})
endfunction()

# qaas_test(NAME SOURCES a_test.cpp [POSTGRES] [SLOW] LIBS x y): one GoogleTest program, one CTest
# entry. POSTGRES and SLOW set the label of that name; a POSTGRES test fails without a database
# (tests/run.sh starts one).
function(qaas_test name)
  cmake_parse_arguments(ARG "POSTGRES;SLOW" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set(labels "")
  if(ARG_POSTGRES)
    list(APPEND labels postgres)
  endif()
  if(ARG_SLOW)
    list(APPEND labels slow)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT 600)
  set_property(TEST ${name} PROPERTY ENVIRONMENT
    "QAAS_SOURCE_DIR=${PROJECT_SOURCE_DIR};QAAS_BINARY_DIR=${CMAKE_BINARY_DIR}")
endfunction()
