#include "server/folder_registry.h"

#include <algorithm>
#include <set>
#include <utility>

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include "server/resource_names.h"
#include "storage/checkpoint/digest.h"
#include "storage/checkpoint/model_folder.h"
#include "storage/checkpoint/model_summary.h"
#include "telemetry/logging.h"

namespace qaas {
namespace {

constexpr char kModelKind[] = "model";
constexpr size_t kLongestError = 1024;

std::shared_ptr<const v1::Model> scanning_model(const ScannedFolder& folder) {
  auto model = std::make_shared<v1::Model>();
  model->set_name(model_name(folder.name));
  model->set_state(v1::Model::STATE_SCANNING);
  model->mutable_update_time()->set_seconds(folder.modified_seconds);
  return model;
}

LogLimiter& trouble_log() {
  static LogLimiter limiter(std::chrono::minutes(1));
  return limiter;
}

}  // namespace

FolderRegistry::FolderRegistry(FolderRegistryOptions options, FolderStore& store,
                               ServerMetrics& metrics)
    : options_(std::move(options)), store_(store), metrics_(metrics) {
  recall();
  scan_models();
  scan_datasets();
  scanner_ = std::jthread([this](const std::stop_token& stop) { scan_loop(stop); });
  digester_ = std::jthread([this](const std::stop_token& stop) { digest_loop(stop); });
}

FolderRegistry::~FolderRegistry() {
  scanner_.request_stop();
  digester_.request_stop();
}

std::shared_ptr<const v1::Model> FolderRegistry::model(const std::string& folder) const {
  const std::lock_guard lock(mutex_);
  const auto found = models_.find(folder);
  return found == models_.end() ? nullptr : found->second.model;
}

std::vector<std::shared_ptr<const v1::Model>> FolderRegistry::models() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const v1::Model>> all;
  all.reserve(models_.size());
  for (const auto& [folder, entry] : models_) all.push_back(entry.model);
  return all;
}

std::shared_ptr<const DatasetFolder> FolderRegistry::dataset(const std::string& folder) const {
  const std::lock_guard lock(mutex_);
  const auto found = datasets_.find(folder);
  return found == datasets_.end() ? nullptr : found->second;
}

std::vector<std::string> FolderRegistry::dataset_names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, dataset] : datasets_) names.push_back(name);
  return names;
}

void FolderRegistry::scan_loop(const std::stop_token& stop) {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, stop, options_.scan_interval, [] { return false; });
    }
    if (stop.stop_requested()) return;
    recall();
    scan_models();
    scan_datasets();
    remember();
  }
}

// Reads the digests of earlier runs, once. Until the database answers, models are hashed anew.
void FolderRegistry::recall() {
  if (recalled_) return;
  absl::StatusOr<std::vector<FolderRecord>> records = store_.list(kModelKind);
  if (!records.ok()) {
    trouble_log().log(LogLevel::kWarning, absl::StrCat("cannot read remembered digests: ",
                                                       records.status().ToString()));
    return;
  }
  for (FolderRecord& record : *records) {
    const std::string name = record.name;
    remembered_.insert_or_assign(name, std::move(record));
  }
  recalled_ = true;
}

void FolderRegistry::scan_models() {
  const absl::StatusOr<std::vector<ScannedFolder>> folders = scan_root(options_.models);
  if (!folders.ok()) {
    trouble_log().log(LogLevel::kError, folders.status().ToString());
    return;  // a root that is away for a moment (remounted) keeps its models
  }
  std::set<std::string> present;
  const std::lock_guard lock(mutex_);
  for (const ScannedFolder& folder : *folders) {
    present.insert(folder.name);
    ModelEntry& entry = models_[folder.name];
    if (entry.fingerprint == folder.fingerprint) continue;
    const auto known = remembered_.find(folder.name);
    if (known != remembered_.end() && known->second.fingerprint == folder.fingerprint &&
        !known->second.sha256.empty()) {
      entry = {.fingerprint = folder.fingerprint,
               .model = std::make_shared<v1::Model>(known->second.model),
               .remembered = true};
      continue;
    }
    entry = {.fingerprint = folder.fingerprint, .model = scanning_model(folder)};
    if (std::find(pending_.begin(), pending_.end(), folder.name) == pending_.end()) {
      pending_.push_back(folder.name);
    }
  }
  std::erase_if(models_, [&present](const auto& item) { return !present.contains(item.first); });
  count_models();
  wake_.notify_all();
}

