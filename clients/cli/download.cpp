#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <system_error>

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "clients/cli/commands.h"
#include "clients/cli/job_text.h"
#include "clients/cli/names.h"
#include "clients/cli/partial_file.h"
#include "clients/cli/queries.h"
#include "clients/cli/text.h"

namespace qaas::cli {
namespace {

/// Waits without a byte before a transfer gives up: about a minute.
constexpr int kMostWaits = 15;

/// Shows how far a file is, drawn over on a terminal and silent elsewhere.
class TransferDisplay {
 public:
  TransferDisplay(Console& console, std::string file, int64_t size)
      : console_(console), file_(std::move(file)), size_(size) {}
  ~TransferDisplay() {
    if (shown_) console_.out << "\r\x1b[K" << std::flush;
  }

  void show(int64_t done) {
    if (console_.columns <= 0 || console_.json) return;
    const auto now = std::chrono::steady_clock::now();
    if (shown_ && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    shown_ = true;
    const double share = size_ > 0 ? static_cast<double>(done) / static_cast<double>(size_) : 1;
    const std::string line =
        absl::StrFormat("%s %3.0f %%  %s of %s  %s", progress_bar(share, 20), 100 * share,
                        format_bytes(done), format_bytes(size_), file_);
    console_.out << "\r" << fit(line, console_.columns - 1) << "\x1b[K" << std::flush;
  }

 private:
  Console& console_;
  const std::string file_;
  const int64_t size_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_;
};

/// The names become files here: nothing the server sends may lead out of the folder, and no two may
/// be one file.
absl::Status check_artifacts(const std::vector<v1::Artifact>& artifacts, const std::string& job) {
  std::set<std::string> seen;
  for (const v1::Artifact& artifact : artifacts) {
    const std::string file = last_segment(artifact.name());
    if (artifact.name() != absl::StrCat(job, "/artifacts/", file) || !is_plain_file_name(file) ||
        absl::EndsWith(file, ".partial")) {
      return absl::DataLossError(
          absl::StrCat("the server lists '", artifact.name(), "', which is no plain file name"));
    }
    if (!seen.insert(file).second) {
      return absl::DataLossError(absl::StrCat("the server lists '", artifact.name(), "' twice"));
    }
    if (artifact.size_bytes() < 0 || artifact.sha256().size() != 64) {
      return absl::DataLossError(
          absl::StrCat("the server gives no size and SHA-256 for '", artifact.name(), "'"));
    }
  }
  return absl::OkStatus();
}

/// One stream from the end of `file` on. Checks that every chunk continues where the last ended.
absl::Status stream_chunks(Connection& connection, const v1::Artifact& artifact, PartialFile& file,
                           TransferDisplay& display) {
  v1::DownloadArtifactRequest request;
  request.set_name(artifact.name());
  request.set_offset(file.size());
  grpc::ClientContext context;
  const auto reader = connection.artifacts().DownloadArtifact(&context, request);
  v1::DownloadArtifactResponse response;
  absl::Status local;
  while (local.ok() && reader->Read(&response)) {
    if (response.content().empty()) continue;
    if (response.offset() != file.size() ||
        static_cast<int64_t>(response.content().size()) > artifact.size_bytes() - file.size()) {
      local = absl::DataLossError(absl::StrCat("'", artifact.name(), "': got ",
                                               response.content().size(), " bytes at ",
                                               response.offset(), ", expected to continue at ",
                                               file.size(), " of ", artifact.size_bytes()));
    } else {
      local = file.append(response.content());
      display.show(file.size());
    }
  }
  if (!local.ok()) context.TryCancel();
  const absl::Status remote = from_grpc(reader->Finish());
  return local.ok() ? remote : local;
}

/// Streams, again where the server goes away, until the file has all its bytes.
absl::Status transfer(Connection& connection, const v1::Artifact& artifact, PartialFile& file,
                      TransferDisplay& display) {
  Backoff backoff;
  while (file.size() < artifact.size_bytes()) {
    const int64_t before = file.size();
    absl::Status status = stream_chunks(connection, artifact, file, display);
    if (file.size() > before) backoff.reset();
    if (status.ok() && file.size() < artifact.size_bytes()) {
      status =
          absl::UnavailableError(absl::StrCat("the stream of '", artifact.name(), "' ended at ",
                                              file.size(), " of ", artifact.size_bytes()));
    }
    const bool again = absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
    if (!status.ok() && (!again || !backoff.wait(kMostWaits))) return connection.explain(status);
  }
  return absl::OkStatus();
}

enum class Fetched { kNow, kBefore };

absl::StatusOr<Fetched> fetch_file(Console& console, Connection& connection,
                                   const v1::Artifact& artifact,
                                   const std::filesystem::path& folder) {
  const std::string name = last_segment(artifact.name());
  const std::string expected = absl::AsciiStrToLower(artifact.sha256());
  const absl::StatusOr<std::string> existing = sha256_of_file(folder / name);
  if (existing.ok() && *existing == expected) return Fetched::kBefore;
  if (!absl::IsNotFound(existing.status())) {
    if (!existing.ok()) return existing.status();
    return absl::FailedPreconditionError(
        absl::StrCat("'", (folder / name).string(),
                     "' exists with other content; move it away or choose another --out"));
  }

  absl::StatusOr<PartialFile> file = PartialFile::open(folder, name, artifact.size_bytes());
  if (!file.ok()) return file.status();
  TransferDisplay display(console, name, artifact.size_bytes());
  // Bytes of an earlier run may belong to another file of this name: then begin anew, once.
  bool continued = file->size() > 0;
  while (true) {
    const absl::Status transferred = transfer(connection, artifact, *file, display);
    if (!transferred.ok()) return transferred;
    if (file->sha256() == expected) break;
    const std::string found = file->sha256();
    const absl::Status restarted = file->restart();
    if (!restarted.ok()) return restarted;
    if (!std::exchange(continued, false)) {
      return absl::DataLossError(absl::StrCat("'", artifact.name(), "': SHA-256 is ", found,
                                              ", the server announced ", expected));
    }
  }
  const absl::Status published = file->publish();
  if (!published.ok()) return published;
  return Fetched::kNow;
}

absl::Status no_artifacts(Connection& connection, const std::string& name) {
  const absl::StatusOr<v1::Job> job = fetch_job(connection, name);
  if (!job.ok()) return job.status();
  return absl::FailedPreconditionError(absl::StrCat("'", name, "' is ", state_words(job->state()),
                                                    "; a job has files once it has succeeded"));
}

}  // namespace

absl::StatusOr<ExitCode> download(Console& console, Connection& connection,
                                  const DownloadOptions& options) {
  const std::string job = with_collection("jobs", options.job);
  const absl::StatusOr<std::vector<v1::Artifact>> artifacts = fetch_artifacts(connection, job);
  if (!artifacts.ok()) return artifacts.status();
  if (artifacts->empty()) return no_artifacts(connection, job);
  const absl::Status checked = check_artifacts(*artifacts, job);
  if (!checked.ok()) return checked;

  const std::filesystem::path folder = options.folder;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create folder '", folder.string(), "': ", error.message()));
  }
  v1::ListArtifactsResponse fetched;
  for (const v1::Artifact& artifact : *artifacts) {
    const absl::StatusOr<Fetched> result = fetch_file(console, connection, artifact, folder);
    if (!result.ok()) return result.status();
    *fetched.add_artifacts() = artifact;
    if (!console.json) {
      console.out << (folder / last_segment(artifact.name())).string() << "  "
                  << format_bytes(artifact.size_bytes())
                  << (*result == Fetched::kBefore ? "  (there already)\n" : "\n");
      console.out.flush();
    }
  }
  if (console.json) print_json(console, fetched);
  return ExitCode::kOk;
}

}  // namespace qaas::cli
