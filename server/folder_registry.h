#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "qaas/v1/model.pb.h"
#include "server/folder_scan.h"
#include "server/server_metrics.h"
#include "storage/database/folder_store.h"

namespace qaas {

struct FolderRegistryOptions {
  std::filesystem::path models;    ///< root; must exist
  std::filesystem::path datasets;  ///< root; must exist
  /// How often the roots are looked at.
  std::chrono::milliseconds scan_interval{3000};
};

/// What lies under the model and the dataset root. One thread looks at names, sizes and times every
/// few seconds; another opens and hashes new or changed models, one at a time, and remembers the
/// digest in the database, so that a restart does not read terabytes again. Calls only look at the
/// latest result: none touches the disk. Thread-safe.
class FolderRegistry {
 public:
  /// Looks at the roots once before it returns, so that the first call knows every name.
  FolderRegistry(FolderRegistryOptions options, FolderStore& store, ServerMetrics& metrics);
  /// Ends both threads; a digest under way is abandoned within one chunk of its file.
  ~FolderRegistry();
  FolderRegistry(const FolderRegistry&) = delete;
  FolderRegistry& operator=(const FolderRegistry&) = delete;

  /// The model in `folder`, or null if there is none.
  std::shared_ptr<const v1::Model> model(const std::string& folder) const;
  /// All models in name order.
  std::vector<std::shared_ptr<const v1::Model>> models() const;

  /// The dataset in `folder`; `problem` is empty if it can be used. Null if there is none.
  std::shared_ptr<const DatasetFolder> dataset(const std::string& folder) const;
  /// Names of all datasets, in order.
  std::vector<std::string> dataset_names() const;

 private:
  struct ModelEntry {
    std::string fingerprint;
    std::shared_ptr<const v1::Model> model;
    bool remembered = false;  // the database has this digest
  };

  void scan_loop(const std::stop_token& stop);
  void recall();
  void scan_models();
  void scan_datasets();
  void remember();
  void digest_loop(const std::stop_token& stop);
  std::shared_ptr<const v1::Model> examine(const std::string& folder,
                                           const std::stop_token& stop) const;
  void count_models();  // needs mutex_

  const FolderRegistryOptions options_;
  FolderStore& store_;
  ServerMetrics& metrics_;

  // Touched by the scanning thread only: what the database holds, by folder.
  bool recalled_ = false;
  std::map<std::string, FolderRecord> remembered_;

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  std::map<std::string, ModelEntry> models_;
  std::map<std::string, std::shared_ptr<const DatasetFolder>> datasets_;
  std::deque<std::string> pending_;  // folders to digest, each at most once

  std::jthread scanner_;
  std::jthread digester_;
};

}  // namespace qaas