void FolderRegistry::scan_datasets() {
  const absl::StatusOr<std::vector<ScannedFolder>> folders = scan_root(options_.datasets);
  if (!folders.ok()) {
    trouble_log().log(LogLevel::kError, folders.status().ToString());
    return;
  }
  std::map<std::string, std::shared_ptr<const DatasetFolder>> found;
  for (const ScannedFolder& folder : *folders) {
    found.emplace(folder.name, std::make_shared<DatasetFolder>(
                                   inspect_dataset(options_.datasets / folder.name)));
  }
  const std::lock_guard lock(mutex_);
  datasets_ = std::move(found);
}

void FolderRegistry::digest_loop(const std::stop_token& stop) {
  while (true) {
    std::string folder;
    std::string fingerprint;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [this] { return !pending_.empty(); })) return;
      folder = pending_.front();
      pending_.pop_front();
      const auto found = models_.find(folder);
      if (found == models_.end()) continue;  // removed meanwhile
      fingerprint = found->second.fingerprint;
    }
    std::shared_ptr<const v1::Model> result = examine(folder, stop);
    if (stop.stop_requested()) return;
    const std::lock_guard lock(mutex_);
    const auto found = models_.find(folder);
    // A folder that changed under our hands is pending again: this result is of no folder.
    if (found == models_.end() || found->second.fingerprint != fingerprint) continue;
    found->second.model = std::move(result);
    count_models();
  }
}

std::shared_ptr<const v1::Model> FolderRegistry::examine(const std::string& folder,
                                                         const std::stop_token& stop) const {
  const std::filesystem::path path = options_.models / folder;
  v1::Model model;
  absl::Status trouble;
  const absl::StatusOr<ModelFolder> opened = ModelFolder::open(path);
  if (opened.ok()) {
    model = summarize(*opened);
    const absl::StatusOr<std::string> digest = sha256_folder(path, stop);
    if (digest.ok()) model.set_sha256(*digest);
    trouble = digest.status();
  } else {
    trouble = opened.status();
  }
  model.set_name(model_name(folder));
  model.set_state(trouble.ok() ? v1::Model::STATE_READY : v1::Model::STATE_INVALID);
  if (!trouble.ok() && !stop.stop_requested()) {
    // Callers see names below the root, not where the root lies.
    std::string text = absl::StrReplaceAll(
        trouble.message(), {{absl::StrCat(path.string(), "/"), ""}, {path.string(), folder}});
    for (char& c : text) {
      if (!absl::ascii_isprint(c)) c = '?';  // file names need not be UTF-8
    }
    model.set_error(text.substr(0, kLongestError));
    log_warning(absl::StrCat("model '", folder, "' cannot be used: ", model.error()));
  }
  const std::shared_ptr<const v1::Model> before = this->model(folder);
  if (before) *model.mutable_update_time() = before->update_time();
  return std::make_shared<v1::Model>(std::move(model));
}

// Writes new digests to the database, and drops those of folders that are gone. What fails is
// tried again after the next scan.
void FolderRegistry::remember() {
  if (!recalled_) return;
  std::vector<FolderRecord> fresh;
  std::vector<std::string> gone;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [folder, entry] : models_) {
      if (entry.remembered || entry.model->state() != v1::Model::STATE_READY) continue;
      fresh.push_back({.kind = kModelKind,
                       .name = folder,
                       .fingerprint = entry.fingerprint,
                       .sha256 = entry.model->sha256(),
                       .model = *entry.model});
    }
    for (const auto& [folder, record] : remembered_) {
      if (!models_.contains(folder)) gone.push_back(folder);
    }
  }
  absl::Status status;
  for (const FolderRecord& record : fresh) {
    status = store_.put(record);
    if (!status.ok()) break;
    remembered_.insert_or_assign(record.name, record);
    const std::lock_guard lock(mutex_);
    const auto found = models_.find(record.name);
    if (found != models_.end() && found->second.fingerprint == record.fingerprint) {
      found->second.remembered = true;
    }
  }
  for (const std::string& folder : gone) {
    if (!status.ok()) break;
    status = store_.remove(kModelKind, folder);
    if (status.ok()) remembered_.erase(folder);
  }
  if (!status.ok()) {
    trouble_log().log(LogLevel::kWarning,
                      absl::StrCat("cannot remember digests: ", status.ToString()));
  }
}

void FolderRegistry::count_models() {
  std::map<std::string, int> by_state = {{"scanning", 0}, {"ready", 0}, {"invalid", 0}};
  for (const auto& [folder, entry] : models_) {
    switch (entry.model->state()) {
      case v1::Model::STATE_READY:
        ++by_state["ready"];
        break;
      case v1::Model::STATE_INVALID:
        ++by_state["invalid"];
        break;
      default:
        ++by_state["scanning"];
    }
  }
  metrics_.set_models(by_state);
}

}  // namespace qaas
