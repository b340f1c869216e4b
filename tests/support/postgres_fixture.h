#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <pqxx/pqxx>

#include "storage/database/database.h"

namespace qaas::testing {

/// A schema of its own in the database that QAAS_TEST_DSN names (tests/support/with_postgres.sh
/// starts one), dropped when this goes. Throws std::runtime_error without QAAS_TEST_DSN.
class TestSchema {
 public:
  TestSchema();
  ~TestSchema();
  TestSchema(const TestSchema&) = delete;
  TestSchema& operator=(const TestSchema&) = delete;

  const std::string& name() const { return name_; }
  /// Connection string whose search_path is the schema; empty of tables until migrated.
  const std::string& dsn() const { return dsn_; }

 private:
  std::string name_;
  std::string dsn_;
};

/// A test with a schema of its own, migrated. Fails, rather than skips, without a database. A test
/// class derived from it may hold stores as members: the database outlives them.
class PostgresTest : public ::testing::Test {
 protected:
  void SetUp() override;

  const std::string& dsn() const { return schema_->dsn(); }
  Database& database() { return *database_; }

  /// Runs raw SQL past the stores, on a connection of its own, and commits. Throws what libpqxx
  /// throws. `sql` is the test's own text.
  pqxx::result execute(const std::string& sql);

  /// Makes every lease expire: the database's clock decides, so tests need not wait.
  void expire_leases();

 private:
  std::unique_ptr<TestSchema> schema_;
  std::unique_ptr<Database> database_;
};

}  // namespace qaas::testing
